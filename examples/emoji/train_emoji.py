"""Trains the emoji model from scratch: SigLIP, quantizer and pixel decoder, codes of all images, language model.

    vilau records emoji emoji-records
    python examples/emoji/train_emoji.py --records emoji-records --work emoji-runs --out emoji

Each stage saves a checkpoint every few minutes. After an interruption, the same command continues where it was.
`--stage siglip` and the names after it run some stages alone. `--steps 0.01` runs a hundredth of the steps, as a
trial. Each line of the log has the loss and the samples per second.
"""

import argparse
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from transformers import PrinterCallback, SiglipModel, Trainer, TrainerCallback, set_seed

from vilau_hf import VilaUPipeline, VilaUProcessor, VilaUVisionTowerForPreTraining
from vilau_hf.data import VilaUDataCollator, VisionTowerDataCollator, encode_dataset, load_encoded
from vilau_hf.emoji.dataset import CaptionedEmoji, caption_texts, load_emoji
from vilau_hf.emoji.tasks import EmojiTasks, load_clips, media_records
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments, VisionTowerTrainer, VisionTowerTrainingArguments
from vilau_hf.training.from_scratch import (
    new_model,
    new_processor,
    new_siglip,
    optimizer_settings,
    release_tower,
    round_weights,
    save_halved,
    train_tokenizer,
)


IMAGE_SIZE = 64
PATCH_SIZE = 8
NUM_FRAMES = 8
CAPTION_LENGTH = 24
STAGES = ("siglip", "tower", "codes", "language")
# On a CPU and with 64 positions, plain products are faster than the fused kernel of PyTorch: a training step of this
# SigLIP takes 1.39 s instead of 1.70 s, and a step of the language model 1.33 s instead of 1.57 s (torch 2.14, one
# core with AVX-512, bfloat16).
ATTENTION = "sdpa" if torch.accelerator.is_available() else "eager"
# Without errors in what it has drawn so far, the model continues the drawing and hardly reads the prompt.
CONTEXT_NOISE = 0.75
# Sentences of the questions, answers and instructions of stage 2.
INSTRUCTIONS = (
    "USER: ASSISTANT: what is this? name it. describe the image. describe the video.",
    "which style is it? noto twemoji flat 3d animated",
    "which group does it belong to? smileys & emotion, animals & nature, food & drink, travel & places, activities, "
    "objects",
    "is it a an the? yes no",
    "change it to style. put it on a background. show it moving. continue it.",
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--records", type=Path, required=True, help="folder of `vilau records emoji`")
parser.add_argument("--work", type=Path, default=Path("emoji-runs"), help="folder of the trainers' checkpoints")
parser.add_argument("--out", type=Path, default=Path("emoji"), help="folder of the model (default: %(default)s)")
parser.add_argument("--stage", choices=STAGES, nargs="+", default=STAGES, help="stages to run (default: all)")
parser.add_argument("--steps", type=float, default=1.0, help="factor on all step counts (default: %(default)s)")
parser.add_argument("--siglip-steps", type=int, default=3000)
parser.add_argument("--tower-steps", type=int, default=4000)
parser.add_argument("--language-steps", type=int, default=10_000)
parser.add_argument("--save-steps", type=int, default=100, help="steps between checkpoints (default: %(default)s)")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

set_seed(args.seed)
logging.getLogger("transformers").setLevel(logging.WARNING)


def count(steps: int) -> int:
    return max(2, math.ceil(steps * args.steps))


def trainer_arguments(cls, name: str, steps: int, batch_size: int, **kwargs):
    return cls(
        output_dir=str(args.work / name),
        **optimizer_settings(count(steps)),
        per_device_train_batch_size=batch_size,
        logging_steps=max(1, min(50, count(steps) // 20)),
        save_steps=args.save_steps,
        save_total_limit=1,
        dataloader_num_workers=1,
        seed=args.seed,
        **kwargs,
    )


class SpeedCallback(TrainerCallback):
    """Prints the step, the losses and the samples per second with every logged entry."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.last = (time.time(), None)

    def on_log(self, args, state, control, logs=None, **kwargs):
        now = time.time()
        since, step = self.last
        if step is not None and "loss" in logs:
            rate = (state.global_step - step) * self.batch_size / (now - since)
            logs = {**logs, "samples_per_second": round(rate, 1)}
        self.last = (now, state.global_step)
        print(json.dumps({"step": state.global_step, **logs}), flush=True)


def train(trainer: Trainer) -> None:
    """Trains from the last checkpoint of the stage, if there is one, and saves the model and the log."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(SpeedCallback(trainer.args.per_device_train_batch_size))
    trainer.train(resume_from_checkpoint=any(Path(trainer.args.output_dir).glob("checkpoint-*")))
    trainer.save_model()


def stage_log(name: str) -> list[dict]:
    """Returns what a stage has logged, from its last checkpoint, with numbers of four digits."""
    states = (args.work / name).glob("checkpoint-*/trainer_state.json")
    last = max(states, key=lambda path: int(path.parent.name.removeprefix("checkpoint-")))
    entries = json.loads(last.read_text())["log_history"]
    return [{key: float(f"{value:.4g}") for key, value in entry.items()} for entry in entries]


# Tokenizer and processor. All stages need the same token ids, so they are made once and read again later.
emoji = load_emoji(args.records, IMAGE_SIZE)
saved_processor = args.work / "processor"
if not saved_processor.exists():
    # The words of the instructions stand in the vocabulary from the start.
    trained = train_tokenizer([*caption_texts(emoji), *INSTRUCTIONS * 50], vocab_size=3072)
    new_processor(trained, IMAGE_SIZE, PATCH_SIZE, NUM_FRAMES).save_pretrained(saved_processor)
processor = VilaUProcessor.from_pretrained(saved_processor)
tokenizer = processor.tokenizer
captioned = CaptionedEmoji(emoji, num_samples=2_000_000, seed=args.seed)
tower_collator = VisionTowerDataCollator(processor.image_processor, tokenizer, CAPTION_LENGTH)

# Stage 1, first half: SigLIP learns what the captions say.
if "siglip" in args.stage:
    siglip = new_siglip(
        tokenizer,
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        text_config={
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "max_position_embeddings": CAPTION_LENGTH,
        },
    )
    siglip.set_attn_implementation(ATTENTION)
    train(
        VisionTowerTrainer(
            model=siglip,
            args=trainer_arguments(
                VisionTowerTrainingArguments, "siglip", args.siglip_steps, 128, logit_learning_rate=1e-2
            ),
            train_dataset=captioned,
            data_collator=tower_collator,
        )
    )

# Stage 1, second half: quantizer and pixel decoder, with the contrastive loss kept on.
if "tower" in args.stage:
    tower = VilaUVisionTowerForPreTraining.from_siglip(
        SiglipModel.from_pretrained(args.work / "siglip"),
        codebook_size=1024,
        code_depth=4,
        latent_channels=64,
        block_out_channels=[32, 64, 96, 128],
        layers_per_block=1,
        norm_num_groups=8,
        reconstruction_loss_weight=1.0,
        mse_loss_weight=10.0,
        l1_loss_weight=1.0,
    )
    tower.set_attn_implementation(ATTENTION)
    train(
        VisionTowerTrainer(
            model=tower,
            args=trainer_arguments(
                VisionTowerTrainingArguments, "tower", args.tower_steps, 48, logit_learning_rate=1e-2
            ),
            train_dataset=captioned,
            data_collator=tower_collator,
        )
    )
    round_weights(tower)
    tower.save_pretrained(args.work / "tower")

# Stage 2 reads codes alone, so every image and clip is encoded once on every background.
clips = load_clips(args.records, IMAGE_SIZE, NUM_FRAMES)
if "codes" in args.stage:
    tower = VilaUVisionTowerForPreTraining.from_pretrained(args.work / "tower")
    report = encode_dataset(media_records(emoji, clips), args.work / "codes", tower, processor)
    print(json.dumps({"encoded": report.num_images, "images_per_second": round(report.images_per_second, 1)}))

# Stage 2: language model, projector and depth transformer.
if "language" in args.stage:
    tower = VilaUVisionTowerForPreTraining.from_pretrained(args.work / "tower")
    encoded = load_encoded(args.work / "codes", tower, processor).with_format("numpy")
    codes = {row["id"]: np.asarray(row["codes"][0]) for row in encoded}
    set_seed(args.seed)
    model = new_model(
        tower,
        tokenizer,
        text_config={
            "model_type": "llama",
            "hidden_size": 256,
            "intermediate_size": 640,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            "initializer_range": 0.04,
            "tie_word_embeddings": True,
        },
        depth_config={"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 768},
    )
    model.set_attn_implementation(ATTENTION)
    samples = EmojiTasks(emoji, clips, codes, num_samples=count(args.language_steps) * 32, seed=args.seed)
    train(
        VilaUTrainer(
            model=model,
            args=trainer_arguments(
                VilaUTrainingArguments,
                "language",
                args.language_steps,
                32,
                train_sampling_strategy="group_by_length",
            ),
            train_dataset=samples.grouped(),
            data_collator=VilaUDataCollator(processor, seed=args.seed, context_noise=CONTEXT_NOISE),
        )
    )
    round_weights(model)
    model.generation_config.update(
        allow_custom_entries=True,
        visual_guidance_scale=2.0,
        visual_temperature=1.0,
        visual_top_k=0,
        visual_top_p=0.9,
        num_frames=NUM_FRAMES,
        unconditional_prompt_ids=processor.unconditional_prompt_ids(),
        max_new_tokens=32,
        ranking_question="describe the image",  # a request of the training data, used by `rank_by="answer"`
        ranking_answer="{prompt}",
    )
    VilaUPipeline(model, processor).save_pretrained(args.out, flat=True)
    save_halved(model, args.out)
    release_tower(tower, processor, args.out / "tower")
    log = {
        "arguments": {name: value for name, value in vars(args).items() if isinstance(value, int | float)},
        "stages": {name: stage_log(name) for name in ("siglip", "tower", "language")},
    }
    (args.out / "training_log.json").write_text(json.dumps(log) + "\n")

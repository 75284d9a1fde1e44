"""Trains the vision tower of the emoji model from scratch: first SigLIP, then quantizer and pixel decoder.

    vilau records emoji emoji-records
    python examples/emoji/train_emoji.py --records emoji-records --work emoji-runs

Each stage saves a checkpoint every few minutes. After an interruption, the same command continues where it was.
`--stage siglip` and the names after it run one stage alone. `--steps 0.01` runs a hundredth of the steps, as a trial.
"""

import argparse
import json
import logging
import math
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, TrainerCallback, set_seed

from vilau_hf import (
    VilaUImageProcessor,
    VilaUProcessor,
    VilaUVideoProcessor,
    VilaUVisionTowerForPreTraining,
    vilau_chat_template,
)
from vilau_hf.data import VisionTowerDataCollator
from vilau_hf.emoji.dataset import CaptionedEmoji, caption_texts, load_emoji
from vilau_hf.training import VisionTowerTrainer, VisionTowerTrainingArguments


IMAGE_SIZE = 64
PATCH_SIZE = 8
NUM_FRAMES = 8
CAPTION_LENGTH = 24
STAGES = ("siglip", "tower")
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
parser.add_argument("--stage", choices=STAGES, nargs="+", default=STAGES, help="stages to run (default: all)")
parser.add_argument("--steps", type=float, default=1.0, help="factor on all step counts (default: %(default)s)")
parser.add_argument("--siglip-steps", type=int, default=3000)
parser.add_argument("--tower-steps", type=int, default=6000)
parser.add_argument("--save-steps", type=int, default=100, help="steps between checkpoints (default: %(default)s)")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

set_seed(args.seed)
logging.getLogger("transformers").setLevel(logging.WARNING)


def count(steps: int) -> int:
    return max(2, math.ceil(steps * args.steps))


def trainer_arguments(cls, name: str, steps: int, batch_size: int, rate: float, **kwargs):
    return cls(
        output_dir=str(args.work / name),
        max_steps=count(steps),
        per_device_train_batch_size=batch_size,
        learning_rate=rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=max(1, count(steps) // 20),
        adam_beta2=0.95,
        weight_decay=0.01,
        max_grad_norm=1.0,
        logging_steps=max(1, min(50, count(steps) // 20)),
        save_steps=args.save_steps,
        save_total_limit=1,
        report_to="none",
        dataloader_num_workers=1,
        disable_tqdm=True,
        use_cpu=not torch.accelerator.is_available(),
        bf16=True,
        seed=args.seed,
        **kwargs,
    )


class SpeedCallback(TrainerCallback):
    """Prints the step, the loss and the samples per second with every logged entry."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.last = (time.time(), None)

    def on_log(self, args, state, control, logs=None, **kwargs):
        now = time.time()
        since, step = self.last
        if step is not None and "loss" in logs:
            logs = {
                **logs,
                "samples_per_second": round((state.global_step - step) * self.batch_size / (now - since), 1),
            }
        self.last = (now, state.global_step)
        print(json.dumps({"step": state.global_step, **logs}), flush=True)


def train(trainer) -> None:
    """Trains from the last checkpoint of the stage, if there is one, and saves the model."""
    trainer.add_callback(SpeedCallback(trainer.args.per_device_train_batch_size))
    trainer.train(resume_from_checkpoint=any(Path(trainer.args.output_dir).glob("checkpoint-*")))
    trainer.save_model()


# Tokenizer and processor
emoji = load_emoji(args.records, IMAGE_SIZE)
visual = {
    name: f"<{name.removesuffix('_token')}>"
    for name in (
        "image_start_token",
        "image_end_token",
        "video_start_token",
        "video_end_token",
        "image_token",
        "video_token",
    )
}


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer of the words of the captions and questions."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=3072,
            special_tokens=["<pad>", "<s>", "</s>", "<unk>", *visual.values()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=visual,
        model_max_length=2048,
    )


# The words of the instructions of every task stand in the vocabulary from the start.
tokenizer = train_tokenizer([*caption_texts(emoji), *INSTRUCTIONS * 50])
size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
processor = VilaUProcessor(
    VilaUImageProcessor(size=size),
    tokenizer,
    VilaUVideoProcessor(size=size, num_frames=NUM_FRAMES),
    chat_template=vilau_chat_template(system_prompt=""),
    num_visual_tokens=(IMAGE_SIZE // PATCH_SIZE) ** 2,
)
captioned = CaptionedEmoji(emoji, num_samples=2_000_000, seed=args.seed)
tower_collator = VisionTowerDataCollator(processor.image_processor, tokenizer, CAPTION_LENGTH)

# Stage 1, first half: SigLIP learns what the captions say
if "siglip" in args.stage:
    siglip = SiglipModel(
        SiglipConfig(
            vision_config={
                "hidden_size": 192,
                "intermediate_size": 768,
                "num_hidden_layers": 6,
                "num_attention_heads": 3,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
            },
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 192,
                "intermediate_size": 384,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "max_position_embeddings": CAPTION_LENGTH,
                "projection_size": 192,
                "pad_token_id": tokenizer.pad_token_id,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
        )
    )
    with torch.no_grad():  # with the library's own initialisation, the text encoder learns words very slowly
        siglip.text_model.embeddings.token_embedding.weight.normal_()[tokenizer.pad_token_id] = 0
        siglip.text_model.embeddings.position_embedding.weight.normal_(std=0.02)
        siglip.logit_scale.fill_(math.log(10))
        siglip.logit_bias.fill_(-4)
    train(
        VisionTowerTrainer(
            model=siglip,
            args=trainer_arguments(
                VisionTowerTrainingArguments, "siglip", args.siglip_steps, 128, 1e-3, logit_learning_rate=1e-2
            ),
            train_dataset=captioned,
            data_collator=tower_collator,
        )
    )

# Stage 1, second half: quantizer and pixel decoder, with the contrastive loss kept on
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
    train(
        VisionTowerTrainer(
            model=tower,
            args=trainer_arguments(
                VisionTowerTrainingArguments, "tower", args.tower_steps, 48, 1e-3, logit_learning_rate=1e-2
            ),
            train_dataset=captioned,
            data_collator=tower_collator,
        )
    )

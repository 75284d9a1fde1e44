"""Trains the shipped checkpoint from scratch, in less than two hours on two CPU cores.

    python examples/train_tiny.py --out tiny

`--steps 0.01` runs a hundredth of the steps of each stage, to check that it works.
"""

import argparse
import json
import logging
import math
import time
from pathlib import Path

from transformers import set_seed

from vilau_hf import VilaUPipeline, VilaUVisionTowerForPreTraining
from vilau_hf.data import VilaUDataCollator, VisionTowerDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.scores import evaluate_model, evaluate_reconstruction, evaluate_tower
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


IMAGE_SIZE = 32
PATCH_SIZE = 4
NUM_FRAMES = 4
CAPTION_LENGTH = 16

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("tiny"), help="folder of the checkpoint (default: %(default)s)")
parser.add_argument("--work", type=Path, default=Path("tiny-runs"), help="folder for checkpoints of the trainers")
parser.add_argument("--steps", type=float, default=1.0, help="factor on all step counts (default: %(default)s)")
parser.add_argument(
    "--siglip-steps", type=int, default=2200, help="steps of SigLIP without quantizer (default: %(default)s)"
)
parser.add_argument("--tower-steps", type=int, default=1800, help="steps of the vision tower (default: %(default)s)")
parser.add_argument("--language-steps", type=int, default=4800, help="steps of stage 2 (default: %(default)s)")
parser.add_argument(
    "--samples", type=int, default=200, help="images and answers of the final scores (default: %(default)s)"
)
parser.add_argument("--seed", type=int, default=0, help="seed of data and training (default: %(default)s)")
args = parser.parse_args()

set_seed(args.seed)
logging.getLogger("transformers").setLevel(logging.WARNING)
started = time.time()
log = {"arguments": {"steps": args.steps, "seed": args.seed}}


def count(steps):
    return max(2, math.ceil(steps * args.steps))


def losses(history):
    left_out = ("epoch", "grad_norm", "learning_rate")
    return [
        {name: float(f"{value:.5g}") for name, value in entry.items() if name not in left_out} for entry in history
    ]


def trainer_arguments(cls, name, steps, batch_size, **kwargs):
    return cls(
        output_dir=str(args.work / name),
        **{**optimizer_settings(count(steps)), "use_cpu": True},
        per_device_train_batch_size=batch_size,
        logging_steps=max(1, count(steps) // 60),
        save_strategy="no",
        dataloader_num_workers=1,
        seed=args.seed,
        **kwargs,
    )


# Tokenizer and processor: the vocabulary comes from the captions and questions.
texts = []
for record in drawn_shapes("train", num_samples=4000, image_size=IMAGE_SIZE, seed=args.seed):
    for message in record["messages"]:
        texts += [item["text"] for item in message["content"] if item["type"] == "text"]
tokenizer = train_tokenizer([*texts, "USER: ASSISTANT:"] * 2, vocab_size=640, max_length=1024)
processor = new_processor(tokenizer, IMAGE_SIZE, PATCH_SIZE, NUM_FRAMES)

# Stage 1, first half: SigLIP learns to match images and captions.
siglip = new_siglip(
    tokenizer,
    vision_config={
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    },
    text_config={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CAPTION_LENGTH,
    },
)
# Half of the captions name only colour and shape. Two full captions in a batch rarely differ in nothing but the shape.
images = drawn_shapes(
    "train",
    num_samples=200_000,
    image_size=IMAGE_SIZE,
    tasks={"text_to_image": 1},
    seed=args.seed,
    short_captions=0.5,
)
tower_collator = VisionTowerDataCollator(processor.image_processor, tokenizer, CAPTION_LENGTH)
trainer = VisionTowerTrainer(
    model=siglip,
    args=trainer_arguments(VisionTowerTrainingArguments, "siglip", args.siglip_steps, 96, logit_learning_rate=1e-2),
    train_dataset=images,
    data_collator=tower_collator,
)
trainer.train()
log["siglip"] = losses(trainer.state.log_history)

# Stage 1, second half: the tower with quantizer and pixel decoder.
tower = VilaUVisionTowerForPreTraining.from_siglip(
    siglip,
    codebook_size=256,
    code_depth=4,
    latent_channels=32,
    block_out_channels=[16, 32, 64],
    layers_per_block=1,
    norm_num_groups=8,
    reconstruction_loss_weight=1.0,
    mse_loss_weight=10.0,
    l1_loss_weight=1.0,
)
trainer = VisionTowerTrainer(
    model=tower,
    args=trainer_arguments(VisionTowerTrainingArguments, "tower", args.tower_steps, 48, logit_learning_rate=1e-2),
    train_dataset=images,
    data_collator=tower_collator,
)
trainer.train()
log["tower"] = losses(trainer.state.log_history)
round_weights(tower)
tower.eval()
log["tower_scores"] = evaluate_tower(tower, processor, caption_length=CAPTION_LENGTH, num_samples=args.samples)
log["tower_scores"].update(evaluate_reconstruction(tower.vision_tower, processor, args.samples))
print(log["tower_scores"], round(time.time() - started), "s", flush=True)

# Stage 2: language model, projector and depth transformer.
set_seed(args.seed)
model = new_model(
    tower,
    tokenizer,
    text_config={
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 448,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "initializer_range": 0.04,
    },
    depth_config={"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512},
)
samples = drawn_shapes(
    "train",
    num_samples=250_000,
    image_size=IMAGE_SIZE,
    num_frames=NUM_FRAMES,
    tasks={"text_to_image": 20, "image_to_text": 8, "text_to_video": 3, "video_to_text": 1},
    seed=args.seed + 1,
)
trainer = VilaUTrainer(
    model=model,
    args=trainer_arguments(
        VilaUTrainingArguments, "language", args.language_steps, 32, train_sampling_strategy="group_by_length"
    ),
    train_dataset=samples,
    data_collator=VilaUDataCollator(processor, seed=args.seed),
)
trainer.train()
log["language"] = losses(trainer.state.log_history)

# Save the checkpoint and score the model.
model.generation_config.update(
    allow_custom_entries=True,
    visual_guidance_scale=1.5,
    visual_temperature=1.0,
    visual_top_k=0,
    visual_top_p=0.9,
    num_frames=NUM_FRAMES,
    unconditional_prompt_ids=processor.unconditional_prompt_ids(),
    max_new_tokens=32,
    ranking_question="describe the image",  # a request of the training data, used by `rank_by="answer"`
    ranking_answer="{prompt}",
)
round_weights(model)
VilaUPipeline(model, processor).save_pretrained(args.out, flat=True)
save_halved(model, args.out)
release_tower(tower, processor, args.out / "tower")
log["training_seconds"] = round(time.time() - started)
model.eval()
model_scores = evaluate_model(model, processor, num_samples=args.samples, num_videos=max(1, args.samples // 4))
log["scores"] = {**log.pop("tower_scores"), **model_scores}
(args.out / "training_log.json").write_text(json.dumps(log) + "\n")
print(json.dumps({"training_seconds": log["training_seconds"], **log["scores"]}, indent=1))

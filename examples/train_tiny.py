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

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, set_seed

from vilau_hf import (
    VilaUConfig,
    VilaUForConditionalGeneration,
    VilaUImageProcessor,
    VilaUPipeline,
    VilaUProcessor,
    VilaUVideoProcessor,
    VilaUVisionTowerForPreTraining,
    vilau_chat_template,
)
from vilau_hf.data import VilaUDataCollator, VisionTowerDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.scores import evaluate_model, evaluate_reconstruction, evaluate_tower
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments, VisionTowerTrainer, VisionTowerTrainingArguments


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


def trainer_arguments(cls, name, steps, batch_size, rate, **kwargs):
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
        logging_steps=max(1, count(steps) // 60),
        save_strategy="no",
        report_to="none",
        dataloader_num_workers=1,
        disable_tqdm=True,
        use_cpu=True,
        bf16=True,
        seed=args.seed,
        **kwargs,
    )


# Tokenizer and processor: the vocabulary comes from the captions and questions.
texts = []
for record in drawn_shapes("train", num_samples=4000, image_size=IMAGE_SIZE, seed=args.seed):
    for message in record["messages"]:
        texts += [item["text"] for item in message["content"] if item["type"] == "text"]
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
words = Tokenizer(models.BPE())
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
words.decoder = decoders.ByteLevel()
special = ["<pad>", "<s>", "</s>", "<unk>", *visual.values()]
words.train_from_iterator(
    [*texts, "USER: ASSISTANT:"] * 2,
    trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ),
)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words,
    bos_token="<s>",
    eos_token="</s>",
    pad_token="<pad>",
    unk_token="<unk>",
    extra_special_tokens=visual,
    model_max_length=1024,
)
size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
processor = VilaUProcessor(
    VilaUImageProcessor(size=size),
    tokenizer,
    VilaUVideoProcessor(size=size, num_frames=NUM_FRAMES),
    chat_template=vilau_chat_template(system_prompt=""),
    num_visual_tokens=(IMAGE_SIZE // PATCH_SIZE) ** 2,
)

# Stage 1, first half: SigLIP learns to match images and captions.
siglip = SiglipModel(
    SiglipConfig(
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": CAPTION_LENGTH,
            "projection_size": 96,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
    )
)
# Large word embeddings and a fixed start of scale and bias: with the initialisation of the library, SigLIP learns the
# words slowly.
with torch.no_grad():
    siglip.text_model.embeddings.token_embedding.weight.normal_()[tokenizer.pad_token_id] = 0
    siglip.text_model.embeddings.position_embedding.weight.normal_(std=0.02)
    siglip.logit_scale.fill_(math.log(10))
    siglip.logit_bias.fill_(-4)
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
    args=trainer_arguments(
        VisionTowerTrainingArguments, "siglip", args.siglip_steps, 96, 1e-3, logit_learning_rate=1e-2
    ),
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
    args=trainer_arguments(
        VisionTowerTrainingArguments, "tower", args.tower_steps, 48, 1e-3, logit_learning_rate=1e-2
    ),
    train_dataset=images,
    data_collator=tower_collator,
)
trainer.train()
log["tower"] = losses(trainer.state.log_history)
tower.eval()
log["tower_scores"] = evaluate_tower(tower, processor, caption_length=CAPTION_LENGTH, num_samples=args.samples)
log["tower_scores"].update(evaluate_reconstruction(tower.vision_tower, processor, args.samples))
print(log["tower_scores"], round(time.time() - started), "s", flush=True)

# Stage 2: language model, projector and depth transformer.
config = VilaUConfig(
    vision_config={**tower.config.to_dict(), "text_config": None},
    depth_config={
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "backbone_hidden_size": 192,
        "code_dim": 96,
        "codebook_size": 256,
        "code_depth": 4,
    },
    text_config={
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 448,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "initializer_range": 0.04,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    },
    initializer_range=0.04,
    **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in visual.items()},
)
set_seed(args.seed)
model = VilaUForConditionalGeneration(config)
model.model.vision_tower.load_state_dict(tower.vision_tower.state_dict())
# Weights divided by the scale of the code embeddings: so the outputs of the new layers start at unit scale.
with torch.no_grad():
    scale = model.model.vision_tower.quantizer.codebook.weight.std()
    model.model.multi_modal_projector.linear_1.weight.normal_(std=96**-0.5).div_(scale)
    model.depth_transformer.in_proj_code.weight.normal_(std=96**-0.5).div_(scale)
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
        VilaUTrainingArguments, "language", args.language_steps, 32, 1e-3, train_sampling_strategy="group_by_length"
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
VilaUPipeline(model, processor).save_pretrained(args.out, flat=True)
# The tower is shipped in bfloat16, at half the size. Loading keeps the codebook in float32.
tower.save_pretrained(args.work / "tower-trained")
tower = VilaUVisionTowerForPreTraining.from_pretrained(args.work / "tower-trained", dtype=torch.bfloat16)
tower.save_pretrained(args.out / "tower")
processor.image_processor.save_pretrained(args.out / "tower")
tokenizer.model_input_names = ["input_ids"]  # SigLIP reads texts padded to a fixed length, without a mask
tokenizer.padding_side = "right"
tokenizer.chat_template = None
tokenizer.save_pretrained(args.out / "tower")
log["training_seconds"] = round(time.time() - started)
model.eval()
model_scores = evaluate_model(model, processor, num_samples=args.samples, num_videos=max(1, args.samples // 4))
log["scores"] = {**log.pop("tower_scores"), **model_scores}
(args.out / "training_log.json").write_text(json.dumps(log) + "\n")
print(json.dumps({"training_seconds": log["training_seconds"], **log["scores"]}, indent=1))

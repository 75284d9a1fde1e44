# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train your own picture model
#
# This notebook trains a model that draws, from nothing but a folder of images with captions. Nothing is downloaded and
# no weights are loaded. It has the same steps as the training of the emoji model: a tokenizer, both stages, and a
# sheet of drawings. It takes about six minutes on a CPU.
#
# The images here are 48 emoji. With so few images and minutes, the model learns them by heart. With more images and
# more steps, the same cells give a model that draws what it has not seen.

# %%
import contextlib
import json
import random
from pathlib import Path

import torch
from datasets import load_dataset
from PIL import Image
from transformers import set_seed
from transformers.utils import logging

from vilau_hf import VilaUPipeline, VilaUVisionTowerForPreTraining
from vilau_hf.data import (
    ConversionReport,
    MediaLoader,
    VilaUDataCollator,
    VisionTowerDataCollator,
    convert_records,
    encode_dataset,
    load_encoded,
    write_records,
)
from vilau_hf.emoji import load_emoji
from vilau_hf.emoji.demo import SAMPLES
from vilau_hf.evaluation import contact_sheet
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments, VisionTowerTrainer, VisionTowerTrainingArguments
from vilau_hf.training.from_scratch import new_model, new_processor, new_siglip, optimizer_settings, train_tokenizer


logging.disable_progress_bar()
set_seed(0)
IMAGE_SIZE = 32  # side of the images in pixels
PATCH_SIZE = 4  # side of a patch: 32 / 4 = 8, so an image has 8 x 8 positions
CAPTION_LENGTH = 24  # longest caption in tokens, for the tower

# %% [markdown]
# ## The folder
#
# `pictures/metadata.jsonl` has one line for each image: the name of the file and its caption. Replace the folder with
# your own. `vilau records` also reads other forms: LLaVA, MMC4, parquet, WebDataset and data sets of the Hub.

# %%
folder = Path("pictures")
folder.mkdir()
lines = []
emoji = sorted([*load_emoji(SAMPLES, 64, "train"), *load_emoji(SAMPLES, 64, "pairs")], key=lambda one: one.concept.key)
for index, one in enumerate(emoji[:48]):
    one.on("white").save(folder / f"{index:03}.png")
    lines.append({"file_name": f"{index:03}.png", "caption": f"{one.concept.name}, {one.style} style"})
(folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
captions = [line["caption"] for line in lines]
print(len(captions), "images, for example:", captions[5])

report = ConversionReport()
write_records(convert_records("pictures", "hub", report=report, target="media"), Path("records"))
print(report)
records = load_dataset("records", split="train")

# %% [markdown]
# ## Tokenizer and processor
#
# The tokenizer learns the words of the captions. It is saved with the processor, because all later steps need the same
# token ids.

# %%
tokenizer = train_tokenizer([*captions, "USER: ASSISTANT:"], vocab_size=600)
processor = new_processor(tokenizer, IMAGE_SIZE, PATCH_SIZE, num_frames=4)
processor.save_pretrained("processor")


def settings(steps: int, batch_size: int) -> dict:
    """Returns the arguments of a trainer that logs a few times and keeps no checkpoints."""
    return {
        **optimizer_settings(steps),
        "per_device_train_batch_size": batch_size,
        "logging_steps": steps // 4,
        "save_strategy": "no",
    }


def train(trainer: VisionTowerTrainer | VilaUTrainer, name: str) -> None:
    """Trains, and prints one of the losses instead of the whole log."""
    with contextlib.redirect_stdout(None):
        trainer.train()
    for entry in trainer.state.log_history:
        if name in entry:
            print(f"step {entry['step']:>3}: {name} {entry[name]:.3f}")


# %% [markdown]
# ## Stage 1, first half: images and words
#
# SigLIP learns which caption belongs to which image. Its image encoder becomes the encoder of the vision tower, so
# that the codes carry meaning and not only colours. The collator of stage 1 reads the column `caption`, which is the
# message of the user.

# %%
captioned = records.map(lambda record: {"caption": record["messages"][0]["content"][0]["text"]})
pictures = captioned.with_transform(MediaLoader(processor))
collator = VisionTowerDataCollator(processor.image_processor, tokenizer, CAPTION_LENGTH)
siglip = new_siglip(
    tokenizer,
    vision_config={
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    },
    text_config={
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": CAPTION_LENGTH,
    },
)
train(
    VisionTowerTrainer(
        model=siglip,
        args=VisionTowerTrainingArguments(output_dir="siglip", **settings(100, 48), logit_learning_rate=1e-2),
        train_dataset=pictures,
        data_collator=collator,
    ),
    "loss",
)

# %% [markdown]
# ## Stage 1, second half: images and codes
#
# The residual quantizer turns the features of each position into four codes, and the pixel decoder turns codes into
# pixels. The contrastive loss stays on.

# %%
tower = VilaUVisionTowerForPreTraining.from_siglip(
    siglip,
    codebook_size=256,
    code_depth=4,
    latent_channels=32,
    block_out_channels=[32, 64, 96],
    layers_per_block=1,
    norm_num_groups=8,
    reconstruction_loss_weight=1.0,
    mse_loss_weight=10.0,
    l1_loss_weight=1.0,
)
train(
    VisionTowerTrainer(
        model=tower,
        args=VisionTowerTrainingArguments(output_dir="tower", **settings(320, 32), logit_learning_rate=1e-2),
        train_dataset=pictures,
        data_collator=collator,
    ),
    "reconstruction_loss",
)
tower.eval().save_pretrained("tower")

# %% [markdown]
# ## Stage 2: captions to codes
#
# The tower is frozen from here on. So every image is encoded once. The language model and the depth transformer learn
# to predict the codes from the caption.

# %%
encoding = encode_dataset(pictures, "encoded", tower, processor)
print(f"{encoding.num_images} images, {encoding.bytes_per_image:.0f} bytes for each with its caption")
model = new_model(
    tower,
    tokenizer,
    text_config={
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.04,
        "tie_word_embeddings": True,
    },
    depth_config={"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 384},
)
train(
    VilaUTrainer(
        model=model,
        args=VilaUTrainingArguments(output_dir="language_model", **settings(800, 16)),
        train_dataset=load_encoded("encoded", tower, processor),
        data_collator=VilaUDataCollator(processor, seed=0),
    ),
    "visual_loss",
)

# %% [markdown]
# ## A sheet
#
# The saved folder loads like every other model: `VilaUPipeline.from_pretrained("picture_model")`. Each pair shows the
# image of the folder, and the drawing from its caption.

# %%
model.generation_config.update(
    allow_custom_entries=True,
    visual_guidance_scale=1.5,
    visual_top_p=0.9,
    unconditional_prompt_ids=processor.unconditional_prompt_ids(),
)
pipe = VilaUPipeline(model.eval(), processor)
pipe.save_pretrained("picture_model")
pipe.set_progress_bar_config(disable=True)
shown = random.Random(0).sample(range(len(captions)), 12)
drawings = pipe([captions[index] for index in shown], generator=torch.Generator().manual_seed(0)).images
images = []
labels = []
for index, drawing in zip(shown, drawings, strict=True):
    original = Image.open(folder / f"{index:03}.png")
    images += [original.resize((96, 96)), drawing.resize((96, 96), 0)]
    labels += [captions[index], "drawn"]
contact_sheet(images, labels, None, 8)

# %% [markdown]
# ## What to change
#
# - **More images:** more steps in each stage. The emoji model has 3,530 images, and takes 3,000 steps of 128 images,
#   4,000 steps of 48, and 10,000 steps of 32.
# - **128 pixels:** `IMAGE_SIZE = 128` and `PATCH_SIZE = 8` give 16 x 16 positions, so a drawing takes four times as
#   many steps. The pixel decoder doubles the side at each level of `block_out_channels` but one: three levels make 32
#   pixels of 8 positions, and four levels make 128 pixels of 16.
# - **Finer details:** more codes at each position (`code_depth`), more channels, or the perceptual loss
#   `lpips_loss_weight`.
# - **A GPU:** nothing, `optimizer_settings` takes it by itself. Raise batch sizes and model sizes until the memory is
#   full; the page on memory tells how much is needed.
# - **Questions, edits, videos:** records with such messages in stage 2. `vilau_hf.emoji.EmojiTasks` makes all of them
#   from images with names.
# - **Interruptions:** `save_steps` in place of `save_strategy`, and `trainer.train(resume_from_checkpoint=True)`, as
#   in `examples/emoji/train_emoji.py`.

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
# # Fine-tune on your images
#
# This notebook teaches the shipped model to draw something that it has never seen: hearts. It takes about two minutes
# on a CPU, and needs no network. It uses low-rank adapters (LoRA). Training of all weights is the same without the
# cell that adds them.
#
# You need images and a caption for each. Here a folder of drawn hearts replaces your files.

# %%
import contextlib
import json
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from PIL import Image, ImageDraw
from transformers import set_seed
from transformers.utils import logging

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor
from vilau_hf.data import (
    ConversionReport,
    MediaLoader,
    VilaUDataCollator,
    convert_records,
    encode_dataset,
    load_encoded,
    write_records,
)
from vilau_hf.evaluation import contact_sheet
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


logging.disable_progress_bar()
set_seed(0)
COLORS = {"red": (220, 40, 40), "green": (40, 160, 70), "blue": (40, 80, 220), "yellow": (240, 200, 40)}
COLORS |= {"purple": (140, 60, 180), "orange": (245, 140, 30)}
GROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
POSITIONS = {"in the center": (16, 16), "on the left": (11, 16), "on the right": (21, 16)}

# %% [markdown]
# ## The folder
#
# `images/metadata.jsonl` has one line for each image: the name of the file and its caption. This is an
# [imagefolder](https://huggingface.co/docs/datasets/image_dataset) of the library `datasets`. One combination of
# colour, position and background in seven is left out, so that we can ask for hearts which the model has not seen.


# %%
def draw_heart(color: tuple, ground: tuple, center: tuple, shift: tuple = (0, 0)) -> Image.Image:
    """Returns an image of 32 x 32 pixels. It is drawn four times as large, so that its edges are smooth."""
    x, y = (4 * (position + moved) for position, moved in zip(center, shift, strict=True))
    image = Image.new("RGB", (128, 128), ground)
    pen = ImageDraw.Draw(image)
    pen.ellipse((x - 42, y - 38, x + 2, y + 6), fill=color)
    pen.ellipse((x - 2, y - 38, x + 42, y + 6), fill=color)
    pen.polygon([(x, y - 18), (x + 38, y - 4), (x, y + 44), (x - 38, y - 4)], fill=color)
    return image.resize((32, 32), Image.Resampling.BOX)


folder = Path("images")
folder.mkdir()
hearts = [(color, ground, position) for color in COLORS for ground in GROUNDS for position in POSITIONS]
unseen = hearts[3::7]
seen = [heart for heart in hearts if heart not in unseen]
random = torch.Generator().manual_seed(0)
lines = []
for index in range(480):
    color, ground, position = seen[index % len(seen)]
    shift = (torch.rand(2, generator=random) - 0.5).tolist()
    draw_heart(COLORS[color], GROUNDS[ground], POSITIONS[position], shift).save(folder / f"{index:03}.png")
    lines.append(
        {"file_name": f"{index:03}.png", "caption": f"a large {color} heart {position} on a {ground} background"}
    )
(folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
contact_sheet(
    [Image.open(folder / f"{index:03}.png").resize((128, 128), 0) for index in range(0, 40, 10)],
    [lines[index]["caption"] for index in range(0, 40, 10)],
    None,
    4,
)

# %% [markdown]
# ## From the folder to records
#
# A record is a list of chat messages, with images beside it. What the assistant says is learned. With
# `target="media"` the caption is the message of the user and the image is the answer, so the model learns to draw.
# The report counts the rows that cannot be used, with the reason. On the command line the same is `vilau records hub
# images records --target media`.

# %%
report = ConversionReport()
write_records(convert_records("images", "hub", report=report, target="media"), Path("records"))
print(report)
dataset = load_dataset("records", split="train")
for message in dataset[0]["messages"]:
    print(message["role"], message["content"])

# %% [markdown]
# ## Before the training
#
# The model knows circles, squares, triangles and crosses. It has never seen the word "heart".

# %%
model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
shown = unseen[:6]
captions = [f"a large {color} heart {position} on a {ground} background" for color, ground, position in shown]
truth = [draw_heart(COLORS[color], GROUNDS[ground], POSITIONS[position]) for color, ground, position in shown]


def draw(model: VilaUForConditionalGeneration) -> list[Image.Image]:
    """Returns an image for each of the captions."""
    pipe = VilaUPipeline(model.eval(), processor)
    pipe.set_progress_bar_config(disable=True)
    return pipe(captions, generator=torch.Generator().manual_seed(0)).images


before = draw(model)

# %% [markdown]
# ## Encode the images once
#
# The vision tower is frozen: it can encode and decode hearts already. So each image has the same codes in every pass
# over the data. We compute them once, and train without the tower. On the command line: `vilau encode records
# encoded`.

# %%
encoding = encode_dataset(dataset.with_transform(MediaLoader(processor)), "encoded", model, processor)
print(f"{encoding.num_images} images, {encoding.bytes_per_image:.0f} bytes for each with its caption")
encoded = load_encoded("encoded", model, processor)

# %% [markdown]
# ## Training
#
# The adapters belong to the linear layers of the language model. The projector and the depth transformer are small
# and are trained in full.

# %%
adapted = get_peft_model(
    model,
    LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        modules_to_save=["multi_modal_projector", "depth_transformer"],
    ),
)
adapted.print_trainable_parameters()
trainer = VilaUTrainer(
    model=adapted,
    args=VilaUTrainingArguments(
        output_dir="run",
        max_steps=150,
        per_device_train_batch_size=32,
        learning_rate=1.5e-3,
        lr_scheduler_type="cosine",
        warmup_steps=8,
        logging_steps=25,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    ),
    train_dataset=encoded,
    data_collator=VilaUDataCollator(processor, seed=0),
)
# The trainer prints its log to standard output. Only the loss is shown here.
with contextlib.redirect_stdout(None):
    trainer.train()
for entry in trainer.state.log_history:
    if "visual_loss" in entry:
        print(f"step {entry['step']:>3}: visual_loss {entry['visual_loss']:.3f}")

# %% [markdown]
# ## After the training
#
# `save_pretrained` of the adapted model writes the adapter. `merge_and_unload` adds the adapter to the weights. The
# captions below are not in the training data. Before the training the model draws a shape that it knows. After it,
# the shapes are hearts.

# %%
adapted.save_pretrained("adapter")
after = draw(adapted.merge_and_unload())
rows = [image.resize((128, 128), 0) for triple in zip(truth, before, after, strict=True) for image in triple]
labels = [
    label
    for caption in captions
    for label in (f"true heart: {caption}", "drawn before training", "drawn after training")
]
contact_sheet(rows, labels, None, 6)

# %% [markdown]
# ## Where to go from here
#
# - 150 steps are few. More steps and more images give better shapes.
# - The model may forget what it knew. Mix in a share of old records, as `examples/finetune_lora.py` does.
# - `vilau train` reads a YAML file of arguments, and trains on several GPUs. The page on training explains it.

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
# # The original release and its quirks
#
# The authors of VILA-U published one checkpoint, `mit-han-lab/vila-u-7b-256`, in a format of their code. `vilau
# convert` turns it into an ordinary Hugging Face checkpoint. This notebook converts a release, compares the outputs
# with those of the original code, and shows what is special about the format.
#
# The published checkpoint has 7 billion parameters. The tests of this package contain a tiny release in the same
# format, with random weights, and outputs that the original code gave for it. This notebook uses that release, so it
# runs in a clone of the repository, without network, in half a minute. Because the weights are random, the model
# draws noise and answers nonsense. But it must be the same noise and the same nonsense.

# %%
import json
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers.utils import logging

import vilau_hf
from vilau_hf import VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.evaluation import contact_sheet


logging.disable_progress_bar()
recorded = Path(vilau_hf.__file__).parents[2] / "tests" / "fixtures" / "golden" / "tiny-256"
release = recorded / "checkpoint"

# %% [markdown]
# ## The format
#
# A release has three folders beside `config.json`: the language model, the vision tower and the projector. The depth
# transformer is in the folder of the vision tower.

# %%
for path in sorted(release.rglob("*")):
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            names = list(file.keys())
        print(f"{path.relative_to(release)}: {len(names)} tensors, the first is {names[0]}")
    elif path.is_file():
        print(path.relative_to(release))

# %% [markdown]
# ## Convert
#
# The converter reads configurations, weights and tokenizer. It runs no code of the release. It has no option for each
# quirk: what is special is saved with the converted checkpoint.

# %%
command = [sys.executable, "-m", "vilau_hf.cli", "convert", str(release), "converted", "--tower-out", "tower"]
subprocess.run(command, check=True, capture_output=True)
for path in sorted(Path("converted").iterdir()):
    print(path.name)

model = VilaUForConditionalGeneration.from_pretrained("converted").eval()
processor = VilaUProcessor.from_pretrained("converted")

# %% [markdown]
# ## Compare with the original code
#
# The folder beside the release holds what the original code computed: codes, logits, text and pixels. Integers must
# be equal. Floating-point numbers must be equal to rounding.

# %%
inputs = load_file(recorded / "inputs.safetensors")
encoding = load_file(recorded / "encode.safetensors")
understanding = load_file(recorded / "understanding.safetensors")
generation = load_file(recorded / "generation.safetensors")
case = json.loads((recorded / "understanding.json").read_text())[0]
drawing = json.loads((recorded / "generation.json").read_text())[0]

with torch.no_grad():
    codes = model.model.vision_tower.encode(inputs["images"]).codes
print("codes of three images are equal:", torch.equal(codes, encoding["codes"].flatten(1, 2).long()))

image = Image.open(recorded / case["images"][0])
content = [{"type": "image", "image": image}, {"type": "text", "text": case["question"]}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
batch = processor(text=prompt, images=[image], return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits
print(f"largest difference of text logits: {(logits - understanding['image.logits']).abs().max():.1e}")
ids = model.generate(**batch, max_new_tokens=12, do_sample=False)[:, batch["input_ids"].shape[1] :]
print("the answer has the same token ids:", torch.equal(ids, understanding["image.greedy_ids"]))

prompt = processor.apply_chat_template([{"role": "user", "content": drawing["prompt"]}], add_generation_prompt=True)
batch = processor(text=prompt, return_tensors="pt")
drawn = model.generate(**batch, generation_mode="image", guidance_scale=drawing["cfg"], do_sample=False)
print("the drawn image has the same codes:", torch.equal(drawn.flatten(1, 2), generation["image.image_ids"][:1]))
pixels = model.decode_image_tokens(drawn)
theirs = generation["image.pixels"].clamp(-1, 1)
print(f"largest difference of pixels in [-1, 1]: {(pixels - theirs).abs().max():.1e}")

images = processor.post_process_multimodal_output(torch.cat([theirs, pixels]), generation_mode="image")
contact_sheet([image.resize((192, 192), 0) for image in images], ["original code", "this package"], None, 2)

# %% [markdown]
# ## Quirk: no markers around images in a prompt
#
# New checkpoints put `<image_start>` and `<image_end>` around an image. The release does so for images that the model
# draws, and not for images in a prompt. The processor option `context_markers=False` keeps that.

# %%
print("context_markers:", processor.context_markers)
content = [{"type": "image", "image": image}, {"type": "text", "text": "What is shown?"}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
for markers in (False, True):
    processor.context_markers = markers
    text = processor.decode(processor(text=prompt, images=[image])["input_ids"][0])
    shown = text.replace("<image>" * processor.num_visual_tokens, f"[{processor.num_visual_tokens} x <image>]")
    print(f"{markers!s:>5}: {shown[shown.index('USER') :]!r}")
processor.context_markers = False

# %% [markdown]
# ## Quirk: a video in a prompt is a list of images
#
# The release has a marker for videos, but a video in a prompt is written as one line for each frame. The processor
# option `video_as_images=True` keeps that.

# %%
print("video_as_images:", processor.video_as_images)
frames = [Image.open(recorded / "video" / f"frame_{index:03}.png") for index in range(4)]
content = [{"type": "video", "video": frames}, {"type": "text", "text": "What happens?"}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
text = processor.decode(processor(text=prompt, videos=[frames])["input_ids"][0])
shown = text.replace("<video>" * processor.num_visual_tokens, f"[{processor.num_visual_tokens} x <video>]")
print(repr(shown[shown.index("USER") :]))

# %% [markdown]
# ## Quirk: a space before the start marker
#
# The original code tokenizes a space before the marker that opens an image. `config.start_marker_prefix_ids` holds
# its id. In new checkpoints this list is empty.

# %%
result = model.generate(**batch, generation_mode="image", do_sample=False, return_dict_in_generate=True)
opened = result.sequences[0, batch["input_ids"].shape[1] :][:2].tolist()
print("start_marker_prefix_ids:", model.config.start_marker_prefix_ids)
print("appended to the prompt: ", processor.tokenizer.convert_ids_to_tokens(opened))

# %% [markdown]
# ## Quirk: the prompt for guidance
#
# The unconditional prompt is a chat with an empty message. The original template then drops the separators, too. The
# ids are saved in the generation config.

# %%
print(repr(processor.tokenizer.decode(model.generation_config.unconditional_prompt_ids)))

# %% [markdown]
# ## Quirk: images with a palette or transparency
#
# The original code resizes an image that it opened from a file before it converts the image to RGB. With a palette,
# that takes the nearest pixel instead of a smooth mixture. The image processor option `resize_before_rgb=True` keeps
# it. New models should convert first.

# %%
palette_image = Image.open(recorded / "preprocess" / "image_3_P.png")
print("mode of the image:", palette_image.mode)
versions = []
for before_rgb in (True, False):
    values = processor.image_processor(palette_image, return_tensors="pt", resize_before_rgb=before_rgb)
    versions.append(values["pixel_values"])
images = processor.post_process_multimodal_output(torch.cat(versions), generation_mode="image")
contact_sheet(
    [image.resize((192, 192), 0) for image in images],
    ["resize_before_rgb=True, as in the release", "resize_before_rgb=False"],
    None,
    2,
)

# %% [markdown]
# ## Quirk: a codebook with one row too many
#
# The original codebook ends with a row for padding, which no code names. The converter drops it. Its running
# averages, which the training of the tower needs, have no such row. They are kept.

# %%
with safe_open(release / "vision_tower" / "model.safetensors", "pt") as file:
    for name in file.keys():
        if "codebook" in name:
            print(tuple(file.get_slice(name).get_shape()), name)
print("in the converted checkpoint:")
for name, tensor in model.model.vision_tower.quantizer.state_dict().items():
    print(tuple(tensor.shape), name)

# %% [markdown]
# ## A defect that is not kept: text ids inside an image
#
# At each position of an image, the original code also samples a text token, and then throws it away. If that token is
# an end token, the image stops early. This package samples no text inside an image. The recording has the ids which
# the original code threw away:

# %%
print("visual tokens of the image:", drawn.shape[1] * drawn.shape[2])
print("text ids thrown away:", drawing["thrown_away_text_ids"][0])

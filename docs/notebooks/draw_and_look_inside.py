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
# # Draw images and look inside the codes
#
# VILA-U turns an image into a grid of *visual tokens*. Each visual token holds D *codes*, which are integers. This
# notebook draws images from text, shows their codes, and shows what each code adds to the image. It uses the tiny
# checkpoint that comes with the package. It needs no GPU and no network, and takes about half a minute.

# %%
import torch
from PIL import Image
from transformers.utils import logging

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.evaluation import contact_sheet, psnr


logging.disable_progress_bar()
model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
vision = model.config.vision_config
print(f"{vision.image_size} x {vision.image_size} pixels become {vision.num_visual_tokens} visual tokens.")
print(f"Each visual token has {vision.code_depth} codes, integers from 0 to {vision.codebook_size - 1}.")

# %% [markdown]
# ## From text to images
#
# A prompt is a chat message: `apply_chat_template` gives its text, and the processor gives the token ids.
# `generation_mode="image"` asks for one image for each prompt. The result of `generate` is not pixels but codes.
# `decode_image_tokens` turns the codes into pixels.

# %%
captions = [
    "a large blue circle in the center on a black background",
    "a small red cross at the bottom on a white background",
    "a large yellow triangle at the top on a gray background",
    "a small green square on the left on a black background",
]
prompts = [
    processor.apply_chat_template([{"role": "user", "content": caption}], add_generation_prompt=True)
    for caption in captions
]
inputs = processor(text=prompts, padding=True, return_tensors="pt")
codes = model.generate(**inputs, generation_mode="image", seed=[0, 1, 2, 3])
pixels = model.decode_image_tokens(codes)
print("codes: ", tuple(codes.shape), "= (rows, h, w, D)")
print("pixels:", tuple(pixels.shape), "= (rows, 3, S, S), values in [-1, 1]")


def enlarged(pixels: torch.Tensor, side: int = 160) -> list[Image.Image]:
    """Returns one enlarged image for each row of `pixels`."""
    images = processor.post_process_multimodal_output(pixels, generation_mode="image")
    return [image.resize((side, side), Image.Resampling.NEAREST) for image in images]


contact_sheet(enlarged(pixels), captions, None, 4)

# %% [markdown]
# ## The codes of one image
#
# The grid of the second image has 8 x 8 visual tokens. Here are the four codes of each visual token in its first row.
# The row shows plain white, so the first code is always the same. The other codes are small corrections. They vary.

# %%
for column in range(8):
    print(f"row 0, column {column}: {codes[1, 0, column].tolist()}")

# %% [markdown]
# The next images give each code a colour, one image for each depth. Equal colours are equal codes. The first code
# shows the shape. The later codes hold smaller and smaller corrections, and the shape cannot be seen in them.

# %%
palette = torch.randint(0, 256, (vision.codebook_size, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def coloured(grid: torch.Tensor) -> Image.Image:
    """Returns an image that gives each code of `grid` `(h, w)` the colour of that code."""
    return Image.fromarray(palette[grid].numpy()).resize((160, 160), Image.Resampling.NEAREST)


contact_sheet(
    [*enlarged(pixels[1:2]), *[coloured(codes[1, :, :, depth]) for depth in range(vision.code_depth)]],
    ["the image", *[f"code {depth + 1} of {vision.code_depth}" for depth in range(vision.code_depth)]],
    None,
    5,
)

# %% [markdown]
# ## Decode with fewer codes
#
# The quantizer works step by step. The first code names the codebook entry nearest to the feature. The second code
# names the entry nearest to what the first one left over, and so on. The sum of the entries is the quantized feature.
# So we can decode the sum of the first 1, 2, 3 or 4 entries. PSNR compares each result with the image of all codes.

# %%
tower = model.model.vision_tower
with torch.no_grad():
    entries = tower.quantizer.code_embeddings(codes.flatten(1, 2))  # (rows, L, D, C)
    partial = [tower.decode(entries[:, :, :depth].sum(2)).clamp(-1, 1) for depth in range(1, vision.code_depth + 1)]

labels = []
for depth, decoded in enumerate(partial, 1):
    for row in range(2):
        quality = psnr(decoded[row], pixels[row], data_range=2)
        labels.append(f"{depth} of {vision.code_depth} codes, {quality:.1f} dB")
contact_sheet([image for decoded in partial for image in enlarged(decoded[:2])], labels, None, 4)

# %% [markdown]
# ## Encode an image
#
# The other direction: the vision tower encodes pixels. Decoding is not exactly the inverse of encoding. So the codes
# of a decoded image are not those that it was decoded from. Most of the first codes are equal. Most of the later
# codes differ, but they are small corrections, and the pixels are nearly the same.

# %%
with torch.no_grad():
    encoded = tower.encode(pixels).codes
for depth in range(vision.code_depth):
    same = (encoded[..., depth] == codes.flatten(1, 2)[..., depth]).float().mean()
    print(f"code {depth + 1}: {same:.0%} equal")
again = tower.decode(encoded).clamp(-1, 1).detach()
print(f"PSNR of the decoded images to the drawn ones: {psnr(again, pixels, data_range=2):.1f} dB")

# %% [markdown]
# ## Guidance
#
# Classifier-free guidance computes logits twice: for the prompt and for an empty prompt. It moves the logits away
# from those of the empty prompt. A `guidance_scale` of 1 turns it off. The images below have the same four seeds at
# three scales. Scale 1.5 is the default of this checkpoint. Scale 4 is too high for it: the colours are wrong. The
# default for a published model is 3.

# %%
caption = "a large purple triangle on the right on a gray background"
prompt = processor.apply_chat_template([{"role": "user", "content": caption}], add_generation_prompt=True)
inputs = processor(text=[prompt] * 4, return_tensors="pt")
images = []
labels = []
for scale in (1.0, 1.5, 4.0):
    drawn = model.generate(**inputs, generation_mode="image", guidance_scale=scale, seed=[10, 11, 12, 13])
    images += enlarged(model.decode_image_tokens(drawn), side=120)
    labels += [f"{scale}, seed {seed}" for seed in (10, 11, 12, 13)]
contact_sheet(images, labels, None, 4)

# %% [markdown]
# ## Seeds
#
# With a list of seeds, each row has a separate source of random numbers. A row then gives the same image in every
# batch: it does not depend on the other rows.

# %%
batch = model.generate(**inputs, generation_mode="image", seed=[10, 11, 12, 13])
alone = model.generate(
    input_ids=inputs["input_ids"][2:3],
    attention_mask=inputs["attention_mask"][2:3],
    generation_mode="image",
    seed=[12],
)
assert torch.equal(alone[0], batch[2])
print("The image of seed 12 has the same codes alone and in a batch of four.")

# %% [markdown]
# ## Ask about an image
#
# The same model answers questions. The image goes into the prompt as its visual tokens.

# %%
for image, drawn_caption in zip(enlarged(model.decode_image_tokens(codes)), captions, strict=True):
    content = [{"type": "image", "image": image}, {"type": "text", "text": "describe the image"}]
    question = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = model.generate(**question, do_sample=False)
    answer = processor.decode(ids[0, question["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    print(f"asked for: {drawn_caption}\nanswered:  {answer}\n")

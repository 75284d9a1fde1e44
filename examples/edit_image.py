"""Edits an image by an instruction, in seconds on a CPU, and saves the image before and after side by side.

python examples/edit_image.py "turn it blue" --out edited.png
"""

import argparse

import torch
from PIL import Image

from vilau_hf import TINY_CHECKPOINT, VilaUPipeline


parser = argparse.ArgumentParser()
parser.add_argument("instruction", nargs="?", default="turn it blue", help="instruction (default: %(default)s)")
parser.add_argument("--image", help="image file to edit (default: an image that the model generates first)")
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument("--seed", type=int, default=0, help="seed of sampling (default: %(default)s)")
parser.add_argument("--out", default="edited.png", help="output file (default: %(default)s)")
args = parser.parse_args()

pipe = VilaUPipeline.from_pretrained(args.model)
generator = torch.Generator().manual_seed(args.seed)
if args.image is None:
    before = pipe("a large red cross in the center on a white background", generator=generator).images[0]
else:
    before = Image.open(args.image).convert("RGB")
after = pipe(args.instruction, image=before, generator=generator).images[0]

sheet = Image.new("RGB", (528, 256), (255, 255, 255))
sheet.paste(before.resize((256, 256), resample=0), (0, 0))
sheet.paste(after.resize((256, 256), resample=0), (272, 0))
sheet.save(args.out)
print(f"{args.instruction}: {args.out}")

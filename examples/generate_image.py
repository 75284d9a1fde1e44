"""Generates an image from a caption, in seconds on a CPU.

python examples/generate_image.py "a large blue triangle at the top on a gray background" --out picture.png
"""

import argparse

import torch

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor


parser = argparse.ArgumentParser()
parser.add_argument(
    "prompt",
    nargs="?",
    default="a small red cross at the bottom on a white background",
    help="caption (default: %(default)s)",
)
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument(
    "--guidance-scale", type=float, help="scale of classifier-free guidance, 1 for none (default: as saved)"
)
parser.add_argument("--seed", type=int, default=0, help="seed of sampling (default: %(default)s)")
parser.add_argument("--out", default="picture.png", help="output file (default: %(default)s)")
args = parser.parse_args()

model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
processor = VilaUProcessor.from_pretrained(args.model)

messages = [{"role": "user", "content": [{"type": "text", "text": args.prompt}]}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
codes = model.generate(
    **inputs,
    generation_mode="image",
    guidance_scale=args.guidance_scale,
    generator=torch.Generator().manual_seed(args.seed),
)
pixels = model.decode_image_tokens(codes)
image = processor.post_process_multimodal_output(pixels, generation_mode="image")[0]
# resample=0 repeats pixels, so that they stay sharp
image.resize((256, 256), resample=0).save(args.out)
print(f"{args.prompt}: {args.out}")

"""Tells a story in sentences and images, in seconds on a CPU.

python examples/tell_story.py "tell a story of a yellow circle" --out story
"""

import argparse
from pathlib import Path

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor


parser = argparse.ArgumentParser()
parser.add_argument(
    "request", nargs="?", default="tell a story of a yellow circle", help="request (default: %(default)s)"
)
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument("--seed", type=int, default=0, help="seed of sampling (default: %(default)s)")
parser.add_argument("--out", type=Path, default=Path("story"), help="output folder (default: %(default)s)")
args = parser.parse_args()

model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
processor = VilaUProcessor.from_pretrained(args.model)

messages = [{"role": "user", "content": [{"type": "text", "text": args.request}]}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
output = model.generate(
    **inputs, generation_mode="interleaved", do_sample=True, seed=args.seed, max_visual_spans=2, max_new_tokens=240
)
# fills in the pixels of each generated span
model.decode_visual_spans(output.spans)
items = processor.post_process_multimodal_output(output, generation_mode="interleaved")[0]

args.out.mkdir(parents=True, exist_ok=True)
for index, item in enumerate(items):
    if item["type"] == "text":
        print(item["text"])
    elif item["image"] is not None:  # an image that the token limit cut off has no pixels
        item["image"].resize((256, 256), resample=0).save(args.out / f"{index}.png")
        print(f"[{args.out / f'{index}.png'}]")

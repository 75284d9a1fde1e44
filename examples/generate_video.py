"""Generates a video from a caption and saves it as a GIF, in seconds on a CPU.

python examples/generate_video.py "a large red circle moving left on a black background" --out video.gif
"""

import argparse

import torch

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor


parser = argparse.ArgumentParser()
parser.add_argument(
    "prompt",
    nargs="?",
    default="a large red circle moving left on a black background",
    help="caption (default: %(default)s)",
)
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument("--num-frames", type=int, help="frames of the video (default: as saved in the checkpoint)")
parser.add_argument("--seed", type=int, default=0, help="seed of sampling (default: %(default)s)")
parser.add_argument("--out", default="video.gif", help="output file (default: %(default)s)")
args = parser.parse_args()

model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
processor = VilaUProcessor.from_pretrained(args.model)

messages = [{"role": "user", "content": [{"type": "text", "text": args.prompt}]}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
codes = model.generate(
    **inputs,
    generation_mode="video",
    num_frames=args.num_frames,
    generator=torch.Generator().manual_seed(args.seed),
)
pixels = model.decode_video_tokens(codes)
frames = processor.post_process_multimodal_output(pixels, generation_mode="video")[0]
# resample=0 repeats pixels, so that they stay sharp
frames = [frame.resize((256, 256), resample=0) for frame in frames]
frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=350, loop=0)
print(f"{args.prompt}: {args.out}, {len(frames)} frames")

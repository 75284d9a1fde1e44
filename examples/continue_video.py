"""Continues a video from its first frames, in seconds on a CPU.

python examples/continue_video.py --out continued.gif
"""

import argparse

import torch

from vilau_hf import TINY_CHECKPOINT, VilaUPipeline


parser = argparse.ArgumentParser()
parser.add_argument(
    "--caption",
    default="a large red circle moving left on a black background",
    help="caption of the video whose first two frames are given (default: %(default)s)",
)
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument("--seed", type=int, default=0, help="seed of sampling (default: %(default)s)")
parser.add_argument("--out", default="continued.gif", help="output file (default: %(default)s)")
args = parser.parse_args()

# The first two frames come from a video of the caption. The model then continues them without the caption.
pipe = VilaUPipeline.from_pretrained(args.model)
generator = torch.Generator().manual_seed(args.seed)
first_frames = pipe(args.caption, num_frames=4, generator=generator).frames[0][:2]
frames = pipe("continue the video", num_frames=4, first_frames=first_frames, generator=generator).frames[0]
# resample=0 repeats pixels, so that they stay sharp
frames = [frame.resize((256, 256), resample=0) for frame in frames]
frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=350, loop=0)
print(f"{args.caption}, continued from {len(first_frames)} frames: {args.out}")

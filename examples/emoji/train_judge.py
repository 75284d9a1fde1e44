"""Trains the judge of the emoji model on real images of all styles; held-out pairs are left out.

    python examples/emoji/train_judge.py --records emoji-records --out emoji-judge

It never sees an image that the model made, and the model is never trained with it. Every epoch saves a checkpoint,
and the same command continues after an interruption.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from vilau_hf.emoji.dataset import concept_names, load_emoji
from vilau_hf.emoji.judge import EmojiJudge


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--records", type=Path, required=True, help="folder of `vilau records emoji`")
parser.add_argument("--out", type=Path, default=Path("emoji-judge"), help="folder of the judge (default: %(default)s)")
parser.add_argument("--epochs", type=int, default=80)
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--learning-rate", type=float, default=2e-3)
parser.add_argument("--image-size", type=int, default=64)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
names = concept_names(args.records)
judge = EmojiJudge(names, args.image_size)


def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns RGBA images `(N, 4, S, S)` in [0, 1], and indices `(N,)` of their concepts and styles."""
    emoji = load_emoji(args.records, args.image_size, split)
    rgba = torch.from_numpy(np.stack([one.rgba for one in emoji])).permute(0, 3, 1, 2).float() / 255
    concepts = torch.tensor([names.index(one.concept.name) for one in emoji])
    return rgba, concepts, torch.tensor([judge.styles.index(one.style) for one in emoji])


def augment(rgba: torch.Tensor) -> torch.Tensor:
    """Returns RGB images on random backgrounds: moved, turned, scaled, recoloured, blurred, noisy, partly hidden."""
    count = len(rgba)
    angle = torch.empty(count).uniform_(-0.3, 0.3)
    scale = torch.empty(count).uniform_(0.85, 1.5)
    stretch = torch.empty(count).uniform_(0.9, 1.1)
    across = torch.empty(count).uniform_(-0.2, 0.2)
    down = torch.empty(count).uniform_(-0.2, 0.2)
    first_row = torch.stack([scale * angle.cos(), -scale * angle.sin(), across], -1)
    second_row = torch.stack([scale * stretch * angle.sin(), scale * stretch * angle.cos(), down], -1)
    rows = torch.stack([first_row, second_row], 1)
    grid = functional.affine_grid(rows, list(rgba.shape), align_corners=False)
    # colours are multiplied by alpha before they are mixed, so the edges stay clean
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    moved = functional.grid_sample(premultiplied, grid, align_corners=False)
    background = torch.rand(count, 3, 1, 1)
    background[torch.rand(count) < 0.4] = 1
    rgb = moved[:, :3] + background * (1 - moved[:, 3:])
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.7, 1.3)
    rgb = (rgb - 0.5) * contrast + 0.5 + torch.empty(count, 3, 1, 1).uniform_(-0.12, 0.12)
    soft = functional.avg_pool2d(functional.pad(rgb, (1, 1, 1, 1), mode="replicate"), 3, 1)
    rgb = torch.lerp(rgb, soft, torch.rand(count, 1, 1, 1))
    rgb = rgb + torch.randn_like(rgb) * torch.empty(count, 1, 1, 1).uniform_(0, 0.06)
    # a square of a quarter of the side hides a piece of half of the images
    side = rgb.shape[-1] // 4
    corners = torch.randint(0, rgb.shape[-1] - side, (count, 2))
    for row in range(0, count, 2):
        top, left = corners[row].tolist()
        rgb[row, :, top : top + side, left : left + side] = torch.rand(3, 1, 1)
    return rgb.clamp(0, 1)


@torch.inference_mode()
def accuracy(split: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> dict[str, float]:
    """Returns shares of images on white whose concept (first, among five) and style are named right."""
    judge.eval()
    rgba, concepts, styles = split
    rgb = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    outputs = [judge(batch) for batch in rgb.split(128)]
    best = torch.cat([output[0] for output in outputs]).topk(5, dim=-1).indices
    hits = best == concepts[:, None]
    named = torch.cat([output[1] for output in outputs]).argmax(-1) == styles
    values = {"top_1": hits[:, 0], "top_5": hits.any(1), "style": named}
    return {name: round(value.float().mean().item(), 4) for name, value in values.items()}


train = [torch.cat(values) for values in zip(tensors("train"), tensors("concepts"), strict=True)]
test = tensors("pairs")
optimizer = torch.optim.AdamW(judge.parameters(), lr=args.learning_rate, weight_decay=0.05)
steps = args.epochs * math.ceil(len(train[0]) / args.batch_size)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, steps)
checkpoint = args.out / "training.pt"
first = 0
log = []
if checkpoint.is_file():
    state = torch.load(checkpoint)
    judge.load_state_dict(state["judge"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["rng"])
    first = state["epoch"]
    log = state["log"]

for epoch in range(first, args.epochs):
    judge.train()
    began = time.time()
    total = 0.0
    for rows in torch.randperm(len(train[0])).split(args.batch_size):
        concept_logits, style_logits, _ = judge(augment(train[0][rows]))
        loss = functional.cross_entropy(concept_logits, train[1][rows], label_smoothing=0.1)
        loss = loss + 0.2 * functional.cross_entropy(style_logits, train[2][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(rows)
    rate = len(train[0]) / (time.time() - began)
    log.append({"epoch": epoch + 1, "loss": round(total / len(train[0]), 4), "samples_per_second": round(rate, 1)})
    if (epoch + 1) % 5 == 0 or epoch + 1 == args.epochs:
        log[-1]["held_out_pairs"] = accuracy(test)
    print(json.dumps(log[-1]), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    state = {"judge": judge.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    torch.save({**state, "rng": torch.get_rng_state(), "epoch": epoch + 1, "log": log}, checkpoint.with_suffix(".new"))
    checkpoint.with_suffix(".new").replace(checkpoint)

judge.save(args.out)
(args.out / "training_log.json").write_text(json.dumps(log) + "\n")

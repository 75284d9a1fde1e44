"""Scores a checkpoint of drawn shapes as in the table of the model card, and draws its sheets, in minutes on a CPU.

python examples/score_tiny.py --out scores
"""

import argparse
import json
import random
from pathlib import Path

import torch

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor, VilaUVisionTowerForPreTraining
from vilau_hf.drawn.oracle import read_drawing, read_motion
from vilau_hf.drawn.scores import evaluate_model, evaluate_tower
from vilau_hf.drawn.scores_stories import (
    continue_videos,
    evaluate_continuations,
    evaluate_edits,
    evaluate_stories,
    generate_edits,
    is_shown,
    read_story,
    tell_stories,
)
from vilau_hf.drawn.shapes import animate, motions
from vilau_hf.drawn.stories import EDITS, make_edit
from vilau_hf.evaluation.sheets import beside, contact_sheet, enlarge


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
parser.add_argument(
    "--samples",
    type=int,
    default=200,
    help="number of images and answers; other numbers in proportion (default: %(default)s)",
)
parser.add_argument("--out", type=Path, default=Path("scores"), help="output folder (default: %(default)s)")
args = parser.parse_args()

model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
processor = VilaUProcessor.from_pretrained(args.model)
tower = VilaUVisionTowerForPreTraining.from_pretrained(f"{args.model}/tower", dtype=torch.float32).eval()
args.out.mkdir(parents=True, exist_ok=True)

length = tower.config.text_config.max_position_embeddings
scores = evaluate_tower(tower, processor, caption_length=length, num_samples=args.samples)
scores.update(evaluate_model(model, processor, args.samples, num_videos=max(1, args.samples // 4)))
scores.update(evaluate_edits(model, processor, max(1, args.samples // 2)))
scores.update(evaluate_continuations(model, processor, max(1, args.samples // 4)))
scores.update(evaluate_stories(model, processor, max(1, args.samples * 96 // 200)))
(args.out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
print(json.dumps(scores, indent=1))

images = []
captions = []
right = []
for kind in EDITS:
    choice = random.Random(7)
    edits = [make_edit(kind, "test", choice) for _ in range(4)]
    before, after = generate_edits(model, processor, edits, seed=7)
    images += [beside(enlarge(a, 96), enlarge(b, 96)) for a, b in zip(before, after, strict=True)]
    captions += [edit.instruction for edit in edits]
    right += [is_shown(reading, edit.after) for reading, edit in zip(read_drawing(after), edits, strict=True)]
contact_sheet(images, captions, right, columns=4).save(args.out / "edits.png", optimize=True)

pairs = ("yellow circle", "red cross", "blue triangle", "green square", "purple circle", "orange cross")
requests = [f"tell a story of a {pair}" for pair in pairs]
images = []
captions = []
right = []
for request, items in zip(requests, tell_stories(model, processor, requests, seed=11), strict=True):
    drawn = [item["image"].resize((128, 128), 0) for item in items if item["type"] == "image" and item["image"]]
    if len(drawn) == 2:
        checks = read_story(items, request)
        images.append(beside(*drawn))
        captions.append(" ... ".join(item["text"] for item in items if item["type"] == "text"))
        right.append(checks["first"] and checks["second"])
if images:
    contact_sheet(images, captions, right, columns=3).save(args.out / "stories.png", optimize=True)

choice = random.Random(5)
targets = [choice.choice(motions("test")) for _ in range(6)]
side = model.config.vision_config.image_size
num_frames = 4
videos = animate(targets, num_frames, side, torch.Generator().manual_seed(5))
continued = continue_videos(model, processor, videos, num_given=2, seed=5)
images = []
for video in continued:
    frames = [enlarge(frame, 72) for frame in video]
    images.append(beside(beside(frames[0], frames[1]), beside(frames[2], frames[3]), gap=12))
captions = [f"two frames given, two generated: {target.caption}" for target in targets]
right = [
    reading.direction == target.direction for reading, target in zip(read_motion(continued), targets, strict=True)
]
contact_sheet(images, captions, right, columns=3).save(args.out / "continued.png", optimize=True)

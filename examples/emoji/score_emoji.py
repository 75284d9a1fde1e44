"""Scores the emoji model on held-out images and clips, with 95 % intervals, and saves sheets to look at.

    python examples/emoji/score_emoji.py --records emoji-records --model emoji --judge emoji-judge --out emoji-scores

The judge is the classifier of `train_judge.py`. Its score on real images of the same pairs is the ceiling, so it is
printed beside the score of the drawings, as `_real`, and their ratio as `_ratio`. `scores.json` has all scores.
"""

import argparse
import dataclasses
import json
import random
import time
from pathlib import Path

import torch

from vilau_hf import VilaUForConditionalGeneration, VilaUProcessor, VilaUVisionTowerForPreTraining
from vilau_hf.emoji.dataset import Emoji, concept_names, load_emoji
from vilau_hf.emoji.feature_distances import feature_distances
from vilau_hf.emoji.judge import EmojiJudge
from vilau_hf.emoji.nearest import as_pixels, nearest_images, share_nearer_to_truth
from vilau_hf.emoji.scores import (
    BACKGROUND,
    clip_prompt,
    compare_with_real,
    draw,
    restyle,
    score_answers,
    score_best_of,
    score_clips,
    score_tower,
)
from vilau_hf.emoji.tasks import EmojiTasks, load_clips
from vilau_hf.evaluation.intervals import Score
from vilau_hf.evaluation.model_outputs import generate_from_captions
from vilau_hf.evaluation.sheets import contact_sheet, enlarge, to_pil


PARTS = ("tower", "answers", "drawings", "restyles", "clips", "best-of", "distances", "nearest")
SIDE = 96

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--records", type=Path, required=True, help="folder of `vilau records emoji`")
parser.add_argument("--model", required=True, help="folder or Hub id of the model")
parser.add_argument("--judge", required=True, help="folder of the judge")
parser.add_argument("--out", type=Path, default=Path("emoji-scores"), help="output folder (default: %(default)s)")
parser.add_argument("--samples", type=int, default=310, help="samples of each score at most (default: %(default)s)")
parser.add_argument(
    "--clip-repeats", type=int, default=3, help="drawings of each held-out clip (default: %(default)s)"
)
parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="scores to compute (default: all)")
parser.add_argument("--seed", type=int, default=0, help="seed of all choices and of sampling (default: %(default)s)")
args = parser.parse_args()

model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
processor = VilaUProcessor.from_pretrained(args.model)
tower = VilaUVisionTowerForPreTraining.from_pretrained(f"{args.model}/tower", dtype=torch.float32).eval()
judge = EmojiJudge.load(args.judge)
size = model.config.vision_config.image_size
args.out.mkdir(parents=True, exist_ok=True)

train = load_emoji(args.records, size, "train")
held_out = load_emoji(args.records, size, "pairs")
images_of: dict[str, dict[str, Emoji]] = {}
for one in [*train, *held_out]:
    images_of.setdefault(one.concept.key, {})[one.style] = one
choice = random.Random(args.seed)
new = choice.sample(held_out, min(args.samples, len(held_out)))
seen = choice.sample(train, min(args.samples, len(train)))
drawings: dict[str, torch.Tensor] = {}


def drawings_of(name: str, emoji: list[Emoji]) -> torch.Tensor:
    """Draws each emoji once, for all scores that need the drawings."""
    if name not in drawings:
        drawings[name] = draw(model, processor, emoji, args.seed)
    return drawings[name]


def score_drawings() -> dict[str, Score]:
    scores = {}
    for name, emoji in (("seen", seen), ("new", new)):
        images = drawings_of(name, emoji)
        scores.update(compare_with_real(judge, images, emoji, f"draw_{name}", args.seed))
        captions = [f"{one.concept.name}, {one.style}" for one in emoji[:48]]
        shown = [enlarge(image, SIDE) for image in images[:48]]
        contact_sheet(shown, captions, None, columns=8).save(args.out / f"drawings_{name}.png", optimize=True)
    return scores


def score_restyles() -> dict[str, Score]:
    """Changes held-out images to styles of training, and images of training to held-out styles."""
    scores = {}
    held_out_styles = {(one.concept.key, one.style) for one in held_out}
    trained_of = {
        one.concept.key: [
            other
            for style, other in images_of[one.concept.key].items()
            if (one.concept.key, style) not in held_out_styles
        ]
        for one in held_out
    }
    others = [choice.choice(trained_of[one.concept.key]) for one in new]
    for name, before, after in (("from_new", new, others), ("to_new", others, new)):
        images = restyle(model, processor, before, [one.style for one in after], args.seed)
        scores.update(compare_with_real(judge, images, after, f"restyle_{name}", args.seed))
        shown = []
        captions = []
        for first, image, last in list(zip(before, images, after, strict=True))[:16]:
            shown += [
                first.on(BACKGROUND).resize((SIDE, SIDE)),
                enlarge(image, SIDE),
                last.on(BACKGROUND).resize((SIDE, SIDE)),
            ]
            captions += [f"{first.concept.name}, {first.style}", f"to {last.style}", "true"]
        contact_sheet(shown, captions, None, columns=12).save(args.out / f"restyles_{name}.png", optimize=True)
    return scores


def score_videos() -> dict[str, Score]:
    clips = load_clips(args.records, size, model.generation_config.num_frames, held_out=True)
    clips = choice.sample(clips, min(args.samples, len(clips))) * args.clip_repeats
    captions = [clip_prompt(clip) for clip in clips]
    videos = generate_from_captions(model, processor, captions, "video", args.seed, batch_size=25)
    shown = [enlarge(frame, SIDE) for video in videos[:12] for frame in video]
    names = [clip.concept.name for clip in clips[:12] for _ in range(videos.shape[1])]
    contact_sheet(shown, names, None, columns=videos.shape[1]).save(args.out / "clips.png", optimize=True)
    return score_clips(judge, videos, clips)


def score_distances() -> dict[str, float]:
    real = [one.on(BACKGROUND) for one in new]
    other = [one.on(BACKGROUND) for one in seen]
    generated = [to_pil(image) for image in drawings_of("new", new)]
    values = {f"new_{name}": value for name, value in feature_distances(judge, generated, real).items()}
    # real images of other concepts: what the distances of a perfect model would be
    return values | {f"real_{name}": value for name, value in feature_distances(judge, other, real).items()}


def score_nearest() -> dict[str, Score]:
    """Shows the nearest training images of 20 drawings, spread evenly over the drawings of held-out pairs."""
    images = drawings_of("new", new)
    pixels = as_pixels(train, BACKGROUND)
    rows = [index * len(new) // min(20, len(new)) for index in range(min(20, len(new)))]
    distances, indices = nearest_images(images[rows], pixels, 3)
    shown = []
    captions = []
    for row, near, numbers in zip(rows, distances.tolist(), indices.tolist(), strict=True):
        shown += [new[row].on(BACKGROUND).resize((SIDE, SIDE)), enlarge(images[row], SIDE)]
        captions += [f"true: {new[row].concept.name}, {new[row].style}", "drawn"]
        shown += [enlarge(pixels[number], SIDE) for number in numbers]
        captions += [
            f"{distance:.0f}: {train[number].concept.name}, {train[number].style}"
            for distance, number in zip(near, numbers, strict=True)
        ]
    contact_sheet(shown, captions, None, columns=10).save(args.out / "nearest.png", optimize=True)
    return {"nearer_to_truth": share_nearer_to_truth(images, as_pixels(new, BACKGROUND), pixels)}


PARTS_TO_FUNCTIONS = {
    "tower": lambda: score_tower(tower, processor, new, concept_names(args.records)),
    "answers": lambda: score_answers(model, processor, new, EmojiTasks(train, [], {}, 0), args.seed),
    "drawings": score_drawings,
    "restyles": score_restyles,
    "clips": score_videos,
    "best-of": lambda: score_best_of(model, processor, tower, judge, new[:200], args.seed),
    "distances": score_distances,
    "nearest": score_nearest,
}

results: dict[str, dict | float] = {}
for part in args.only:
    began = time.time()
    scores = PARTS_TO_FUNCTIONS[part]()
    print(f"{part} ({time.time() - began:.0f} s)")
    for name, score in scores.items():
        print(f"  {name:<28} {score:.3f}" if isinstance(score, float) else f"  {name:<28} {score}", flush=True)
        results[name] = score if isinstance(score, float) else dataclasses.asdict(score)
    (args.out / "scores.json").write_text(json.dumps(results, indent=1) + "\n")

"""What `vilau demo` does: draws, animates, reconstructs and answers, and has the drawing oracle judge it all."""

import random
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..evaluation.sheets import beside, contact_sheet, enlarge, save_gif, to_uint8
from .dataset import drawn_shapes
from .oracle import read_drawing, read_motion
from .scores import answer, draw_captions, evaluate_reconstruction
from .shapes import draw, drawings, motions


NUM_PICTURES, NUM_VIDEOS, NUM_RECONSTRUCTIONS, NUM_QUESTIONS = 12, 4, 8, 20


def run_demo(model, processor, out: Path, seed: int = 0) -> dict[str, str]:
    """
    Writes pictures and videos of captions that were never seen in training, reconstructions and answers into `out`.

    Args:
        model ([`VilaUForConditionalGeneration`]): a model of drawn shapes, such as the one of the package.
        processor ([`VilaUProcessor`]): its processor.
        out (`Path`): folder, made if it is not there.
        seed (`int`, *optional*, defaults to 0): chooses the captions, questions and samples.

    Returns:
        The score of each part, for people to read.
    """
    out.mkdir(parents=True, exist_ok=True)
    choice, scores = random.Random(seed), {}
    with tqdm(total=4, desc="demo") as progress:
        for name, part in (
            ("pictures", _pictures),
            ("videos", _videos),
            ("reconstructions", _reconstructions),
            ("answers", _answers),
        ):
            progress.set_postfix_str(name)
            scores[name] = part(model, processor, out, choice, seed)
            progress.update()
    return scores


def _pictures(model, processor, out, choice, seed) -> str:
    targets = choice.sample(drawings("test"), NUM_PICTURES)
    captions = [drawing.caption for drawing in targets]
    pixels = draw_captions(model, processor, captions, "image", seed)
    readings = read_drawing(pixels)
    right = [(a.color, a.shape) == (b.color, b.shape) for a, b in zip(readings, targets, strict=True)]
    contact_sheet([enlarge(picture, 192) for picture in pixels], captions, right, columns=4).save(out / "pictures.png")
    return f"{sum(right)} of {len(right)} have the right colour and shape"


def _videos(model, processor, out, choice, seed) -> str:
    targets = choice.sample(motions("test"), NUM_VIDEOS)
    videos = draw_captions(model, processor, [motion.caption for motion in targets], "video", seed)
    for motion, video in zip(targets, videos, strict=True):
        name = motion.caption.removeprefix("a ").replace(" ", "-")
        save_gif([enlarge(frame, 192) for frame in video], out / f"{name}.gif")
    readings = read_motion(videos)
    right = sum(a.direction == b.direction for a, b in zip(readings, targets, strict=True))
    return f"{right} of {len(targets)} move in the right direction"


@torch.no_grad()
def _reconstructions(model, processor, out, choice, seed) -> str:
    tower = model.model.vision_tower
    targets = choice.sample(drawings("test"), NUM_RECONSTRUCTIONS)
    inputs = draw(targets, tower.config.image_size, torch.Generator().manual_seed(seed))
    pixels = processor.image_processor(list(inputs), return_tensors="pt")["pixel_values"].to(model.device)
    outputs = to_uint8(tower.decode(tower.encode(pixels).codes)).cpu()
    right = [(a.color, a.shape) == (b.color, b.shape) for a, b in zip(read_drawing(outputs), targets, strict=True)]
    pairs = [beside(enlarge(a, 128), enlarge(b, 128)) for a, b in zip(inputs, outputs, strict=True)]
    captions = [f"input, output: {drawing.caption}" for drawing in targets]
    contact_sheet(pairs, captions, right, columns=2).save(out / "reconstructions.png")
    scores = evaluate_reconstruction(tower, processor, seed=seed)
    return f"{sum(right)} of {len(right)} keep colour and shape; PSNR {scores['reconstruction_psnr']:.1f} dB"


def _answers(model, processor, out, choice, seed) -> str:
    side = model.config.vision_config.image_size
    records = list(drawn_shapes("test", NUM_QUESTIONS, side, tasks={"image_to_text": 1}, seed=seed))
    replies = answer(model, processor, records)
    folder = out / "answers"
    folder.mkdir(exist_ok=True)
    lines = ["| picture | question | answer | |", "|---|---|---|---|"]
    right = 0
    for index, (record, reply) in enumerate(zip(records, replies, strict=True)):
        record["images"][0].resize((96, 96), 0).save(folder / f"{index}.png")
        question, expected = record["messages"][0]["content"][1]["text"], record["messages"][1]["content"][0]["text"]
        right += reply == expected
        verdict = "right" if reply == expected else f"wrong: {expected}"
        lines.append(f"| ![{record['caption']}](answers/{index}.png) | {question} | {reply} | {verdict} |")
    (out / "answers.md").write_text("\n".join(lines) + "\n")
    return f"{right} of {len(records)} answers are exactly right"


__all__ = ["run_demo"]

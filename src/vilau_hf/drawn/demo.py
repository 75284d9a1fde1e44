"""The demo behind `vilau demo`: generates images, videos, reconstructions and answers, and scores them."""

import random
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..evaluation.model_outputs import answer_questions, generate_from_captions
from ..evaluation.sheets import beside, contact_sheet, enlarge, save_animation, to_uint8
from ..modeling import VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .dataset import drawn_shapes
from .oracle import read_drawing, read_motion
from .scores import evaluate_reconstruction
from .shapes import Drawing, draw, drawings, motions


NUM_IMAGES = 12
NUM_VIDEOS = 4
NUM_RECONSTRUCTIONS = 8
NUM_QUESTIONS = 20


def run_demo(
    model: VilaUForConditionalGeneration, processor: VilaUProcessor, out: Path, seed: int = 0
) -> dict[str, str]:
    """
    Runs the four sections of the demo, and saves their results to the folder `out`.

    The model draws images and videos from captions that it was not trained on, reconstructs images and answers
    questions.

    Args:
        model ([`VilaUForConditionalGeneration`]): a model of drawn shapes, such as the shipped checkpoint.
        processor ([`VilaUProcessor`]): its processor.
        out (`Path`): output folder; it is created if it does not exist.
        seed (`int`, *optional*, defaults to 0): seed of captions, questions and sampling.

    Returns:
        Name of each section -> a sentence with its score. The names are `pictures`, `videos`,
        `reconstructions` and `answers`.
    """
    out.mkdir(parents=True, exist_ok=True)
    # All sections draw from one source in this order: another order would show other captions.
    choice = random.Random(seed)
    scores = {}
    with tqdm(total=4, desc="demo", disable=None) as progress:
        for name, section in (
            ("pictures", _images),
            ("videos", _videos),
            ("reconstructions", _reconstructions),
            ("answers", _answers),
        ):
            progress.set_postfix_str(name)
            scores[name] = section(model, processor, out, choice, seed)
            progress.update()
    return scores


def _color_and_shape(pixels: torch.Tensor, targets: list[Drawing]) -> list[bool]:
    """Returns whether each image `(N, 3, S, S)` has the colour and shape of its target."""
    readings = read_drawing(pixels)
    return [(a.color, a.shape) == (b.color, b.shape) for a, b in zip(readings, targets, strict=True)]


def _images(
    model: VilaUForConditionalGeneration, processor: VilaUProcessor, out: Path, choice: random.Random, seed: int
) -> str:
    targets = choice.sample(drawings("test"), NUM_IMAGES)
    captions = [drawing.caption for drawing in targets]
    pixels = generate_from_captions(model, processor, captions, "image", seed)
    right = _color_and_shape(pixels, targets)
    contact_sheet([enlarge(image, 192) for image in pixels], captions, right, columns=4).save(out / "pictures.png")
    return f"{sum(right)} of {len(right)} have the right colour and shape"


def _videos(
    model: VilaUForConditionalGeneration, processor: VilaUProcessor, out: Path, choice: random.Random, seed: int
) -> str:
    targets = choice.sample(motions("test"), NUM_VIDEOS)
    videos = generate_from_captions(model, processor, [motion.caption for motion in targets], "video", seed)
    for motion, video in zip(targets, videos, strict=True):
        name = motion.caption.removeprefix("a ").replace(" ", "-")
        save_animation([enlarge(frame, 192) for frame in video], out / f"{name}.gif")
    readings = read_motion(videos)
    right = sum(a.direction == b.direction for a, b in zip(readings, targets, strict=True))
    return f"{right} of {len(targets)} move in the right direction"


@torch.no_grad()
def _reconstructions(
    model: VilaUForConditionalGeneration, processor: VilaUProcessor, out: Path, choice: random.Random, seed: int
) -> str:
    tower = model.model.vision_tower
    targets = choice.sample(drawings("test"), NUM_RECONSTRUCTIONS)
    inputs = draw(targets, tower.config.image_size, torch.Generator().manual_seed(seed))
    pixels = processor.image_processor(list(inputs), return_tensors="pt")["pixel_values"].to(model.device)
    outputs = to_uint8(tower.decode(tower.encode(pixels).codes)).cpu()
    right = _color_and_shape(outputs, targets)
    pairs = [beside(enlarge(a, 128), enlarge(b, 128)) for a, b in zip(inputs, outputs, strict=True)]
    captions = [f"input, output: {drawing.caption}" for drawing in targets]
    contact_sheet(pairs, captions, right, columns=2).save(out / "reconstructions.png")
    scores = evaluate_reconstruction(tower, processor, seed=seed)
    return f"{sum(right)} of {len(right)} keep colour and shape; PSNR {scores['reconstruction_psnr']:.1f} dB"


def _answers(
    model: VilaUForConditionalGeneration, processor: VilaUProcessor, out: Path, choice: random.Random, seed: int
) -> str:
    side = model.config.vision_config.image_size
    records = list(drawn_shapes("test", NUM_QUESTIONS, side, tasks={"image_to_text": 1}, seed=seed))
    replies = answer_questions(model, processor, records)
    folder = out / "answers"
    folder.mkdir(exist_ok=True)
    lines = ["| image | question | answer | |", "|---|---|---|---|"]
    right = 0
    for index, (record, reply) in enumerate(zip(records, replies, strict=True)):
        record["images"][0].resize((96, 96), 0).save(folder / f"{index}.png")
        question = record["messages"][0]["content"][1]["text"]
        expected = record["messages"][1]["content"][0]["text"]
        right += reply == expected
        result = "right" if reply == expected else f"wrong: {expected}"
        lines.append(f"| ![{record['caption']}](answers/{index}.png) | {question} | {reply} | {result} |")
    (out / "answers.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{right} of {len(records)} answers are exactly right"


__all__ = ["run_demo"]

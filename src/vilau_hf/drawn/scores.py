"""Scores of a model on held-out drawn shapes, as the drawing oracle reads them."""

from collections.abc import Sequence

import torch
from transformers import BaseImageProcessor, PreTrainedTokenizerBase

from ..evaluation.metrics import codebook_usage, exact_match, psnr
from ..evaluation.model_outputs import answer_questions, generate_from_captions
from ..evaluation.sheets import to_uint8
from ..evaluation.task import evenly
from ..evaluation.zero_shot import ZeroShotClassifier
from ..modeling import VilaUForConditionalGeneration, VilaUVisionTower, VilaUVisionTowerForPreTraining
from ..processing import VilaUProcessor
from .dataset import drawn_shapes
from .oracle import read_drawing, read_motion
from .shapes import COLORS, SHAPES, Drawing, Motion, drawings, motions


ATTRIBUTES = ("color", "shape", "size", "place", "background")


def drawing_hits(pixels: torch.Tensor, targets: Sequence[Drawing]) -> dict[str, list[bool]]:
    """
    Compares what the oracle reads from images with their targets.

    Args:
        pixels (`torch.Tensor` of shape `(N, 3, S, S)`): images, uint8.
        targets (`Sequence[Drawing]` of length N): the drawings that the images should show.

    Returns:
        For each attribute, `color_and_shape`, and `all` (the five attributes together): whether each image shows it.
    """
    pairs = list(zip(read_drawing(pixels), targets, strict=True))
    right = {
        name: [getattr(reading, name) == getattr(target, name) for reading, target in pairs] for name in ATTRIBUTES
    }
    right["color_and_shape"] = [a and b for a, b in zip(right["color"], right["shape"], strict=True)]
    right["all"] = [all(values) for values in zip(*(right[name] for name in ATTRIBUTES), strict=True)]
    return right


def motion_hits(videos: torch.Tensor, targets: Sequence[Motion]) -> dict[str, list[bool]]:
    """
    Compares what the oracle reads from videos with their targets.

    Args:
        videos (`torch.Tensor` of shape `(N, F, 3, S, S)`): videos, uint8.
        targets (`Sequence[Motion]` of length N): the motions that the videos should show.

    Returns:
        For direction, colour and shape: whether each video shows it.
    """
    pairs = list(zip(read_motion(videos), targets, strict=True))
    return {
        name: [getattr(reading, name) == getattr(target, name) for reading, target in pairs]
        for name in ("direction", "color", "shape")
    }


def evaluate_images(pixels: torch.Tensor, targets: list[Drawing]) -> dict[str, float]:
    """
    Computes the share of images in which the oracle reads each attribute of the target.

    Args:
        pixels (`torch.Tensor` of shape `(N, 3, S, S)`): images, uint8.
        targets (`list[Drawing]` of length N): the drawings that the images should show.

    Returns:
        Shares in [0, 1] by name: `picture_color` and so on for each attribute, `picture_color_and_shape`, and
        `picture_all` for all five attributes together.
    """
    hits = drawing_hits(pixels, targets)
    return {f"picture_{name}": sum(values) / len(values) for name, values in hits.items()}


def _held_out_images(
    processor: VilaUProcessor, num_samples: int, image_size: int, seed: int
) -> tuple[torch.Tensor, list[dict]]:
    """Returns preprocessed held-out drawings `(N, 3, S, S)` and their attributes."""
    records = drawn_shapes("test", num_samples, image_size, tasks={"text_to_image": 1}, seed=seed)[:]
    images = [images[0] for images in records["images"]]
    return processor.image_processor(images, return_tensors="pt")["pixel_values"], records["drawing"]


@torch.no_grad()
def evaluate_reconstruction(
    tower: VilaUVisionTower, processor: VilaUProcessor, num_samples: int = 200, seed: int = 0
) -> dict[str, float]:
    """
    Scores the reconstructions of held-out drawings.

    Args:
        tower ([`VilaUVisionTower`]): the vision tower.
        processor ([`VilaUProcessor`]): its processor.
        num_samples (`int`, *optional*, defaults to 200): number of drawings.
        seed (`int`, *optional*, defaults to 0): seed that chooses the drawings.

    Returns:
        `reconstruction_psnr` in dB, `codebook_usage`, and `reconstruction_color_and_shape`, the share of
        reconstructions in which the oracle reads both.
    """
    pixels, attributes = _held_out_images(processor, num_samples, tower.config.image_size, seed)
    codes = tower.encode(pixels.to(tower.device)).codes
    reconstruction = to_uint8(tower.decode(codes)).cpu()
    scores = evaluate_images(reconstruction, [Drawing(**drawing) for drawing in attributes])
    return {
        "reconstruction_psnr": psnr(reconstruction, to_uint8(pixels), data_range=255),
        "codebook_usage": codebook_usage(codes, tower.config.codebook_size),
        "reconstruction_color_and_shape": scores["picture_color_and_shape"],
    }


@torch.no_grad()
def evaluate_tower(
    tower: VilaUVisionTowerForPreTraining,
    processor: VilaUProcessor,
    caption_length: int,
    num_samples: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """
    Scores zero-shot classification of held-out drawings into 24 classes such as "a red cross".

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a vision tower with its text encoder.
        processor ([`VilaUProcessor`]): its processor.
        caption_length (`int`): length in tokens that captions are padded to.
        num_samples (`int`, *optional*, defaults to 200): number of drawings.
        seed (`int`, *optional*, defaults to 0): seed that chooses the drawings.

    Returns:
        `zero_shot_color_and_shape`, the share of drawings in the right class.
    """
    classifier = shape_classifier(tower, processor.tokenizer, processor.image_processor)
    pixels, attributes = _held_out_images(processor, num_samples, tower.config.image_size, seed)
    chosen = classifier.classify_pixels(pixels)
    right = [
        name == f"{drawing['color']} {drawing['shape']}" for (name,), drawing in zip(chosen, attributes, strict=True)
    ]
    return {"zero_shot_color_and_shape": sum(right) / len(right)}


def shape_classifier(
    tower: VilaUVisionTowerForPreTraining, tokenizer: PreTrainedTokenizerBase, image_processor: BaseImageProcessor
) -> ZeroShotClassifier:
    """
    Makes a classifier of 24 classes such as "red cross", whose captions are "a red cross".

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a vision tower with its text encoder.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the text encoder.
        image_processor (`BaseImageProcessor`): image processor of the tower.
    """
    classes = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    return ZeroShotClassifier(tower, tokenizer, image_processor, classes, ["a {}"])


@torch.no_grad()
def evaluate_model(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    num_samples: int = 200,
    num_videos: int = 50,
    seed: int = 0,
) -> dict[str, float]:
    """
    Computes all scores of a model on held-out combinations, with its saved generation settings.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        num_samples (`int`, *optional*, defaults to 200): images, questions and reconstructions.
        num_videos (`int`, *optional*, defaults to 50): videos.
        seed (`int`, *optional*, defaults to 0): seed of questions and sampling.

    Returns:
        The scores of [`evaluate_reconstruction`] and [`evaluate_images`], `answer_exact_match`, and `video_direction`,
        `video_color` and `video_shape`.
    """
    side = model.config.vision_config.image_size
    scores = evaluate_reconstruction(model.model.vision_tower, processor, num_samples, seed)
    targets = evenly(drawings("test"), num_samples)
    captions = [drawing.caption for drawing in targets]
    scores.update(evaluate_images(generate_from_captions(model, processor, captions, "image", seed), targets))
    records = list(drawn_shapes("test", num_samples, side, tasks={"image_to_text": 1}, seed=seed))
    references = [record["messages"][-1]["content"][0]["text"] for record in records]
    scores["answer_exact_match"] = exact_match(answer_questions(model, processor, records), references)
    moving = evenly(motions("test"), num_videos)
    videos = generate_from_captions(model, processor, [motion.caption for motion in moving], "video", seed)
    for name, values in motion_hits(videos, moving).items():
        scores[f"video_{name}"] = sum(values) / len(values)
    return scores


__all__ = [
    "drawing_hits",
    "evaluate_images",
    "evaluate_model",
    "evaluate_reconstruction",
    "evaluate_tower",
    "motion_hits",
    "shape_classifier",
]

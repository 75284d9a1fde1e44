"""Functions that the task definitions name: media and scores of documents about drawn shapes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...drawn.scores import evaluate_images
from ...drawn.shapes import Drawing
from ...evaluation.metrics import exact_match


def given_image(document: Mapping[str, Any]) -> list[Image.Image]:
    """Returns the image of the prompt."""
    return [document["image"]]


def score_answer(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Compares the answer to a question with the right one."""
    return {"answer_exact_match": exact_match([results[0]], [document["answer"]])}


def score_image(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """
    Reads the attributes of a generated image.

    Args:
        document (`Mapping[str, Any]`): the document, with the attributes of the drawing.
        results (`Sequence[str]`): the response of the model, JSON with `images`.

    Raises:
        ValueError: if the response has no image.
    """
    try:
        (path,) = json.loads(results[0])["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the response must be JSON with one image, got {results[0]!r}: {error}") from error
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    names = ("color", "shape", "size", "place", "background")
    return evaluate_images(pixels[None], [Drawing(**{name: document[name] for name in names})])


__all__ = ["given_image", "score_answer", "score_image"]

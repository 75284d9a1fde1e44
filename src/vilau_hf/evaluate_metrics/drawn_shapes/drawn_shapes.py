"""Whether pictures of drawn shapes show what their captions say, for `evaluate.load`."""

import datasets
import evaluate
import numpy as np
import torch

from vilau_hf.drawn.scores import evaluate_images
from vilau_hf.drawn.shapes import Drawing


_DESCRIPTION = """
Share of pictures in which a rule-based reader finds the colour, shape, size, place and background that the caption
names. Captions are those of `vilau_hf.drawn`.
"""

_INPUTS = """
Args:
    predictions: square pictures, all of one size, as PIL images or uint8 arrays `(S, S, 3)`.
    references: their captions, as in "a small red cross at the bottom on a white background".
Returns:
    color, shape, size, place, background, color_and_shape, all: shares of the pictures in [0, 1].
"""


class DrawnShapes(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions, references):
        targets = [Drawing.from_caption(caption) for caption in references]
        sizes = sorted({image.size for image in predictions})
        if len(sizes) > 1:
            raise ValueError(f"`predictions` must be pictures of one size, got {sizes}.")
        pixels = torch.stack([torch.from_numpy(np.array(image.convert("RGB"))) for image in predictions])
        scores = evaluate_images(pixels.permute(0, 3, 1, 2), targets)
        return {name.removeprefix("picture_"): score for name, score in scores.items()}

"""Agreement of images of drawn shapes with their captions, as a metric for `evaluate.load`."""

import datasets
import evaluate
import numpy as np
import torch
from PIL import Image

from vilau_hf.drawn.scores import evaluate_images
from vilau_hf.drawn.shapes import Drawing
from vilau_hf.processing.pixel_rules_vilau import to_rgb


_DESCRIPTION = """
Share of images that show the colour, shape, size, place and background of their captions. Rules read them from the
pixels. The captions must be captions of `vilau_hf.drawn`.
"""

_INPUTS = """
Args:
    predictions: square images of the same size, as PIL images or uint8 arrays `(S, S, 3)`.
    references: captions of the images, for example "a small red cross at the bottom on a white background".
Returns:
    color, shape, size, place, background, color_and_shape, all: shares of the images in [0, 1].
"""


class DrawnShapes(evaluate.Metric):
    """Metric with the share of images that agree with their captions, for each attribute."""

    # Abstract in the base class: describes the metric and the types of its inputs. The documentation of `evaluate`
    # asks for this method and for `_compute`.
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[Image.Image], references: list[str]) -> dict[str, float]:
        targets = [Drawing.from_caption(caption) for caption in references]
        sizes = sorted({image.size for image in predictions})
        if len(sizes) > 1:
            raise ValueError(f"`predictions` must be images of one size, got {sizes}.")
        pixels = torch.stack([torch.from_numpy(np.array(to_rgb(image))) for image in predictions])
        scores = evaluate_images(pixels.permute(0, 3, 1, 2), targets)
        return {name.removeprefix("picture_"): score for name, score in scores.items()}

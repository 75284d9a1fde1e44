"""Evaluation tasks of drawn shapes. The drawing oracle scores images and videos, without a network."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset
from PIL import Image

from ..evaluation.model_outputs import user_message
from ..evaluation.reconstruction import ReconstructionTask
from ..evaluation.task import Conversation, ConversationTask, MetricValue, evenly
from .dataset import drawn_shapes
from .scores import drawing_hits
from .shapes import Drawing, drawings


NUM_SAMPLES = 200


def rows_of(columns: dict[str, list[bool]]) -> list[dict[str, MetricValue]]:
    """Returns the metrics of each sample from one list for each metric."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


class ShapesTextToImage(ConversationTask):
    """Draws held-out drawings from their captions."""

    name = "shapes-text-to-image"
    description = "draw held-out shapes from their captions; the oracle reads five attributes"
    mode = "image"
    right = "all"

    def __len__(self) -> int:
        return self.options.samples or NUM_SAMPLES

    @cached_property
    def targets(self) -> list[Drawing]:
        """Returns the drawings of all samples."""
        return evenly(drawings("test"), len(self))

    def conversation(self, index: int) -> Conversation:
        """Returns the caption as the message of the user."""
        target = self.targets[index]
        return Conversation(user_message([{"type": "text", "text": target.caption}]), target)

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Reads the attributes of the images."""
        return rows_of(drawing_hits(outputs, [each.reference for each in conversations]))


class ShapesReconstruction(ReconstructionTask):
    """Encodes and decodes held-out drawings."""

    name = "shapes-reconstruction"
    description = "encode and decode held-out shapes: PSNR, SSIM, and what the oracle still reads"
    metrics = ("psnr", "ssim")
    right = "color_and_shape"

    def __len__(self) -> int:
        return self.options.samples or NUM_SAMPLES

    @cached_property
    def dataset(self) -> Dataset:
        """Returns the drawings of all samples."""
        return held_out_drawings(len(self), self.model.image_size, self.options.seed)

    def image(self, index: int) -> Image.Image:
        """Returns a held-out drawing."""
        return self.dataset[index]["images"][0]

    def compare(
        self, indices: Sequence[int], original: torch.Tensor, rebuilt: torch.Tensor
    ) -> list[dict[str, MetricValue]]:
        """Compares pixels, and reads the attributes of the reconstructions."""
        values = super().compare(indices, original, rebuilt)
        targets = [Drawing(**self.dataset[index]["drawing"]) for index in indices]
        hits = rows_of(drawing_hits(rebuilt, targets))
        return [{**value, "color_and_shape": hit["color_and_shape"]} for value, hit in zip(values, hits, strict=True)]


def held_out_drawings(num_samples: int, image_size: int, seed: int) -> Dataset:
    """Returns records of held-out drawings with small variations of position and size."""
    return drawn_shapes("test", num_samples, image_size, tasks={"text_to_image": 1}, seed=seed)


__all__ = ["NUM_SAMPLES", "ShapesReconstruction", "ShapesTextToImage"]

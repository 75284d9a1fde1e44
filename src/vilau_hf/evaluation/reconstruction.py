"""Tasks that compare images with what the codes of the vision tower keep of them: PSNR, SSIM and LPIPS."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import nn
from transformers import BaseImageProcessor

from ..modeling import VilaUVisionTower
from .hub_weights import require_package
from .metric_networks import load_lpips
from .metrics import psnr
from .sheets import to_pil, to_uint8
from .task import EvaluationTask, MetricValue, SampleResult, StoredResult


METRICS = ("psnr", "ssim", "lpips")
# The network that the authors of LPIPS recommend for evaluation (richzhang/PerceptualSimilarity, README).
LPIPS_NETWORK = "alex"


@torch.no_grad()
def reconstruct(tower: VilaUVisionTower, pixels: torch.Tensor) -> torch.Tensor:
    """Returns what the codes keep of images `(N, 3, S, S)` in [-1, 1], as uint8 of the same shape on the CPU."""
    return to_uint8(tower.decode(tower.encode(pixels.to(tower.device)).codes)).cpu()


class ReconstructionTask(EvaluationTask):
    """A task whose samples are images that the vision tower encodes and decodes."""

    uses = ("metrics", "download_metric_weights")
    # metrics that are computed unless the option `metrics` names others
    metrics: ClassVar[tuple[str, ...]] = METRICS

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Returns the image of one sample, at the size of the tower."""

    @cached_property
    def chosen_metrics(self) -> tuple[str, ...]:
        """
        Returns the names of the metrics to compute.

        Raises:
            ValueError: for an unknown metric.
        """
        chosen = self.metrics if self.options.metrics is None else tuple(self.options.metrics)
        unknown = [name for name in chosen if name not in METRICS]
        if unknown or not chosen:
            raise ValueError(f"`metrics` must be some of {', '.join(METRICS)}, got {', '.join(unknown) or 'none'}.")
        return chosen

    def check(self) -> None:
        """Checks that the metrics are known and that their packages and weights are there."""
        super().check()
        if "ssim" in self.chosen_metrics:
            require_package("torchmetrics", "SSIM")
        if "lpips" in self.chosen_metrics:
            _ = self.lpips

    @cached_property
    def lpips(self) -> nn.Module:
        """
        Returns the network of LPIPS, on the device of the model.

        Raises:
            FileNotFoundError: if its weights are missing and may not be downloaded. The message says what to do.
        """
        try:
            network = load_lpips(LPIPS_NETWORK, "LPIPS", self.options.download_metric_weights)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error} `--metrics psnr ssim` leaves LPIPS out.") from error
        return network.to(self.model.device)

    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """Encodes and decodes the images, and compares them in 8 bits."""
        images = [self.image(index) for index in indices]
        original, rebuilt = rebuild(self.model.vision_tower, self.model.image_processor, images)
        values = self.compare(indices, original, rebuilt)
        return [
            SampleResult(
                index, values[row], media={"original": to_pil(original[row]), "reconstruction": to_pil(rebuilt[row])}
            )
            for row, index in enumerate(indices)
        ]

    def compare(
        self, indices: Sequence[int], original: torch.Tensor, rebuilt: torch.Tensor
    ) -> list[dict[str, MetricValue]]:
        """
        Computes the metrics of each image.

        Args:
            indices (`Sequence[int]` of length N): indices of the samples.
            original (`torch.Tensor` of shape `(N, 3, S, S)`): images, uint8.
            rebuilt (`torch.Tensor` of shape `(N, 3, S, S)`): their reconstructions, uint8.
        """
        columns: dict[str, list[float]] = {}
        if "psnr" in self.chosen_metrics:
            columns["psnr"] = [psnr(a, b, data_range=255) for a, b in zip(rebuilt, original, strict=True)]
        if "ssim" in self.chosen_metrics:
            columns["ssim"] = ssim(rebuilt, original)
        if "lpips" in self.chosen_metrics:
            pair = [pixels.to(self.model.device).float() / 127.5 - 1 for pixels in (rebuilt, original)]
            columns["lpips"] = self.lpips(*pair).flatten().tolist()
        return [{name: values[row] for name, values in columns.items()} for row in range(len(original))]

    def caption(self, result: StoredResult) -> str:
        """Returns the first metric of a sample."""
        name, value = next(iter(result.metrics.items()))
        return f"{name} {value:.2f}"


def rebuild(
    tower: VilaUVisionTower, image_processor: BaseImageProcessor, images: Sequence[Image.Image]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Encodes and decodes images.

    Args:
        tower ([`VilaUVisionTower`]): the vision tower.
        image_processor (`BaseImageProcessor`): its image processor.
        images (`Sequence[PIL.Image.Image]` of length N): the images.

    Returns:
        The images as the tower sees them and their reconstructions, both uint8 of shape `(N, 3, S, S)`.
    """
    pixels = image_processor(list(images), return_tensors="pt")["pixel_values"]
    return to_uint8(pixels), reconstruct(tower, pixels)


def ssim(images: torch.Tensor, references: torch.Tensor) -> list[float]:
    """
    Computes the structural similarity of each image (Wang et al., 2004), by torchmetrics.

    Args:
        images (`torch.Tensor` of shape `(N, 3, S, S)`): images, uint8.
        references (`torch.Tensor` of shape `(N, 3, S, S)`): the images that they are compared with, uint8.

    Raises:
        ImportError: if torchmetrics is not installed.
    """
    require_package("torchmetrics", "SSIM")
    from torchmetrics.functional.image import structural_similarity_index_measure

    # The types of torchmetrics allow a tuple, which it returns only with further arguments.
    values: Any = structural_similarity_index_measure(
        images.float(), references.float(), data_range=255.0, reduction="none"
    )
    return values.flatten().tolist()


__all__ = ["LPIPS_NETWORK", "METRICS", "ReconstructionTask", "rebuild", "reconstruct", "ssim"]

"""Codes of images, their use of the codebook, and the quality of a reconstruction by its number of depths."""

import math
from dataclasses import dataclass

import torch

from ..modeling import VilaUResidualQuantizer, VilaUVisionTower
from .metrics import perplexity_of_counts, psnr
from .sheets import to_uint8


@dataclass(frozen=True)
class InspectedImage:
    r"""
    Codes of an image and what they keep of it.

    Args:
        codes (`torch.LongTensor` of shape `(h, w, D)`): its codes.
        original (`torch.Tensor` of shape `(3, S, S)`, uint8): the image as the tower sees it.
        reconstructions (`torch.Tensor` of shape `(D, 3, S', S')`, uint8): the image decoded from the first 1 to D
            codes of each visual token.
        psnr (`list[float]` of length D): peak signal-to-noise ratio of the reconstructions in dB. It is infinite for
            equal pixels, and empty if the pixel decoder gives images of another size.
    """

    codes: torch.Tensor
    original: torch.Tensor
    reconstructions: torch.Tensor
    psnr: list[float]

    @property
    def distinct_codes(self) -> list[int]:
        """Returns the number of distinct codes at each depth."""
        return [len(codes.unique()) for codes in self.codes.unbind(-1)]


@torch.no_grad()
def inspect_images(tower: VilaUVisionTower, pixels: torch.Tensor) -> list[InspectedImage]:
    """
    Encodes images, and decodes them from their codes of the first 1 to D depths.

    Args:
        tower ([`VilaUVisionTower`]): the vision tower.
        pixels (`torch.Tensor` of shape `(N, 3, S, S)`): images in [-1, 1].

    Returns:
        `list[InspectedImage]`: the results of the N images, on the CPU.
    """
    codes = tower.encode(pixels.to(tower.device)).codes  # (N, L, D)
    embeddings = tower.quantizer.code_embeddings(codes)  # (N, L, D, C)
    decoded = []
    # One depth at a time, because the decoder needs much more memory than the codes.
    for depth in range(1, codes.shape[-1] + 1):
        decoded.append(to_uint8(tower.decode(embeddings[:, :, :depth].sum(2))).cpu())
    reconstructions = torch.stack(decoded, 1)  # (N, D, 3, S', S')
    originals = to_uint8(pixels).cpu()
    grid = tower.config.grid_size
    results = []
    for original, rebuilt, image_codes in zip(originals, reconstructions, codes.cpu(), strict=True):
        is_same_size = rebuilt.shape[1:] == original.shape
        values = [psnr(each, original, data_range=255) for each in rebuilt] if is_same_size else []
        results.append(InspectedImage(image_codes.unflatten(0, (grid, grid)), original, rebuilt, values))
    return results


class CodeUse:
    """
    Counts how often each code occurs at each depth.

    Args:
        code_depth (`int`): number D of depths.
        codebook_size (`int`): number K of codes.
    """

    def __init__(self, code_depth: int, codebook_size: int) -> None:
        self.counts = torch.zeros(code_depth, codebook_size, dtype=torch.long)

    def add(self, codes: torch.Tensor) -> None:
        """
        Counts further codes.

        Args:
            codes (`torch.LongTensor` of shape `(..., D)`): the codes, on the CPU.
        """
        for counts, of_depth in zip(self.counts, codes.flatten(0, -2).unbind(-1), strict=True):
            counts += torch.bincount(of_depth, minlength=len(counts))

    def describe(self, is_shared: bool) -> list[dict[str, int | float | None]]:
        """
        Returns the use of the codes at each depth.

        Args:
            is_shared (`bool`): whether all depths share one codebook. Then a last row has the use by all depths.

        Returns:
            For each depth a dictionary with `depth`, which counts from 1 and is `None` for all depths. `codes` is the
            number of codes that occur, and `share` their share of the codebook. `perplexity` is that of their use.
        """
        rows: list[tuple[int | None, torch.Tensor]] = list(enumerate(self.counts, 1))
        if is_shared and len(rows) > 1:
            rows.append((None, self.counts.sum(0)))
        described: list[dict[str, int | float | None]] = []
        for depth, counts in rows:
            num_codes = int((counts > 0).sum())
            perplexity = perplexity_of_counts(counts).item() if num_codes else math.nan
            described.append(
                {"depth": depth, "codes": num_codes, "share": num_codes / len(counts), "perplexity": perplexity}
            )
        return described


@torch.no_grad()
def code_colors(quantizer: VilaUResidualQuantizer) -> torch.Tensor:
    """
    Returns a colour for each code, such that codes with similar embeddings have similar colours.

    Red, green and blue are the ranks of the embeddings along their first three principal components. Ranks spread the
    colours, while values would give nearly one colour to the many short embeddings of a shared codebook.

    Args:
        quantizer ([`VilaUResidualQuantizer`]): the quantizer.

    Returns:
        `torch.Tensor` of shape `(D, K, 3)`, uint8.
    """
    books = quantizer.codebook().float().cpu().unflatten(0, (quantizer.num_codebooks, -1))  # (books, K, C)
    colors = torch.stack([_colors_of_book(book) for book in books])
    return colors.expand(quantizer.code_depth, -1, -1)


def _colors_of_book(embeddings: torch.Tensor) -> torch.Tensor:
    """Returns colours `(K, 3)`, uint8, of the embeddings `(K, C)` of one codebook."""
    size, dimension = embeddings.shape
    centred = embeddings - embeddings.mean(0)
    # eigenvectors in ascending order of their eigenvalues
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(-1)  # (C, at most 3)
    # The sign of an eigenvector is arbitrary. Its largest entry becomes positive, so that colours do not change.
    largest = components.gather(0, components.abs().argmax(0, keepdim=True))
    positions = centred @ (components * largest.sign())
    ranks = positions.argsort(0).argsort(0)  # 0 to K - 1 in each column
    levels = (ranks * 255 / max(1, size - 1)).round().to(torch.uint8)
    missing = levels.new_full((size, 3 - min(3, dimension)), 128)
    return torch.cat([levels, missing], -1)


__all__ = ["CodeUse", "InspectedImage", "code_colors", "inspect_images"]

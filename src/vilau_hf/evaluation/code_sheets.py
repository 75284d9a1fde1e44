"""Sheets that show images beside their codes and their reconstructions."""

from collections.abc import Sequence

import torch
from PIL import Image

from .code_inspection import InspectedImage
from .sheets import contact_sheet, enlarge


def code_maps(codes: torch.Tensor, colors: torch.Tensor, side: int) -> list[Image.Image]:
    """
    Draws the codes of an image, one map for each depth. Equal codes have equal colours.

    Args:
        codes (`torch.LongTensor` of shape `(h, w, D)`): the codes.
        colors (`torch.Tensor` of shape `(D, K, 3)`, uint8): the colours of the codes, see [`code_colors`].
        side (`int`): side of a map in pixels.
    """
    pairs = zip(codes.unbind(-1), colors, strict=True)
    return [enlarge(of_depth[grid].permute(2, 0, 1), side) for grid, of_depth in pairs]


def inspection_sheet(
    images: Sequence[InspectedImage], names: Sequence[str], colors: torch.Tensor, side: int = 128
) -> Image.Image:
    """
    Draws two rows for each image: the image and its reconstructions, and the maps of its codes below.

    Args:
        images (`Sequence[InspectedImage]`): the images, at least one.
        names (`Sequence[str]`): the name of each image.
        colors (`torch.Tensor` of shape `(D, K, 3)`, uint8): the colours of the codes, see [`code_colors`].
        side (`int`, *optional*, defaults to 128): side of each image in pixels.
    """
    cells: list[Image.Image] = []
    captions: list[str] = []
    for image, name in zip(images, names, strict=True):
        cells.append(enlarge(image.original, side))
        captions.append(name)
        for number, pixels in enumerate(image.reconstructions, 1):
            cells.append(enlarge(pixels, side))
            quality = f": {image.psnr[number - 1]:.1f} dB" if image.psnr else ""
            captions.append(f"{number} codes{quality}" if number > 1 else f"1 code{quality}")
        cells.append(Image.new("RGB", (side, side), (255, 255, 255)))
        captions.append("")
        cells += code_maps(image.codes, colors, side)
        captions += [f"map {number}: {found} codes" for number, found in enumerate(image.distinct_codes, 1)]
    return contact_sheet(cells, captions, None, columns=1 + images[0].codes.shape[-1], gap=8)


__all__ = ["code_maps", "inspection_sheet"]

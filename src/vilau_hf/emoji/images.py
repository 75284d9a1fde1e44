"""Still images of the packages: SVG is rendered, WebP is opened, and all become RGBA images of one size."""

import io
import math
from collections.abc import Iterator

from PIL import Image, ImageOps

from .concepts import concept_key
from .packages import STYLES, PackageFiles


def read_images(style: str, files: PackageFiles, size: int) -> Iterator[tuple[str, Image.Image]]:
    """
    Yields the images of a style with the keys of their concepts.

    Args:
        style (`str`): one of `STYLES`.
        files (`PackageFiles`): the package of the style.
        size (`int`): side of the images in pixels.

    Raises:
        ImportError: if resvg-py, which renders SVG, is not installed.
    """
    if STYLES[style].name.startswith("@iconify-json/"):
        yield from _vector_images(files, size)
        return
    for path, content in files.read(".webp"):
        with Image.open(io.BytesIO(content)) as image:
            yield concept_key(path.rpartition("/")[2].removesuffix(".webp")), shrink(image, size)


def shrink(image: Image.Image, size: int) -> Image.Image:
    """Returns a square RGBA image of `size` pixels a side."""
    # Pillow multiplies colours by alpha before it filters, so transparent pixels do not darken the edge.
    return image.convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)


def move(image: Image.Image, scale: float, turn: float, right: float, down: float) -> Image.Image:
    """
    Returns an RGBA image whose content is scaled and turned around the center, then shifted.

    Args:
        image (`PIL.Image.Image`): a square RGBA image.
        scale (`float`): factor on the size of the content.
        turn (`float`): angle in radians, clockwise.
        right (`float`): shift to the right, as a share of the side.
        down (`float`): shift downwards, as a share of the side.
    """
    side = image.width
    middle = side / 2
    # Pillow asks for the map from the pixels of the result to those of the image.
    across = math.cos(turn) / scale
    up = math.sin(turn) / scale
    start = (middle + right * side, middle + down * side)
    matrix = (
        across,
        up,
        middle - across * start[0] - up * start[1],
        -up,
        across,
        middle + up * start[0] - across * start[1],
    )
    # "RGBa" has colours multiplied by alpha, so transparent pixels do not darken the edge.
    moved = image.convert("RGBa").transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return moved.convert("RGBA")


def _vector_images(files: PackageFiles, size: int) -> Iterator[tuple[str, Image.Image]]:
    """Yields the images of an icon set in the JSON form of Iconify."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ImportError("resvg-py renders the SVG images. Install it: pip install 'vilau_hf[emoji]'.") from error
    names, icons = files.read_json("chars.json", "icons.json")
    for code_points, name in names.items():
        icon, is_mirrored = _find_icon(icons, name)
        if icon is None:
            continue
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">'
        png = svg_to_bytes(svg_string=f"{svg}{icon['body']}</svg>", width=size, height=size)
        with Image.open(io.BytesIO(bytes(png))) as image:
            # resvg keeps the aspect ratio, and a few icons are not square.
            rgba = ImageOps.pad(image.convert("RGBA"), (size, size), color=(0, 0, 0, 0))
            yield concept_key(code_points), ImageOps.mirror(rgba) if is_mirrored else rgba


def _find_icon(icons: dict, name: str) -> tuple[dict | None, bool]:
    """Returns the icon that a name or an alias stands for, and whether it is mirrored from left to right."""
    is_mirrored = False
    while name in icons["aliases"]:
        alias = icons["aliases"][name]
        if alias.get("vFlip") or alias.get("rotate"):
            raise ValueError(f"The alias {name!r} has `vFlip` or `rotate`, only `hFlip` is supported.")
        is_mirrored ^= alias.get("hFlip", False)
        name = alias["parent"]
    return icons["icons"].get(name), is_mirrored


__all__ = ["move", "read_images", "shrink"]

"""
Pixels by naive rules, as independent oracles.

Each function computes with numpy and float64. None uses the package or the resizing and conversion of Pillow.
"""

import colorsys

import numpy as np

from .classification import Wrong


def levels(array: np.ndarray) -> np.ndarray | None:
    """Returns 8-bit levels as floats, or `None` for values that are not pixels."""
    values = array.astype(np.float64) if array.dtype.kind in "biuf" else None
    if values is None or array.size == 0 or not np.isfinite(values).all() or values.min() < 0:
        return None
    if array.dtype == bool:
        return values * 255
    if array.dtype == np.uint16:
        return np.rint(values / 257)
    if array.dtype.kind == "f":
        return None if values.max() > 1 else np.rint(array.astype(np.float32) * np.float32(255)).astype(np.float64)
    return None if values.max() > 255 or array.dtype == np.int8 else values


def rgb_of_mode(mode: str, array: np.ndarray, palette: list[int] | None = None) -> np.ndarray:
    """Returns RGB levels `(h, w, 3)` of the values of an image in a mode of Pillow."""
    values = array.astype(np.float64)
    if mode == "1":
        return np.repeat(values[..., None] * 255, 3, -1)
    if mode == "P":
        return np.array(palette, np.float64).reshape(-1, 3)[array]
    if mode in ("I;16", "I"):
        return np.repeat(np.rint(values / 257)[..., None], 3, -1)
    if mode == "F":
        return np.repeat(np.rint(array.astype(np.float32) * np.float32(255)).astype(float)[..., None], 3, -1)
    if mode in ("L", "LA"):
        return np.repeat((values if values.ndim == 2 else values[..., 0])[..., None], 3, -1)
    if mode in ("RGB", "RGBA", "RGBX"):
        return values[..., :3]
    if mode == "CMYK":
        return (255 - values[..., :3]) * (255 - values[..., 3:]) / 255
    if mode == "YCbCr":
        y, cb, cr = values[..., 0], values[..., 1] - 128, values[..., 2] - 128
        return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1), 0, 255)
    if mode == "HSV":
        pixels = [colorsys.hsv_to_rgb(*(value / 255)) for value in values.reshape(-1, 3)]
        return np.array(pixels).reshape(values.shape) * 255
    raise KeyError(mode)


def on_white(levels: np.ndarray) -> np.ndarray:
    """Returns levels `(h, w, 3)` of levels with or without opacity, in front of white."""
    opacity = levels[..., 3:] / 255 if levels.shape[-1] == 4 else 1
    return np.rint(levels[..., :3] * opacity + 255 * (1 - opacity))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Returns the bicubic kernel with a = -0.5."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def _weights(size: int, target: int) -> np.ndarray:
    """Returns the weights `(target, size)` with which one axis is resized."""
    scale = size / target
    width = max(scale, 1)
    centres = (np.arange(target) + 0.5) * scale
    distances = (np.arange(size) + 0.5 - centres[:, None]) / width
    weights = _cubic(distances)
    return weights / weights.sum(1, keepdims=True)


def _resize_axis(pixels: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Resizes levels along one axis and rounds them."""
    if pixels.shape[axis] == size:
        return pixels
    resized = np.tensordot(_weights(pixels.shape[axis], size), pixels, (1, axis))
    return np.clip(np.rint(np.moveaxis(resized, 0, axis)), 0, 255)


def resize(pixels: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """
    Resizes levels `(h, w, C)` with bicubic weights, which are wider if the image becomes smaller.

    Returns:
        Two results, since either axis can be the first, and levels are rounded between both.
    """
    across_first = _resize_axis(_resize_axis(pixels, 1, width), 0, height)
    down_first = _resize_axis(_resize_axis(pixels, 0, height), 1, width)
    return [across_first, down_first]


def crop_to_square(pixels: np.ndarray) -> np.ndarray:
    """Returns the square at the top, in the middle of the width."""
    side = min(pixels.shape[:2])
    left = (pixels.shape[1] - side) // 2
    return pixels[:side, left : left + side]


def pad_to_square(pixels: np.ndarray) -> np.ndarray:
    """Returns the image in the middle of a square of the level 127."""
    side = max(pixels.shape[:2])
    square = np.full((side, side, 3), 127.0)
    top = (side - pixels.shape[0]) // 2
    left = (side - pixels.shape[1]) // 2
    square[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return square


def check_pixels(actual: np.ndarray, expected: list[np.ndarray], tolerance: float) -> None:
    """
    Compares pixels `(3, h, w)` in [-1, 1] with levels `(h, w, 3)`.

    Args:
        actual (`np.ndarray`): the pixels.
        expected (`list[np.ndarray]`): levels, one of which is right.
        tolerance (`float`): largest difference in levels.
    """
    actual = np.asarray(actual, np.float64)
    wanted = [levels.transpose(2, 0, 1) / 127.5 - 1 for levels in expected]
    if actual.shape != wanted[0].shape:
        raise Wrong(f"pixels have shape {actual.shape}, not {wanted[0].shape}")
    if not np.isfinite(actual).all():
        raise Wrong("pixels are not finite")
    difference = min(np.abs(actual - each).max() for each in wanted) * 127.5
    if not difference <= tolerance:
        raise Wrong(
            f"a pixel differs by {difference:.1f} levels: mean {(actual.mean() + 1) * 127.5:.1f}, not "
            f"{expected[0].mean():.1f}"
        )

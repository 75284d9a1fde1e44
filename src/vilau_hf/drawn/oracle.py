"""The drawing oracle: reads by fixed rules what an image or a video of drawn shapes shows.

It finds the figure that differs from the background, then compares it with a template of each shape.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .shapes import BACKGROUNDS, COLORS, DIRECTIONS, PLACES, SHAPES, SIZES, shape_distance


# A shape counts as recognised if the intersection of its template and the figure is this share of their union,
_LEAST_OVERLAP = 0.75
# and if the squared difference per pixel of the figure is at most this, without the share that noise explains.
_MOST_ERROR = 0.1
_MOST_BORDER = 0.25  # share of the border that may differ from the background
_LEAST_TRAVEL = 0.1  # distance between the first and the last frame, as a share of the side
# The radius follows from the area of the figure. Blur and noise change that area, so radii around it are tried too.
_RADIUS_SCALES = (0.92, 1.0, 1.08)


@dataclass(frozen=True)
class Reading:
    """Attributes that the oracle reads from an image, `None` if unknown; `center` is in shares of the side."""

    color: str | None
    shape: str | None
    size: str | None
    place: str | None
    background: str | None
    center: tuple[float, float] | None


@dataclass(frozen=True)
class MotionReading:
    """Direction of the shape in a video, and the colour and shape that most of its frames show; `None` if unknown."""

    direction: str | None
    color: str | None
    shape: str | None


def _nearest(values: torch.Tensor, table: dict) -> torch.Tensor:
    """Returns the index `(N,)` of the entry of `table` that is nearest to each of `values` `(N, X)`."""
    return torch.cdist(values, torch.tensor(list(table.values()), dtype=torch.float32)).argmin(-1)


def _templates(radii: torch.Tensor, centers: torch.Tensor, shape: str, side: int) -> torch.Tensor:
    """Renders smoothed masks `(N, R, side, side)` of a shape of `radii` `(N, R)` at `centers` `(N, 2)`, in pixels."""
    grid = torch.arange(side) + 0.5
    x = (grid[None, :] - centers[:, :1])[:, None, None, :]
    y = (grid[None, :] - centers[:, 1:])[:, None, :, None]
    return _smooth((0.5 - shape_distance(shape, x, y, radii[..., None, None])).clamp(0, 1))


def _smooth(planes: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(planes, 3, stride=1, padding=1)


def _noise_power(pixels: torch.Tensor, heading: torch.Tensor) -> torch.Tensor:
    """Estimates the variance `(N,)` of smoothed noise in the colour direction `heading` `(N, 3)`."""
    direction = heading / heading.norm(dim=-1, keepdim=True).clamp(min=1)
    # Most neighbours have the same true colour, so the median of their differences comes from noise, not from edges.
    steps = ((pixels[..., 1:] - pixels[..., :-1]) * direction[..., None, None]).sum(1).abs().flatten(1)
    # The median of |x| is 0.6745 sigma. A difference has twice the variance, and `_smooth` averages 9 pixels.
    return (steps.median(-1).values / 0.6745).square() / 2 / 9


def _unit_area(shape: str) -> float:
    """Computes the area of a shape of radius 1."""
    grid = torch.linspace(-1.5, 1.5, 601)
    inside = shape_distance(shape, grid[None, :], grid[:, None], torch.tensor(1.0)) < 0
    return inside.float().mean().item() * 9


_UNIT_AREAS = {shape: _unit_area(shape) for shape in SHAPES}


@dataclass
class _Figure:
    """The region that differs from the background, in each of N images of `side` pixels."""

    side: int
    ground: torch.Tensor  # (N, 3), 0..255
    color: torch.Tensor  # (N, 3), 0..255
    mask: torch.Tensor  # (N, side, side), 1 inside
    cover: torch.Tensor  # (N, side, side), smoothed: 1 for the figure's colour, 0 for the background's
    area: torch.Tensor  # (N,), in pixels
    center: torch.Tensor  # (N, 2), as shares of the side
    framed: torch.Tensor  # (N,), whether the border has one colour
    visible: torch.Tensor  # (N,), whether there is a figure with a border around it
    noise: torch.Tensor  # (N,), variance of `cover`


def _find_figure(pixels: torch.Tensor) -> _Figure:
    """Finds the figure in images `(N, 3, S, S)` of values in 0..255."""
    side = pixels.shape[-1]
    border = torch.cat([pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1]], -1)
    ground = border.median(-1).values
    difference = _smooth(pixels - ground[..., None, None])  # (N, 3, S, S)
    contrast = difference.norm(dim=1)  # (N, S, S)
    # the colour comes from the pixels of strongest contrast, since edges mix it with the background
    core = contrast >= 0.85 * contrast.flatten(1).quantile(0.99, dim=-1)[:, None, None]
    color = (pixels * core[:, None]).sum((-1, -2)) / core.sum((-1, -2))[:, None]
    heading = color - ground
    strength = heading.norm(dim=-1).clamp(min=1)
    # not clamped, so that noise has no bias
    cover = (difference * heading[..., None, None]).sum(1) / strength.square()[:, None, None]

    # by contrast and not by `cover`, so that a second shape of another colour counts as well
    mask = (contrast > 0.5 * strength[:, None, None]).float()
    area = mask.sum((-1, -2))
    frame = torch.cat([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], -1).mean(-1)
    framed = frame < _MOST_BORDER
    grid = (torch.arange(side) + 0.5) / side
    weight = mask / area.clamp(min=1)[:, None, None]
    return _Figure(
        side=side,
        ground=ground,
        color=color,
        mask=mask,
        cover=cover,
        area=area,
        center=torch.stack([(weight * grid).sum((-1, -2)), (weight * grid[:, None]).sum((-1, -2))], -1),
        framed=framed,
        visible=(area > 0.015 * side**2) & (strength > 40) & framed,
        noise=_noise_power(pixels, heading) / strength**2,
    )


def _match_templates(figure: _Figure) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the index of the best shape, its radius as a share of the side, and whether it fits; all `(N,)`."""
    side = figure.side
    mask = figure.mask[:, None]
    errors = []
    overlaps = []
    radii = []
    for shape in SHAPES:
        radius = (figure.area / _UNIT_AREAS[shape]).sqrt()[:, None] * torch.tensor(_RADIUS_SCALES)  # (N, R)
        template = _templates(radius, figure.center * side, shape, side)
        inside = (template > 0.5).float()
        errors.append((template - figure.cover[:, None]).square().sum((-1, -2)))
        intersection = torch.minimum(inside, mask).sum((-1, -2))
        union = torch.maximum(inside, mask).sum((-1, -2))
        overlaps.append(intersection / union.clamp(min=1))
        radii.append(radius / side)
    error, index = torch.cat(errors, -1).min(-1)  # (N,), over shapes * R
    shapes = index // len(_RADIUS_SCALES)
    overlap = torch.stack(overlaps, 1).amax(-1).gather(-1, shapes[:, None])[:, 0]
    # the error that noise alone makes over the whole image, times three for safety
    allowed = _MOST_ERROR * figure.area + 3 * side**2 * figure.noise
    known = figure.visible & (overlap >= _LEAST_OVERLAP) & (error <= allowed)
    return shapes, torch.cat(radii, -1).gather(-1, index[:, None])[:, 0], known


def read_drawing(pixels: torch.Tensor) -> list[Reading]:
    """
    Reads the attributes of drawings from images.

    The background is read from the border and the colour from the pixels of strongest contrast. The shape is the one
    whose template of the same area and centre differs least, if it overlaps enough.

    Args:
        pixels (`torch.Tensor` of shape `(N, 3, S, S)`): images, uint8.

    Returns:
        `list[Reading]` of length N. Colour, shape, size and place are `None` if the image does not show exactly one
        known shape. The background is `None` if the border has more than one colour.

    Raises:
        ValueError: if `pixels` has another shape or dtype.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3] or pixels.dtype != torch.uint8:
        raise ValueError(f"`pixels` must be uint8 of shape (N, 3, S, S), got {pixels.dtype} {tuple(pixels.shape)}.")
    figure = _find_figure(pixels.float())
    shapes, radius, known = _match_templates(figure)
    backgrounds = _nearest(figure.ground, BACKGROUNDS)
    colors = _nearest(figure.color, COLORS)
    places = _nearest(figure.center, PLACES)
    sizes = (radius[:, None] - torch.tensor(list(SIZES.values()))).abs().argmin(-1)
    readings = []
    for n in range(len(pixels)):
        visible = bool(figure.visible[n])
        x, y = figure.center[n].tolist()
        readings.append(
            Reading(
                color=list(COLORS)[colors[n]] if visible else None,
                shape=SHAPES[shapes[n]] if known[n] else None,
                size=list(SIZES)[sizes[n]] if known[n] else None,
                place=list(PLACES)[places[n]] if known[n] else None,
                background=list(BACKGROUNDS)[backgrounds[n]] if figure.framed[n] else None,
                center=(x, y) if visible else None,
            )
        )
    return readings


def read_motion(frames: torch.Tensor) -> list[MotionReading]:
    """
    Reads the motion of the shape in each video.

    Args:
        frames (`torch.Tensor` of shape `(N, F, 3, S, S)`): frames of the videos, uint8.

    Raises:
        ValueError: if `frames` has another shape or dtype.
    """
    if frames.ndim != 5:
        raise ValueError(f"`frames` must have shape (N, F, 3, S, S), got {tuple(frames.shape)}.")
    results = []
    for video in frames:
        readings = read_drawing(video)
        first = readings[0].center
        last = readings[-1].center
        direction = None
        if first is not None and last is not None:
            travel = torch.tensor(last) - torch.tensor(first)
            if travel.abs().max() >= _LEAST_TRAVEL:
                headings = torch.tensor(list(DIRECTIONS.values()), dtype=torch.float32)
                direction = list(DIRECTIONS)[(headings @ travel).argmax()]
        results.append(
            MotionReading(direction, _majority(r.color for r in readings), _majority(r.shape for r in readings))
        )
    return results


def _majority(words: Iterable[str | None]) -> str | None:
    """Returns the word that more than half of `words` are equal to, if there is one."""
    every = list(words)
    return next((word for word in every if 2 * every.count(word) > len(every)), None)


__all__ = ["MotionReading", "Reading", "read_drawing", "read_motion"]

"""The drawing oracle: reads by rule what a picture or a video of drawn shapes shows."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .shapes import BACKGROUNDS, COLORS, DIRECTIONS, PLACES, SHAPES, SIZES, shape_distance


# a shape counts as recognised if its template and the picture overlap by this share
_LEAST_OVERLAP = 0.75
_MOST_ERROR = 0.1  # squared difference from the template a pixel of the shape, noise aside
_MOST_BORDER = 0.25  # share of the border that may differ from the background
_LEAST_TRAVEL = 0.1  # of the side, between the first and the last frame
_RADIUS_SCALES = (0.92, 1.0, 1.08)


@dataclass(frozen=True)
class Reading:
    """What the oracle reads off a picture; `None` where it cannot tell. `center` is in shares of the side."""

    color: str | None
    shape: str | None
    size: str | None
    place: str | None
    background: str | None
    center: tuple[float, float] | None


@dataclass(frozen=True)
class MotionReading:
    """What the oracle reads off a video: the motion, and what most frames agree on."""

    direction: str | None
    color: str | None
    shape: str | None


def _nearest(values: torch.Tensor, table: dict) -> torch.Tensor:
    return torch.cdist(values, torch.tensor(list(table.values()), dtype=torch.float32)).argmin(-1)


def _templates(radii: torch.Tensor, centers: torch.Tensor, shape: str, side: int) -> torch.Tensor:
    """Smoothed covers `(N, R, side, side)` of a shape of `radii` `(N, R)` at `centers` `(N, 2)`, all in pixels."""
    grid = torch.arange(side) + 0.5
    x = (grid[None, :] - centers[:, :1])[:, None, None, :]
    y = (grid[None, :] - centers[:, 1:])[:, None, :, None]
    return _smooth((0.5 - shape_distance(shape, x, y, radii[..., None, None])).clamp(0, 1))


def _smooth(planes: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(planes, 3, stride=1, padding=1)


def _noise_power(pixels: torch.Tensor, heading: torch.Tensor) -> torch.Tensor:
    """Variance `(N,)` of smoothed noise along the colour `heading` `(N, 3)`, from differences of neighbours."""
    direction = heading / heading.norm(dim=-1, keepdim=True).clamp(min=1)
    steps = ((pixels[..., 1:] - pixels[..., :-1]) * direction[..., None, None]).sum(1).abs().flatten(1)
    return (steps.median(-1).values / 0.6745).square() / 2 / 9  # median of |x| is 0.6745 sigma; 9 pixels are averaged


def _unit_area(shape: str) -> float:
    """Area of a shape of radius 1."""
    grid = torch.linspace(-1.5, 1.5, 601)
    inside = shape_distance(shape, grid[None, :], grid[:, None], torch.tensor(1.0)) < 0
    return inside.float().mean().item() * 9


_UNIT_AREAS = {shape: _unit_area(shape) for shape in SHAPES}


@dataclass
class _Figure:
    """What stands out from the background of N pictures of `side` pixels."""

    side: int
    ground: torch.Tensor  # (N, 3), 0..255
    color: torch.Tensor  # (N, 3), 0..255
    mask: torch.Tensor  # (N, side, side), 1 inside
    cover: torch.Tensor  # (N, side, side), smoothed: 1 has the figure's colour, 0 the background's
    area: torch.Tensor  # (N,), in pixels
    center: torch.Tensor  # (N, 2), as shares of the side
    framed: torch.Tensor  # (N,), the border has one colour
    visible: torch.Tensor  # (N,), there is a figure, with a border around it
    noise: torch.Tensor  # (N,), variance of `cover`


def _find_figure(pixels: torch.Tensor) -> _Figure:
    side = pixels.shape[-1]
    border = torch.cat([pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1]], -1)
    ground = border.median(-1).values
    difference = _smooth(pixels - ground[..., None, None])  # (N, 3, S, S)
    contrast = difference.norm(dim=1)  # (N, S, S)
    core = contrast >= 0.85 * contrast.flatten(1).quantile(0.99, dim=-1)[:, None, None]
    color = (pixels * core[:, None]).sum((-1, -2)) / core.sum((-1, -2))[:, None]
    heading = color - ground
    strength = heading.norm(dim=-1).clamp(min=1)
    # not clamped: noise stays without bias
    cover = (difference * heading[..., None, None]).sum(1) / strength.square()[:, None, None]

    mask = (contrast > 0.5 * strength[:, None, None]).float()  # by contrast: a second shape counts in any colour
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
    """Index of the shape that differs least, its radius as a share of the side, and whether it fits; all `(N,)`."""
    side, mask, errors, overlaps, radii = figure.side, figure.mask[:, None], [], [], []
    for shape in SHAPES:
        radius = (figure.area / _UNIT_AREAS[shape]).sqrt()[:, None] * torch.tensor(_RADIUS_SCALES)  # (N, R)
        template = _templates(radius, figure.center * side, shape, side)
        inside = (template > 0.5).float()
        errors.append((template - figure.cover[:, None]).square().sum((-1, -2)))
        both, either = torch.minimum(inside, mask), torch.maximum(inside, mask)
        overlaps.append(both.sum((-1, -2)) / either.sum((-1, -2)).clamp(min=1))
        radii.append(radius / side)
    error, index = torch.cat(errors, -1).min(-1)  # (N,), of shapes * R
    shapes = index // len(_RADIUS_SCALES)
    overlap = torch.stack(overlaps, 1).amax(-1).gather(-1, shapes[:, None])[:, 0]
    allowed = _MOST_ERROR * figure.area + 3 * side**2 * figure.noise
    known = figure.visible & (overlap >= _LEAST_OVERLAP) & (error <= allowed)
    return shapes, torch.cat(radii, -1).gather(-1, index[:, None])[:, 0], known


def read_drawing(pixels: torch.Tensor) -> list[Reading]:
    """
    Reads drawings by rule: background from the border, the shape's colour from its core, the shape from the
    template of the same area and centroid that differs least, if it overlaps enough.

    Args:
        pixels (`torch.Tensor` of shape `(N, 3, S, S)`): uint8.

    Returns:
        One [`Reading`] a picture. Colour, shape, size and place are `None` where no single known shape stands out, the
        background also where the border is not of one colour.

    Raises:
        ValueError: for another shape or dtype.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3] or pixels.dtype != torch.uint8:
        raise ValueError(f"`pixels` must be uint8 of shape (N, 3, S, S), got {pixels.dtype} {tuple(pixels.shape)}.")
    figure = _find_figure(pixels.float())
    shapes, radius, known = _match_templates(figure)
    backgrounds, colors = _nearest(figure.ground, BACKGROUNDS), _nearest(figure.color, COLORS)
    places = _nearest(figure.center, PLACES)
    sizes = (radius[:, None] - torch.tensor(list(SIZES.values()))).abs().argmin(-1)
    readings = []
    for n in range(len(pixels)):
        visible = bool(figure.visible[n])
        readings.append(
            Reading(
                color=list(COLORS)[colors[n]] if visible else None,
                shape=SHAPES[shapes[n]] if known[n] else None,
                size=list(SIZES)[sizes[n]] if known[n] else None,
                place=list(PLACES)[places[n]] if known[n] else None,
                background=list(BACKGROUNDS)[backgrounds[n]] if figure.framed[n] else None,
                center=tuple(figure.center[n].tolist()) if visible else None,
            )
        )
    return readings


def read_motion(frames: torch.Tensor) -> list[MotionReading]:
    """
    Reads the motion of the shape in each video.

    Args:
        frames (`torch.Tensor` of shape `(N, F, 3, S, S)`): uint8.
    """
    if frames.ndim != 5:
        raise ValueError(f"`frames` must have shape (N, F, 3, S, S), got {tuple(frames.shape)}.")
    results = []
    for video in frames:
        readings = read_drawing(video)
        first, last = readings[0].center, readings[-1].center
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


def _majority(words) -> str | None:
    """The word that more than half of `words` are."""
    words = list(words)
    return next((word for word in words if 2 * words.count(word) > len(words)), None)


__all__ = ["MotionReading", "Reading", "read_drawing", "read_motion"]

import itertools

import pytest
import torch

from vilau_hf.drawn.oracle import read_drawing, read_motion
from vilau_hf.drawn.shapes import BACKGROUNDS, COLORS, Drawing, animate, draw, drawings, motions


@pytest.mark.parametrize("side", [32, 48, 64])
def test_oracle_reads_true_drawings(side):
    targets = drawings("train") + drawings("test")
    readings = read_drawing(draw(targets, side, torch.Generator().manual_seed(7)))
    for name in ("color", "shape", "size", "place", "background"):
        right = sum(getattr(a, name) == getattr(b, name) for a, b in zip(readings, targets, strict=True))
        assert right >= 0.99 * len(targets), name


@pytest.mark.parametrize("side", [32, 48])
def test_oracle_reads_drawings_under_noise(side):
    targets = drawings("train") + drawings("test")
    generator = torch.Generator().manual_seed(7)
    pixels = draw(targets, side, generator).float()
    noisy = pixels + 0.15 * 255 * torch.randn(pixels.shape, generator=generator)
    readings = read_drawing(noisy.clamp(0, 255).round().to(torch.uint8))
    for name in ("color", "shape", "size", "place", "background"):
        right = sum(getattr(a, name) == getattr(b, name) for a, b in zip(readings, targets, strict=True))
        assert right >= 0.99 * len(targets), name


def test_oracle_reads_nothing_from_an_image_of_two_halves():
    for color in COLORS.values():
        for background in BACKGROUNDS.values():
            half = torch.tensor(background, dtype=torch.uint8)[:, None, None].repeat(1, 32, 32)
            half[:, :, 16:] = torch.tensor(color, dtype=torch.uint8)[:, None, None]
            reading = read_drawing(half[None])[0]
            assert (reading.color, reading.shape, reading.background) == (None, None, None)


def test_oracle_reads_no_shape_from_a_blur():
    grid = torch.arange(32) - 15.5
    cover = torch.exp(-(grid.square() + grid[:, None].square()) / 2 / 6**2)  # (32, 32)
    for color in COLORS.values():
        for background in BACKGROUNDS.values():
            near = torch.tensor(color)[:, None, None]
            far = torch.tensor(background)[:, None, None]
            assert read_drawing((far + (near - far) * cover).to(torch.uint8)[None])[0].shape is None


def test_oracle_reads_no_shape_from_two_shapes_of_different_colors():
    for first, second in itertools.permutations(COLORS, 2):
        image = draw([Drawing(first, "circle", "small", "left", "gray")])
        other = draw([Drawing(second, "square", "small", "right", "gray")])
        image = torch.where((other != 128).any(1, keepdim=True), other, image)
        assert read_drawing(image)[0].shape is None, (first, second)


def test_oracle_reads_true_motions():
    targets = motions("train")
    readings = read_motion(animate(targets, 4, 32, torch.Generator().manual_seed(7)))
    for name in ("direction", "color", "shape"):
        right = sum(getattr(a, name) == getattr(b, name) for a, b in zip(readings, targets, strict=True))
        assert right >= 0.99 * len(targets), name


def test_oracle_reads_no_shape_if_there_is_none_or_more_than_one():
    blank = torch.full((3, 32, 32), 250, dtype=torch.uint8)
    half = blank.clone()
    half[:, :, 16:] = 40
    left, right = draw([d for d in drawings("train") if d.size == "small" and d.background == "white"][:2])
    two = blank.clone()
    two[:, 3:11, 3:11] = two[:, 20:28, 20:28] = torch.tensor([220, 40, 40], dtype=torch.uint8)[:, None, None]
    noise = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    for image in (blank, half, two, noise):
        assert read_drawing(image[None])[0].shape is None
    assert read_drawing(blank[None])[0].color is None
    assert read_drawing(left[None])[0].shape is not None and read_drawing(right[None])[0].shape is not None


def test_a_shape_that_does_not_move_has_no_direction():
    frame = draw(drawings("train")[:1])
    assert read_motion(frame[None].expand(1, 4, -1, -1, -1))[0].direction is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read_drawing(torch.zeros(1, 3, 32, 32)), "`pixels` must be uint8 of shape"),
        (lambda: read_motion(torch.zeros(3, 32, 32)), r"`frames` must have shape \(N, F, 3, S, S\)"),
    ],
)
def test_rejects_inputs_of_other_shapes_or_dtypes(call, message):
    with pytest.raises(ValueError, match=message):
        call()

import pytest
import torch

from vilau_hf.drawn.shapes import COLORS, SHAPES, animate, draw, drawings, motions


def test_there_are_720_captions_and_576_motion_captions():
    assert len({drawing.caption for split in ("train", "test") for drawing in drawings(split)}) == 720
    assert len({motion.caption for split in ("train", "test") for motion in motions(split)}) == 576


@pytest.mark.parametrize(("items", "last", "held_out"), [(drawings, "place", 12), (motions, "direction", 10)])
def test_test_split_has_combinations_that_training_lacks(items, last, held_out):
    seen = {(item.color, item.shape, getattr(item, last)) for item in items("train")}
    unseen = {(item.color, item.shape, getattr(item, last)) for item in items("test")}
    assert len(unseen) == held_out and not seen & unseen
    for color in COLORS:
        for shape in SHAPES:
            assert len({entry for entry in seen if entry[:2] == (color, shape)}) >= len({e[2] for e in seen}) - 1
    assert {entry[1] for entry in unseen} == set(SHAPES)
    assert {entry[2] for entry in unseen} == {entry[2] for entry in seen}


def test_images_have_the_exact_colors_and_shapes_move():
    target = next(d for d in drawings("train") if (d.size, d.place, d.background) == ("large", "center", "black"))
    image = draw([target], image_size=48)[0]
    assert tuple(image[:, 24, 24].tolist()) == COLORS[target.color]
    assert tuple(image[:, 0, 0].tolist()) == (10, 10, 10)
    motion = next(m for m in motions("train") if m.direction == "left" and m.background == "black")
    video = animate([motion], num_frames=4)[0].float()
    columns = torch.arange(32.0)
    centers = [((frame - 10).abs().sum((0, 1)) * columns).sum() / (frame - 10).abs().sum() for frame in video]
    assert all(later < earlier - 1 for earlier, later in zip(centers, centers[1:], strict=False))

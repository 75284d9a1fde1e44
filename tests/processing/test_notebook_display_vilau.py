"""Lists of images, frames and answers show themselves in notebooks."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from vilau_hf.modeling.outputs_vilau import VilaUGenerateOutput, VisualSpan
from vilau_hf.processing.image_functions_vilau import pixels_to_images
from vilau_hf.processing.notebook_display_vilau import VilaUAnswer, VilaUFrames, VilaUMediaList


def pixels(count, side=20):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def shown(result):
    """The images of the HTML of `result`, each as a list of frames, with their labels and widths."""
    (kind, page), *others = result._repr_mimebundle_().items()
    assert kind == "text/html" and not others
    found = []
    for label, width, data in re.findall(
        r'<img alt="([^"]*)" width="(\d+)"[^>]*src="data:image/\w+;base64,([^"]*)">', page
    ):
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        found.append((label, int(width), [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]))
    return found


def test_shows_images_side_by_side_without_loss():
    images = pixels_to_images(pixels(2))
    found = shown(images)
    assert [label for label, _, _ in found] == ["image, 1 of 2", "image, 2 of 2"]
    assert [width for _, width, _ in found] == [140, 140]  # the least multiple of 20 that is not below 128
    for image, (_, _, frames) in zip(images, found, strict=True):
        assert len(frames) == 1 and np.array_equal(frames[0], np.array(image))


def test_shows_the_first_images_of_a_large_list():
    images = pixels_to_images(pixels(66, side=4))
    assert len(shown(images)) == 64 and "and 2 more" in images._repr_mimebundle_()["text/html"]


def test_large_images_keep_their_size():
    ((_, width, _),) = shown(pixels_to_images(pixels(1, side=200)))
    assert width == 200 and "pixelated" not in pixels_to_images(pixels(1, side=200))._repr_mimebundle_()["text/html"]


def test_plays_frames_in_their_order():
    frames = VilaUFrames(pixels_to_images(pixels(3)))
    ((label, _, found),) = shown(frames)
    assert label == "video of 3 frames"
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(found, frames, strict=True))
    assert [label for label, _, _ in shown(VilaUMediaList([frames, frames]))] == [
        "video of 3 frames, 1 of 2",
        "video of 3 frames, 2 of 2",
    ]


def test_shows_the_parts_of_an_answer_in_order():
    image = pixels_to_images(pixels(1))[0]
    parts = [{"type": "text", "text": "a < b"}, {"type": "image", "image": image}, {"type": "video", "video": None}]
    page = VilaUAnswer(parts)._repr_mimebundle_()["text/html"]
    assert page.index("a &lt; b") < page.index("<img ") < page.index("video that was cut off")


@pytest.mark.parametrize(
    "result",
    [VilaUMediaList(), VilaUMediaList([1]), VilaUMediaList([[]]), VilaUFrames(), VilaUFrames(["a"]), VilaUAnswer()],
)
def test_lists_of_something_else_are_shown_as_text(result):
    assert result._repr_mimebundle_() == {}


def test_lists_are_lists():
    images = pixels_to_images(pixels(2))
    assert isinstance(images, list) and images == list(images) and repr(images) == repr(list(images))


@pytest.mark.parametrize("kind", ["image", "video"])
def test_spans_show_the_images_of_the_processor(kind):
    decoded = pixels(3) if kind == "video" else pixels(1)
    images = pixels_to_images(decoded)
    expected = shown(VilaUFrames(images) if kind == "video" else images)
    span = VisualSpan(kind, 0, pixels=decoded if kind == "video" else decoded[0])
    ((label, width, frames),) = shown(span)
    assert label == kind and width == expected[0][1]
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected[0][2], strict=True))


def test_spans_without_pixels_are_shown_as_text():
    span = VisualSpan("image", 0)
    assert span._repr_mimebundle_() == {}
    assert VilaUGenerateOutput(spans=[[span], []])._repr_mimebundle_() == {}
    assert VilaUGenerateOutput()._repr_mimebundle_() == {}


def test_output_shows_the_spans_of_each_row():
    rows = [[VisualSpan("image", 0, pixels=one) for one in pixels(count)] for count in (2, 1)]
    output = VilaUGenerateOutput(spans=[[*rows[0], VisualSpan("image", 9)], rows[1]])
    assert len(shown(output)) == 3
    assert output._repr_mimebundle_()["text/html"].count("<div>") == 2

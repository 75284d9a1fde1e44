import json
import sys

import numpy as np
import pytest
from PIL import Image

from vilau_hf.emoji.images import move, read_images, shrink
from vilau_hf.emoji.packages import STYLES, PackageFiles


ICONS = {
    "width": 10,
    "height": 10,
    "icons": {
        "left": {"body": '<path fill="#f00" d="M0 0h5v10H0z"/>'},
        "wide": {"body": '<path fill="#00f" d="M0 0h20v10H0z"/>', "width": 20},
    },
    "aliases": {"right": {"parent": "left", "hFlip": True}, "left-again": {"parent": "right", "hFlip": True}},
}


@pytest.fixture
def read_icons(tmp_path):
    """Returns a function that reads the icons of a package made of `chars.json`, by key."""
    pytest.importorskip("resvg_py", reason="needs the extra `emoji`")

    def read(chars, icons=ICONS, size=8):
        package = STYLES["noto"]
        for name, content in (
            ("package.json", {"name": package.name, "version": package.version}),
            ("chars.json", chars),
            ("icons.json", icons),
        ):
            (tmp_path / name).write_text(json.dumps(content))
        images = read_images("noto", PackageFiles(package, tmp_path), size)
        return {key: np.array(image) for key, image in images}

    return read


def test_alias_is_mirrored_once_for_each_flip(read_icons):
    images = read_icons({"1": "left", "2-fe0f": "right", "3": "left-again", "4": "no-such-icon"})
    assert set(images) == {"1", "2", "3"}
    assert images["1"].shape == (8, 8, 4)
    assert (images["1"][:, :4] == (255, 0, 0, 255)).all() and not images["1"][:, 4:, 3].any()
    assert (images["2"] == images["1"][:, ::-1]).all()
    assert (images["3"] == images["1"]).all()


def test_icon_that_is_not_square_keeps_its_shape(read_icons):
    alpha = read_icons({"1": "wide"})["1"][..., 3]
    assert (alpha[2:6] == 255).all() and not alpha[:2].any() and not alpha[6:].any()


def test_alias_that_turns_an_icon_is_refused(read_icons):
    with pytest.raises(ValueError, match="'down' has `vFlip` or `rotate`"):
        read_icons({"1": "down"}, {**ICONS, "aliases": {"down": {"parent": "left", "vFlip": True}}})


def test_missing_renderer_is_named(read_icons, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ImportError, match=r"pip install 'vilau_hf\[emoji\]'"):
        read_icons({"1": "left"})


def test_files_of_the_3d_style_have_the_asked_size(packages):
    images = dict(read_images("3d", PackageFiles(STYLES["3d"], packages / "lobehub-fluent-emoji-3d"), 16))
    assert len(images) == 26 and "2764" in images  # the file is 2764-fe0f.webp
    assert {(image.size, image.mode) for image in images.values()} == {((16, 16), "RGBA")}
    red, green, blue, alpha = np.array(images["2764"])[8, 8]
    assert alpha == 255 and red > 150 > max(green, blue)


def test_edge_keeps_its_color_when_it_shrinks():
    # Left half opaque white, right half transparent black: the edge must be white of less alpha, not gray.
    rgba = np.zeros((12, 12, 4), np.uint8)
    rgba[:, :5] = 255
    pixels = np.array(shrink(Image.fromarray(rgba), 4))
    edge = pixels[:, 1]
    assert ((edge[:, 3] > 40) & (edge[:, 3] < 250)).all()
    assert (edge[:, :3] > 240).all()


def test_move_scales_and_turns_around_the_center_then_shifts():
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[18:22, 26:30] = (200, 0, 0, 255)  # a square to the right of the center
    image = Image.fromarray(rgba)

    def center(moved):
        alpha = np.array(moved)[..., 3].astype(float)
        rows, columns = np.indices(alpha.shape) + 0.5
        return [(rows * alpha).sum() / alpha.sum(), (columns * alpha).sum() / alpha.sum()], alpha.sum() / 255

    still, area = center(move(image, scale=1, turn=0, right=0, down=0))
    np.testing.assert_allclose(still, [20, 28], atol=0.01)
    np.testing.assert_allclose(area, 16, rtol=0.01)
    moved, area = center(move(image, scale=0.5, turn=np.pi / 2, right=0.1, down=0.25))
    # half as far from the center, now below it, then 4 pixels to the right and 10 down
    np.testing.assert_allclose(moved, [20 + 4 + 10, 20 + 4], atol=0.1)
    np.testing.assert_allclose(area, 4, rtol=0.15)


def test_move_keeps_the_colour_of_the_edge():
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[4:12, 4:12] = (240, 240, 240, 255)
    moved = np.array(move(Image.fromarray(rgba), scale=0.9, turn=0.3, right=0.02, down=0))
    is_edge = (moved[..., 3] > 40) & (moved[..., 3] < 215)
    assert is_edge.any() and moved[is_edge][:, :3].min() >= 230

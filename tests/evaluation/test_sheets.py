import torch
from PIL import Image

from vilau_hf.evaluation.sheets import RIGHT, WRONG, beside, contact_sheet, enlarge, save_animation, to_pil, to_uint8


def plain(color, size=(40, 40)):
    return Image.new("RGB", size, color)


def test_pixels_are_scaled_to_bytes_and_clamped():
    assert to_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_images_keep_rows_and_channels():
    pixels = torch.arange(3 * 2 * 4, dtype=torch.uint8).view(3, 2, 4)
    image = to_pil(pixels)
    assert image.size == (4, 2)
    assert image.getpixel((3, 1)) == tuple(pixels[:, 1, 3].tolist())


def test_enlarged_pixels_stay_sharp():
    pixels = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).expand(3, 2, 2)
    image = enlarge(pixels, 10)
    assert image.size == (10, 10)
    assert sorted(set(image.convert("L").tobytes())) == [0, 255]


def test_a_sheet_frames_right_and_wrong_images():
    sheet = contact_sheet([plain("blue")] * 3, ["a", "b", "c"], [True, False, True], columns=2, gap=16)
    assert sheet.width == 2 * (40 + 16) + 16
    frames = [sheet.getpixel((16 + column * 56 - 2, 16 + 20)) for column in range(2)]
    assert frames == [RIGHT, WRONG]
    assert sheet.getpixel((16 + 20, 16 + 20)) == (0, 0, 255)


def test_a_sheet_without_results_has_no_frames():
    sheet = contact_sheet([plain("blue")], ["a"], None, columns=1)
    assert not {RIGHT, WRONG} & {color for _, color in sheet.getcolors(sheet.width * sheet.height)}


def test_images_are_joined_with_a_gap():
    joined = beside(plain("red"), plain("blue", (30, 40)), gap=4)
    assert joined.size == (74, 40)
    assert [joined.getpixel((x, 20)) for x in (39, 41, 44)] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


def test_a_gif_repeats_all_frames(tmp_path):
    save_animation([plain("red"), plain("green"), plain("blue")], tmp_path / "a.gif", milliseconds=200)
    saved = Image.open(tmp_path / "a.gif")
    assert (saved.n_frames, saved.info["duration"], saved.info["loop"]) == (3, 200, 0)

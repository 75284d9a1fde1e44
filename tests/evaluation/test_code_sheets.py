"""Sheets of images, reconstructions and maps of codes."""

import numpy as np
import torch

from vilau_hf.evaluation.code_inspection import InspectedImage
from vilau_hf.evaluation.code_sheets import code_maps, inspection_sheet


CODES = torch.tensor([[[0, 1], [1, 1]], [[2, 1], [0, 2]]])  # (h, w, D)
COLORS = torch.tensor([[[10, 0, 0], [20, 0, 0], [30, 0, 0]], [[0, 10, 0], [0, 20, 0], [0, 30, 0]]]).byte()


def test_a_map_has_the_colours_of_the_codes():
    first, second = code_maps(CODES, COLORS, 4)
    assert np.array_equal(np.array(first)[::2, ::2, 0], [[10, 20], [30, 10]])
    assert np.array_equal(np.array(second)[::2, ::2, 1], [[20, 20], [20, 30]])
    assert first.size == (4, 4)


def test_a_sheet_has_two_rows_for_each_image():
    grey = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    image = InspectedImage(CODES, grey[0], grey, [12.34, 56.7])
    sheets = [inspection_sheet([image] * count, ["a.png"] * count, COLORS, side=64) for count in (1, 2)]
    assert sheets[0].width == sheets[1].width == 8 + 3 * (64 + 8)
    assert sheets[1].height - 8 == 2 * (sheets[0].height - 8)
    assert sheets[0].getpixel((40, 40)) == (128, 128, 128)
    lower = np.array(sheets[0])[sheets[0].height // 2 :]
    assert {(10, 0, 0), (0, 20, 0)} <= set(map(tuple, lower.reshape(-1, 3).tolist()))


def test_a_sheet_without_psnr_is_drawn():
    grey = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    assert inspection_sheet([InspectedImage(CODES, grey[0], grey, [])], ["a"], COLORS).width > 3 * 128

"""Codes of images, their reconstructions by number of depths, and the use of the codebook."""

import math

import pytest
import torch

from vilau_hf import VilaUVisionTower
from vilau_hf.evaluation import codebook_perplexity, codebook_usage, psnr, to_uint8
from vilau_hf.evaluation.code_inspection import CodeUse, code_colors, inspect_images


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_decodes_the_sum_of_the_first_embeddings(tower, pixels):
    results = inspect_images(tower, pixels)
    codes = tower.encode(pixels).codes
    book = tower.quantizer.codebook.weight
    for index, result in enumerate(results):
        assert torch.equal(result.codes.flatten(0, 1), codes[index]) and result.codes.shape == (4, 4, 3)
        assert torch.equal(result.original, to_uint8(pixels[index]))
        for depth in (1, 2, 3):
            features = sum(book[codes[index, :, each]] for each in range(depth))
            expected = to_uint8(tower.decode(features[None]))[0]
            difference = result.reconstructions[depth - 1].int() - expected.int()
            assert difference.abs().max() <= 1  # another batch size rounds otherwise
            quality = psnr(result.reconstructions[depth - 1], result.original, data_range=255)
            assert result.psnr[depth - 1] == quality
        assert result.distinct_codes == [len(set(each.tolist())) for each in codes[index].T]


def test_has_no_psnr_for_a_decoder_of_another_size(vision_config, pixels):
    vision_config.decoder_latent_size = 8
    (result, *_) = inspect_images(VilaUVisionTower(vision_config).eval(), pixels)
    assert result.psnr == [] and result.reconstructions.shape == (3, 3, 32, 32)


def test_counts_the_use_of_codes_over_all_images():
    codes = torch.randint(0, 24, (5, 4, 4, 3), generator=torch.Generator().manual_seed(0))
    codes[..., 0] = 7
    use = CodeUse(3, 24)
    for image_codes in codes:
        use.add(image_codes)
    rows = use.describe(is_shared=True)
    assert [row["depth"] for row in rows] == [1, 2, 3, None]
    for row, of_depth in zip(rows, [*codes.unbind(-1), codes], strict=True):
        assert row["codes"] == len(of_depth.unique())
        assert row["share"] == pytest.approx(codebook_usage(of_depth, 24))
        assert row["perplexity"] == pytest.approx(codebook_perplexity(of_depth, 24))
    assert rows[0] == {"depth": 1, "codes": 1, "share": 1 / 24, "perplexity": 1.0}
    assert use.describe(is_shared=False) == rows[:3]
    assert math.isnan(CodeUse(1, 4).describe(is_shared=True)[0]["perplexity"])


@pytest.mark.parametrize("shared", [True, False])
def test_codes_with_similar_embeddings_have_similar_colours(vision_config, shared):
    vision_config.shared_codebook = shared
    quantizer = VilaUVisionTower(vision_config).quantizer
    with torch.no_grad():
        quantizer.codebook.weight[1] = quantizer.codebook.weight[0] + 1e-4
    colors = code_colors(quantizer).int()
    assert colors.shape == (3, 24, 3)
    assert (colors[0, 0] - colors[0, 1]).abs().max() <= 255 // 23 + 1  # neighbours in each rank
    assert {tuple(channel.sort().values.tolist()) for channel in colors[0].T} == {
        tuple(round(rank * 255 / 23) for rank in range(24))
    }
    assert torch.equal(colors[0], colors[1]) == shared
    assert torch.equal(code_colors(quantizer).int(), colors)


def test_colours_exist_for_embeddings_of_few_dimensions(vision_config):
    quantizer = VilaUVisionTower(vision_config).quantizer
    quantizer.codebook.weight.data = quantizer.codebook.weight.data[:, :2].clone()
    assert (code_colors(quantizer)[..., 2] == 128).all()

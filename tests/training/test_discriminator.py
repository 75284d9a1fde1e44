import pytest
import torch

from vilau_hf.training.discriminator import PatchDiscriminator


def test_patch_of_three_layers_has_70x70_pixels():
    """The size that Isola et al. (2017) report."""
    discriminator = PatchDiscriminator(channels=2).eval()
    pixels = torch.randn(1, 3, 128, 128, requires_grad=True)
    scores = discriminator(pixels)
    assert scores.shape == (1, 1, 14, 14)
    scores[0, 0, 7, 7].backward()
    seen = pixels.grad.abs().sum((0, 1)).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


def test_channels_double_up_to_eight_times_the_first():
    discriminator = PatchDiscriminator(channels=4, num_layers=5)
    widths = [layer.out_channels for layer in discriminator.layers if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [4, 8, 16, 32, 32, 32, 1]


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_smallest_image_is_one_patch_and_a_smaller_one_is_rejected(num_layers):
    discriminator = PatchDiscriminator(2, num_layers).eval()
    side = discriminator.smallest_image
    assert discriminator(torch.zeros(1, 3, side, side)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=rf"at least {side} pixels a side .* `num_layers` {num_layers}"):
        discriminator(torch.zeros(1, 3, side, side - 1))


def test_rejects_zero_layers():
    with pytest.raises(ValueError, match="`num_layers` must be an integer of at least 1, got 0"):
        PatchDiscriminator(num_layers=0)

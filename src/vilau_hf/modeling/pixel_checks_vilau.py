# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The check of pixels that are given to a model directly."""

import torch

from .compat_modeling_vilau import is_tracing


# Values of images are in [-1, 1]. Resizing of floats overshoots at edges, and the mean and deviation of CLIP give up
# to 2.7, so this limit is wider. It refuses pixels that are not normalised, which reach 255.
LARGEST_PIXEL = 4.0


def check_pixel_range(pixel_values: torch.Tensor, name: str = "pixel_values") -> None:
    """
    Raises a `ValueError` unless pixels are floats that an image processor can have normalised.

    Args:
        pixel_values (`torch.Tensor`): pixels of any shape, not empty.
        name (`str`, *optional*, defaults to `"pixel_values"`): the argument in the message.
    """
    if not pixel_values.is_floating_point():
        raise ValueError(f"`{name}` must be floats in [-1, 1], got {pixel_values.dtype}.")
    # A compiled graph must not wait for a value, and tensors of memory estimates have no values.
    if pixel_values.is_meta or is_tracing(pixel_values):
        return
    # One reduction and one transfer to the host. The result is NaN if a value is, and NaN compares as false.
    largest = pixel_values.detach().abs().amax().item()
    if not largest <= LARGEST_PIXEL:
        raise ValueError(
            f"`{name}` must be finite and in [-1, 1], got a value with magnitude {largest:g}. The image processor "
            "gives such pixels."
        )


__all__ = ["LARGEST_PIXEL", "check_pixel_range"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""What decides on the codes of an image: weights, sizes, and how its pixels are prepared."""

import hashlib
import json
from typing import Any

import torch


# of the image encoder's configuration; the rest of it does not reach the codes
ENCODER_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)
VISION_FIELDS = ("codebook_size", "code_depth", "shared_codebook")
PIXEL_FIELDS = (
    "do_convert_rgb",
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "resize_before_rgb",
    "crop_to_square",
    "pad_to_square",
)


def vision_tower_of(model: torch.nn.Module) -> torch.nn.Module:
    """
    The vision tower of a model, or the model if it is one.

    Raises:
        ValueError: if there is none.
    """
    for module in model.modules():
        if hasattr(module, "image_encoder") and hasattr(module, "quantizer"):
            return module
    raise ValueError(f"`model` must be or have a VILA-U vision tower, got {type(model).__name__}.")


def describe_tower(tower: torch.nn.Module, processor) -> dict[str, Any]:
    """
    Everything that the codes of an image depend on.

    Args:
        tower ([`VilaUVisionTower`]): its image encoder and codebook count; its pixel decoder does not.
        processor ([`VilaUProcessor`]): the settings of its image and video processors count, but not how many frames
            are taken of a video.

    Returns:
        `weights` (SHA-256), `config`, `images` and `videos` (settings by name), and the `fingerprint` of these.
    """
    config = tower.config
    description = {
        "weights": _hash_weights(tower),
        "config": {
            # a family of vision models may lack a field; its weights have other names
            **{
                name: getattr(config.encoder_config, name)
                for name in ENCODER_FIELDS
                if hasattr(config.encoder_config, name)
            },
            **{name: getattr(config, name) for name in VISION_FIELDS},
        },
        "images": _pixel_settings(processor.image_processor),
        "videos": _pixel_settings(processor.video_processor),
    }
    text = json.dumps(description, sort_keys=True)  # tuples and lists are the same here
    return {"fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16], **json.loads(text)}


def differences(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Which parts of two descriptions differ, and from what to what where that is short."""
    found = []
    for name in ("weights", "config", "images", "videos"):
        if name == "weights" and first[name] != second[name]:
            found.append("weights")
        elif name != "weights":
            fields = sorted(field for field in first[name] if first[name][field] != second[name].get(field))
            found += [f"`{name}.{field}` ({first[name][field]} and {second[name].get(field)})" for field in fields]
    return ", ".join(found)


def _hash_weights(tower: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    weights = {**tower.image_encoder.state_dict(), "codebook": tower.quantizer.codebook.weight}
    for name in sorted(weights):
        tensor = weights[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy())
    return digest.hexdigest()


def _pixel_settings(processor) -> dict[str, Any]:
    settings = processor.to_dict()
    return {name: settings.get(name) for name in PIXEL_FIELDS}

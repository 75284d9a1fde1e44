# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Describes everything that the codes of an image depend on: weights, sizes, and how its pixels are prepared."""

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypedDict, cast

import torch

from ..processing.image_functions_vilau import PIXEL_SETTINGS


if TYPE_CHECKING:
    from transformers import BaseImageProcessor, BaseVideoProcessor

    from ..modeling import VilaUVisionTower
    from ..processing import VilaUProcessor


# Fields of the image encoder's configuration that change the codes. Others, such as dropout or the attention
# implementation, do not.
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


class TowerDescription(TypedDict):
    """
    What the codes of an image depend on, as a code cache stores it.

    Args:
        fingerprint (`str`): hash of all other fields.
        weights (`str`): SHA-256 of the weights of image encoder and codebook.
        config (`dict`): sizes of image encoder and quantizer.
        images (`dict`): settings of the image processor.
        videos (`dict`): settings of the video processor.
    """

    fingerprint: str
    weights: str
    config: dict[str, Any]
    images: dict[str, Any]
    videos: dict[str, Any]


def vision_tower_of(model: torch.nn.Module) -> "VilaUVisionTower":
    """
    Returns the vision tower of a model, or the model if it is a vision tower.

    Args:
        model (`torch.nn.Module`): a [`VilaUVisionTower`] or a model that contains one.

    Raises:
        ValueError: if there is none.
    """
    for module in model.modules():
        if hasattr(module, "image_encoder") and hasattr(module, "quantizer"):
            # Not `isinstance`: the class of a checkpoint with its code is a copy of ours.
            return cast("VilaUVisionTower", module)
    raise ValueError(f"`model` must be or have a VILA-U vision tower, got {type(model).__name__}.")


def describe_tower(tower: "VilaUVisionTower", processor: "VilaUProcessor") -> TowerDescription:
    """
    Describes everything that the codes of an image depend on.

    Args:
        tower ([`VilaUVisionTower`]): its image encoder and its codebook are described. The pixel decoder does not
            change the codes.
        processor ([`VilaUProcessor`]): the settings of its image and video processors are described, except the number
            of frames of a video.

    Returns:
        [`TowerDescription`].
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
    # The fingerprint is computed from JSON, so that it does not depend on tuples or lists, or on the order of keys.
    text = json.dumps(description, sort_keys=True)
    plain = json.loads(text)
    return {
        "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
        "config": plain["config"],
        "images": plain["images"],
        "videos": plain["videos"],
        "weights": plain["weights"],
    }


def differences(first: TowerDescription, second: TowerDescription) -> str:
    """Returns the fields in which two descriptions differ, with both values of each setting."""
    found = []
    if first["weights"] != second["weights"]:
        found.append("weights")
    for name, one, other in (
        ("config", first["config"], second["config"]),
        ("images", first["images"], second["images"]),
        ("videos", first["videos"], second["videos"]),
    ):
        fields = sorted(field for field in {**one, **other} if one.get(field) != other.get(field))
        found += [f"`{name}.{field}` ({one.get(field)} and {other.get(field)})" for field in fields]
    return ", ".join(found)


def _hash_weights(tower: "VilaUVisionTower") -> str:
    """Returns the SHA-256 of the weights as float32, so that bfloat16 weights cast to float32 have the same hash."""
    digest = hashlib.sha256()
    weights = {**tower.image_encoder.state_dict(), "codebook": tower.quantizer.codebook.weight}
    # Sorted, because the order of a state dict depends on the order in which modules were created.
    for name in sorted(weights):
        tensor = weights[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy())
    return digest.hexdigest()


def _pixel_settings(processor: "BaseImageProcessor | BaseVideoProcessor") -> dict[str, Any]:
    settings = processor.to_dict()
    on_pixels = {name: settings.get(name) for name in PIXEL_SETTINGS}
    # The default is left out, so that folders from before this setting, whose images are upright, stay valid.
    if settings.get("do_exif_transpose") is False:
        on_pixels["do_exif_transpose"] = False
    return on_pixels


__all__ = ["describe_tower", "differences", "vision_tower_of"]

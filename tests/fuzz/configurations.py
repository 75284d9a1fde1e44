"""Configurations, and models built from them on the meta device."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

import vilau_hf

from .classification import Case, Given, Wrong
from .models import config
from .values import number, odd


# Fields that no model can have below 1.
SIZES = (
    "hidden_size", "num_attention_heads", "intermediate_size", "codebook_size", "code_depth", "norm_num_groups",
    "latent_channels", "image_size", "patch_size", "vocab_size", "num_hidden_layers",
)  # fmt: skip


def fields() -> dict[str, Any]:
    """Returns the fields of the valid configuration, without the settings that all models share."""
    return json.loads(config().to_json_string())


def paths(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the paths to all fields, also inside of nested configurations."""
    found = []
    for name, value in values.items():
        nested = paths(value, (*prefix, name)) if isinstance(value, dict) and name.endswith("_config") else []
        found += nested or [(*prefix, name)]
    return found


def change(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Returns a copy of nested fields with another value at a path."""
    if len(path) == 1:
        return {**values, path[0]: value}
    return {**values, path[0]: change(values[path[0]], path[1:], value)}


def build_model(**values: Any) -> Any:
    """Builds the configuration and its model without weights."""
    built = vilau_hf.VilaUConfig(**values)
    with torch.device("meta"):
        return built, vilau_hf.VilaUForConditionalGeneration(built)


def load(folder: str) -> Any:
    """Loads the configuration of a folder."""
    return vilau_hf.VilaUConfig.from_pretrained(folder), None


def _check(result: Any) -> None:
    built, model = result
    again = type(built).from_dict(json.loads(built.to_json_string()))
    if again.to_json_string() != built.to_json_string():
        raise Wrong("the configuration changes when it is saved and loaded")
    if model is None:
        return
    vision = built.vision_config
    codebooks = [tensor for name, tensor in model.state_dict().items() if "codebook" in name and tensor.ndim >= 2]
    if not any(tuple(tensor.shape[-2:]) == (vision.codebook_size, vision.hidden_size) for tensor in codebooks):
        raise Wrong(f"no codebook has shape ({vision.codebook_size}, {vision.hidden_size})")
    if len(model.get_input_embeddings().weight) != built.text_config.vocab_size:
        raise Wrong("the embeddings do not have the size of the vocabulary")


def _file(content: bytes) -> Given:
    def write(folder: Path) -> str:
        (folder / "config.json").write_bytes(content)
        return str(folder)

    return Given(f"config.json({content[:80]!r})", write)


def _is_json(value: Any) -> bool:
    """Returns whether a file can hold a value."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


@st.composite
def cases(draw: Any) -> Case:
    """Draws a configuration in which a few fields have other values."""
    values = fields()
    changed = draw(st.lists(st.sampled_from(paths(values)), max_size=2, unique=True))
    new: list[Any] = []
    for path in changed:
        value = draw(st.sampled_from([0, -1, -4, 1, 2, 3, 5, 10**6]) | number() | odd().filter(_is_json))
        if path[-1].endswith(("_size", "_dim", "_positions", "_channels", "num_attention_heads")) and value in (
            10**6,
            2**31,
            2**63,
        ):
            value = 6  # no large models
        new.append(value)
        values = change(values, path, value)
    names = ("config.json", "attention heads", *(path[-1] for path in changed), "_config")
    names += tuple(path[0] for path in changed) + tuple(path[-1].replace("_", " ") for path in changed)
    must_fail = any(
        path[-1] in SIZES and isinstance(value, (int, float)) and value < 1
        for path, value in zip(changed, new, strict=True)
    )
    valid = False if must_fail else None if changed else True
    shown: Callable[..., Any] = build_model
    if draw(st.integers(0, 3)):
        description = {".".join(path): value for path, value in zip(changed, new, strict=True)}
        whole = Given(f"fields with {description}", lambda folder: values)
        return Case("VilaUConfig", lambda fields: shown(**fields), {"fields": whole}, names, valid, _check)
    content = json.dumps(values).encode()
    damage = draw(st.sampled_from(["none", "none", "cut", "empty", "list", "text", "bytes"]))
    content = {
        "none": content,
        "cut": content[: len(content) // 2],
        "empty": b"",
        "list": b"[]",
        "text": b'"x"',
        "bytes": b"\xff\xfe\x00",
    }[damage]
    valid = valid if damage == "none" else False
    return Case("VilaUConfig.from_pretrained", load, {"folder": _file(content)}, names, valid, _check)

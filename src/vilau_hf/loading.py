"""Loads configurations and vision towers by name: a published model, the shipped checkpoint, a folder or a Hub id."""

from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig

from . import TINY_CHECKPOINT
from .modeling import VilaUConfig, VilaUVisionTower
from .modeling.complete_loading_vilau import loading_problems


CONFIGS = Path(__file__).parent / "configs"


def published_names() -> list[str]:
    """Returns the names of the published models, whose configurations are in `configs/`."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_published_config(name: str) -> VilaUConfig:
    """
    Loads the configuration of a published model.

    Args:
        name (`str`): `"vilau-7b-256"` or `"vilau-7b-384"`.

    Raises:
        ValueError: if there is no such model.
    """
    if name not in published_names():
        raise ValueError(f"`name` must be one of {', '.join(published_names())}, got {name!r}.")
    return VilaUConfig(**yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")))


def load_config(source: str) -> VilaUConfig:
    """
    Loads a configuration by name.

    Args:
        source (`str`): a published model (`"vilau-7b-256"`, `"vilau-7b-384"`), or folder or Hub id of a checkpoint.
    """
    return load_published_config(source) if source in published_names() else VilaUConfig.from_pretrained(source)


def source_of(name: str | None) -> str | None:
    """Returns the folder or Hub id of a model name in a recipe. `tiny` is the shipped checkpoint."""
    return TINY_CHECKPOINT if name == "tiny" else name


def load_vision_tower(name_or_path: str | Path) -> VilaUVisionTower:
    """
    Loads the vision tower from a checkpoint of a complete model or of a tower, in evaluation mode.

    Args:
        name_or_path (`str` or `Path`): folder or Hub id of the checkpoint.

    Raises:
        ValueError: if tensors of the tower are missing or of another shape, or if a tensor belongs to no module.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    options: dict[str, Any] = {}
    if config.model_type == "vilau":
        # Only the weights of the tower are read. Their names in a complete model have a prefix.
        config = config.vision_config
        options["key_mapping"] = {r"^model\.vision_tower\.": ""}
    tower: VilaUVisionTower = VilaUVisionTower.from_pretrained(name_or_path, config=config, **options)
    return tower.eval()


def load_complete(model_class: Any, name_or_path: str | Path, **kwargs: Any) -> Any:
    """
    Loads a model of transformers like `from_pretrained`, but refuses a checkpoint with other tensors.

    The classes of this package refuse it themselves.

    Args:
        model_class (`type`): class of the model, or an Auto class.
        name_or_path (`str` or `Path`): folder or Hub id of the checkpoint.
        kwargs: further arguments of `from_pretrained`.

    Returns:
        `PreTrainedModel`: the model, in evaluation mode.

    Raises:
        ValueError: if a tensor is missing, unexpected or of another shape. The message has the names.
    """
    # With False, transformers names tensors of another shape only in a log.
    model, info = model_class.from_pretrained(
        name_or_path, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
    )
    problems = loading_problems(info)
    if problems:
        raise ValueError(f"the tensors in {name_or_path} are not those of {type(model).__name__}: {problems}.")
    return model


__all__ = [
    "CONFIGS",
    "load_complete",
    "load_config",
    "load_published_config",
    "load_vision_tower",
    "published_names",
    "source_of",
]

"""Finds and loads what a name stands for: a published size, the shipped checkpoint, a folder or a Hub id."""

from pathlib import Path

import yaml
from transformers import AutoConfig

from . import TINY_CHECKPOINT
from .files import first_five
from .modeling import VilaUConfig, VilaUVisionTower


CONFIGS = Path(__file__).parent / "configs"


def published_names() -> list[str]:
    """Names of the published models whose configurations are in `configs/`."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_published_config(name: str) -> VilaUConfig:
    """
    The configuration of a published model.

    Args:
        name (`str`): `"vilau-7b-256"` or `"vilau-7b-384"`, the files in `configs/`.

    Raises:
        ValueError: if there is no such model.
    """
    if name not in published_names():
        raise ValueError(f"`name` must be one of {', '.join(published_names())}, got {name!r}.")
    return VilaUConfig(**yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


def load_config(source: str) -> VilaUConfig:
    """
    The configuration that `source` names.

    Args:
        source (`str`): a published model (`"vilau-7b-256"`, `"vilau-7b-384"`), or the folder or Hub id of a
            checkpoint, of which the configuration alone is read.
    """
    return load_published_config(source) if source in published_names() else VilaUConfig.from_pretrained(source)


def source_of(name: str | None) -> str | None:
    """Folder or Hub id of a name in a recipe; `tiny` is the shipped checkpoint."""
    return TINY_CHECKPOINT if name == "tiny" else name


def load_vision_tower(name_or_path: str | Path) -> VilaUVisionTower:
    """
    The vision tower of a checkpoint, of a complete model or of a tower; nothing else is read.

    Raises:
        ValueError: if the checkpoint has no whole tower.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    prefix = {}
    if config.model_type == "vilau":
        config, prefix = config.vision_config, {"key_mapping": {r"^model\.vision_tower\.": ""}}
    tower, info = VilaUVisionTower.from_pretrained(name_or_path, config=config, output_loading_info=True, **prefix)
    if info["missing_keys"]:
        raise ValueError(f"{name_or_path} lacks weights of a vision tower: {first_five(info['missing_keys'])}.")
    return tower.eval()


__all__ = ["CONFIGS", "load_config", "load_published_config", "load_vision_tower", "published_names", "source_of"]

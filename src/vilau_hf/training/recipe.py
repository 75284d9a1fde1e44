"""Recipes: YAML files of the arguments of a training run, any of which the command line may give anew."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser

from ..data.arguments import DataArguments
from .trainer_vilau import VilaUTrainingArguments


@dataclass
class ModelArguments:
    """Where the model comes from: a whole one to go on from, or for pretraining a new one of parts."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "model to go on from; `tiny` is the shipped one"}
    )
    config_name_or_path: str | None = field(
        default=None,
        metadata={"help": "sizes of a new model: of `vilau-7b-256`, `vilau-7b-384`, `tiny` or another checkpoint"},
    )
    vision_tower_name_or_path: str | None = field(
        default=None, metadata={"help": "tower of a new model, from a checkpoint of a tower or of a whole model"}
    )
    language_model_name_or_path: str | None = field(
        default=None, metadata={"help": "language model of a new model (default: random weights)"}
    )
    processor_name_or_path: str | None = field(default=None, metadata={"help": "default: that of the model"})
    dtype: str = field(default="float32", metadata={"help": "of the weights that are loaded"})
    attn_implementation: str | None = field(default=None, metadata={"help": "sdpa, flash_attention_2, ..."})

    def __post_init__(self):
        if (self.model_name_or_path is None) == (self.config_name_or_path is None):
            raise ValueError("give one of `model_name_or_path` and `config_name_or_path`.")
        parts = (self.vision_tower_name_or_path, self.language_model_name_or_path)
        if self.model_name_or_path is not None and any(parts):
            raise ValueError(
                "`vision_tower_name_or_path` and `language_model_name_or_path` are for a new model of "
                "`config_name_or_path`, but `model_name_or_path` is given."
            )
        if self.config_name_or_path is not None and self.vision_tower_name_or_path is None:
            raise ValueError("a new model of `config_name_or_path` needs a trained `vision_tower_name_or_path`.")


@dataclass
class LoraArguments:
    """Low-rank adapters (Hu et al., 2022); without `lora_r` the model is trained in full."""

    lora_r: int | None = field(default=None, metadata={"help": "rank of the adapters"})
    lora_alpha: int = field(default=32, metadata={"help": "adapters are scaled by `lora_alpha / lora_r`"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before the adapters"})
    lora_target_modules: str = field(
        default=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        metadata={"help": "regular expression of the modules that get an adapter"},
    )
    lora_trained_modules: list[str] = field(
        default_factory=lambda: ["multi_modal_projector", "depth_transformer"],
        metadata={"help": "modules that are trained in full beside the adapters"},
    )
    load_in_4bit: bool = field(
        default=False, metadata={"help": "QLoRA: 4-bit weights of the language model (needs bitsandbytes and a GPU)"}
    )

    def __post_init__(self):
        if self.load_in_4bit and self.lora_r is None:
            raise ValueError("`load_in_4bit` needs adapters, give `lora_r`.")


@dataclass
class RunArguments:
    """What is done."""

    dry_run: bool = field(default=False, metadata={"help": "check the recipe against its data, train nothing"})
    gpus: int = field(default=1, metadata={"help": "devices for which a dry run estimates the memory of each"})
    strategy: str = field(default="ddp", metadata={"help": "of those devices: ddp, fsdp, zero2 or zero3"})


@dataclass
class Recipe:
    """
    All arguments of one run.

    Args:
        model ([`ModelArguments`])
        data ([`DataArguments`])
        lora ([`LoraArguments`])
        run ([`RunArguments`])
        training ([`VilaUTrainingArguments`])
    """

    model: ModelArguments
    data: DataArguments
    lora: LoraArguments
    run: RunArguments
    training: VilaUTrainingArguments


class RecipeParser(HfArgumentParser):
    """A parser that raises its errors."""

    def error(self, message: str):
        raise ValueError(message)


def read_layers(file: str | Path) -> dict[str, Any]:
    """
    The arguments of a recipe's file. Its key `base_recipe` names another one, beside it, whose arguments hold where it
    gives none.

    Args:
        file (`str` or `Path`): YAML file.

    Returns:
        Arguments by name, without `base_recipe`.

    Raises:
        ValueError: for a file that holds something else.
        OSError: for a file that is not there.
    """
    recipe, path = {}, Path(file)
    while path is not None:
        layer = yaml.safe_load(path.read_text())
        if not isinstance(layer, dict):
            raise ValueError(f"`file` {str(path)!r} must hold arguments, as in `max_steps: 100`, got {layer!r}.")
        base = layer.pop("base_recipe", None)
        recipe, path = {**layer, **recipe}, None if base is None else path.parent / base
    return recipe


def read_recipe(file: str | Path, overrides: list[str] = ()) -> Recipe:
    """
    Reads a recipe.

    Args:
        file (`str` or `Path`): see [`read_layers`].
        overrides (`list[str]`, *optional*): arguments of the command line, as in `["--max_steps", "100"]`.

    Raises:
        ValueError: for keys, arguments and combinations that are not known, naming them.
    """
    parser = RecipeParser(tuple(Recipe.__dataclass_fields__[name].type for name in Recipe.__dataclass_fields__))
    recipe = read_layers(file)
    unknown = sorted(set(recipe) - {action.dest for action in parser._actions})
    if unknown:
        hint = " Recipes of a vision tower are for examples/train_vision_tower.py."
        is_tower = any(name.startswith(("siglip_", "adversarial_", "contrastive_")) for name in unknown)
        raise ValueError(f"unknown keys in `file` {str(file)!r}: {', '.join(unknown)}.{hint if is_tower else ''}")
    # without an accelerator processes must be told to talk on the CPU, or each would train alone
    parser.set_defaults(**{"use_cpu": not torch.accelerator.is_available(), **recipe})
    try:
        return Recipe(*parser.parse_args_into_dataclasses(args=list(overrides)))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error


__all__ = ["LoraArguments", "ModelArguments", "Recipe", "RunArguments", "read_layers", "read_recipe"]

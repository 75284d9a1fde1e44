"""Loads the pipeline and the ranker that draw."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from transformers import AutoConfig, AutoTokenizer

from ..modeling import VilaUForConditionalGeneration, VilaUVisionTowerForPreTraining
from ..pipelines import TowerRanker, VilaUPipeline
from ..processing import VilaUProcessor
from .checkpoint_identity import CONFIG_NAME


def load_pipeline(
    name: str,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    dtype: str = "auto",
    show_progress: bool = False,
) -> VilaUPipeline:
    """
    Loads the pipeline of a checkpoint: of a model, or of a pipeline that was saved with or without subfolders.

    `VilaUPipeline.from_pretrained` requires a `model_index.json`, which the output of a training run does not have.

    Args:
        name (`str`): folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): device of the model.
        dtype (`str`, *optional*, defaults to `"auto"`): dtype of the weights. `"auto"` is that of the checkpoint.
        show_progress (`bool`, *optional*, defaults to `False`): whether each call shows a bar of its positions.

    Raises:
        ValueError: if the checkpoint is not one of a complete model, if the device is not there, or if a folder gets a
            revision.
    """
    _check_device(device)
    if revision is not None and Path(name).is_dir():
        raise ValueError(f"`revision` is for models on the Hub, got {revision!r} for the folder {name}.")
    model_folder = "model" if _has_subfolders(name, revision) else ""
    processor_folder = "processor" if model_folder else ""
    config = AutoConfig.from_pretrained(name, revision=revision, subfolder=model_folder)
    if config.model_type != "vilau":
        raise ValueError(f"{name} must be a checkpoint of a VILA-U model, got one of type {config.model_type!r}.")
    model = VilaUForConditionalGeneration.from_pretrained(name, revision=revision, subfolder=model_folder, dtype=dtype)
    processor = VilaUProcessor.from_pretrained(name, revision=revision or "main", subfolder=processor_folder)
    pipe: Any = VilaUPipeline(model=model.eval().to(device), processor=processor)
    # `None` shows the bar in terminals alone, so that logs have none.
    disable = None if show_progress else True
    pipe.set_progress_bar_config(disable=disable, desc="drawing", unit=" positions", leave=False)
    return pipe


def load_tower_ranker(
    name: str,
    subfolder: str = "",
    revision: str | None = None,
    device: torch.device | str = "cpu",
) -> TowerRanker:
    """
    Loads the ranker that compares images and prompts with a vision tower and its text encoder.

    Args:
        name (`str`): folder or Hub id of the tower, or of the model whose `subfolder` has it.
        subfolder (`str`, *optional*, defaults to `""`): folder of the tower in it.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): device of the tower.

    Raises:
        ValueError: if there is no tower with a text encoder.
    """
    problem = None
    if Path(name).is_dir() and not Path(name, subfolder, CONFIG_NAME).is_file():
        problem = f"has no {CONFIG_NAME}"
    else:
        config = AutoConfig.from_pretrained(name, revision=revision, subfolder=subfolder)
        if config.model_type != "vilau_vision":
            problem = f"is a checkpoint of type {config.model_type!r}"
        elif config.text_config is None:
            problem = "has no text encoder"
    if problem is not None:
        raise ValueError(
            f"{Path(name, subfolder)} {problem}. Ranking by the tower needs a vision tower with a text encoder: give "
            "its folder or Hub id by `--tower`, or rank by 'likelihood' or 'answer'."
        )
    tower = VilaUVisionTowerForPreTraining.from_pretrained(
        name, revision=revision, subfolder=subfolder, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, subfolder=subfolder)
    return TowerRanker(tower.eval().to(device), tokenizer)


def _check_device(device: torch.device | str) -> None:
    try:
        torch.empty(0, device=device)
        torch.Generator(device)  # the device "meta" has none
    # torch raises the second if it was built without the backend
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"`device` {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error


def _has_subfolders(name: str, revision: str | None) -> bool:
    """Returns whether a checkpoint is a pipeline with a folder for each component."""
    if Path(name).is_dir():
        return not Path(name, CONFIG_NAME).is_file() and Path(name, "model", CONFIG_NAME).is_file()
    try:
        hf_hub_download(name, CONFIG_NAME, revision=revision)
    except RemoteEntryNotFoundError:
        return True
    except OSError:  # no such repository, or no network: loading the model says so
        return False
    return False


__all__ = ["load_pipeline", "load_tower_ranker"]

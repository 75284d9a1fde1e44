"""The model of an evaluation, whose sub-models are loaded when a task first uses them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from ..loading import load_vision_tower
from ..modeling import VilaUForConditionalGeneration, VilaUVisionTower, VilaUVisionTowerForPreTraining
from ..processing import VilaUProcessor
from .checkpoint_identity import describe_checkpoint


class EvaluatedModel:
    """
    Loads a model, its processor, and its vision tower, each when it is first used.

    Args:
        source (`str`): folder or Hub id of a model, or of a vision tower for tasks that need no language model.
        tower (`str`, *optional*): folder or Hub id of the vision tower with its text encoder (default: the subfolder
            `tower` of `source`, or `source` if it is a tower).
        processor (`str`, *optional*): folder or Hub id of the processor (default: that of the model).
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): device of the weights.
        dtype (`str`, *optional*, defaults to `"auto"`): dtype of the weights; `"auto"` is that of the checkpoint.
    """

    def __init__(
        self,
        source: str,
        tower: str | None = None,
        processor: str | None = None,
        device: torch.device | str = "cpu",
        dtype: str = "auto",
    ) -> None:
        self.source = source
        self.tower_source = tower
        self.processor_source = source if processor is None else processor
        self.device = torch.device(device)
        self.dtype = dtype

    @cached_property
    def config(self) -> PreTrainedConfig:
        """Returns the configuration of `source`."""
        return AutoConfig.from_pretrained(self.source)

    @property
    def image_size(self) -> int:
        """Returns the side of images in pixels."""
        config: Any = self.config  # the class of a model's or of a tower's configuration
        return config.vision_config.image_size if config.model_type == "vilau" else config.image_size

    @cached_property
    def model(self) -> VilaUForConditionalGeneration:
        """
        Returns the complete model, in evaluation mode.

        Raises:
            ValueError: if `source` is only a vision tower.
        """
        if self.config.model_type != "vilau":
            raise ValueError(
                f"the task needs a complete model, got {self.source!r}, a checkpoint of type "
                f"{self.config.model_type!r}."
            )
        model = VilaUForConditionalGeneration.from_pretrained(self.source, dtype=self.dtype)
        return model.to(self.device).eval()

    @cached_property
    def processor(self) -> VilaUProcessor:
        """Returns the processor."""
        return VilaUProcessor.from_pretrained(self.processor_source)

    @cached_property
    def image_processor(self) -> BaseImageProcessor:
        """Returns the image processor, also for a vision tower, which has no other processor."""
        if self.config.model_type == "vilau" or self.processor_source != self.source:
            return self.processor.image_processor
        return AutoImageProcessor.from_pretrained(self.source)

    @property
    def num_frames(self) -> int:
        """Returns the number of frames of a video, a generation setting of the model."""
        settings: Any = GenerationConfig.from_pretrained(self.source)  # which does not declare our settings
        return settings.num_frames

    @cached_property
    def vision_tower(self) -> VilaUVisionTower:
        """Returns the vision tower, that of the complete model if it is loaded."""
        if "model" in vars(self):
            return self.model.model.vision_tower
        tower = load_vision_tower(self.source)
        tower.to(self.device)  # type: ignore[arg-type]  # transformers wraps `to` without its first argument
        return tower

    @cached_property
    def text_tower(self) -> VilaUVisionTowerForPreTraining:
        """
        Returns the vision tower with its text encoder, in evaluation mode.

        Raises:
            ValueError: if there is no text encoder.
        """
        source = self.text_tower_source()
        tower = VilaUVisionTowerForPreTraining.from_pretrained(source, dtype=self.dtype)
        return tower.to(self.device).eval()

    @cached_property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        """Returns the tokenizer of the text encoder, which can differ from that of the language model."""
        return AutoTokenizer.from_pretrained(self.text_tower_source())

    def text_tower_source(self) -> str:
        """
        Returns the folder or Hub id of the vision tower with its text encoder.

        Raises:
            ValueError: if there is none. The message says how to get one.
        """
        if self.tower_source is not None:
            if AutoConfig.from_pretrained(self.tower_source).model_type != "vilau_vision":
                raise ValueError(f"`tower` must be a vision tower with its text encoder, got {self.tower_source!r}.")
            return self.tower_source
        if self.config.model_type == "vilau_vision":
            return self.source
        if Path(self.source, "tower", "config.json").is_file():
            return str(Path(self.source, "tower"))
        raise ValueError(
            f"{self.source!r} has no text encoder, which embeds the names of the classes. Give the vision tower with "
            "its text encoder by `--tower FOLDER`. `vilau convert` writes one from the original tower, and "
            "`vilau train` trains one (docs/training.md)."
        )

    @cached_property
    def _checkpoints(self) -> dict[str, dict[str, Any]]:
        """Returns what identifies the model and the vision tower with its text encoder, if there is one."""
        found = {"model": describe_checkpoint(self.source)}
        if self.tower_source is not None:
            found["tower"] = describe_checkpoint(self.tower_source)
        elif Path(self.source, "tower").is_dir():
            found["tower"] = describe_checkpoint(self.source, subfolder="tower")
        return found

    def describe(self) -> dict[str, Any]:
        """
        Describes what the results depend on: names, weights, dtype and generation settings.

        Returns:
            A dictionary that JSON can hold. `checkpoints` has the commit of a model from the Hub, and the fingerprint
            of a folder.
        """
        description: dict[str, Any] = {
            "model": self.source,
            "tower": self.tower_source,
            "processor": self.processor_source,
            "dtype": self.dtype,
            "checkpoints": self._checkpoints,
        }
        if self.config.model_type == "vilau":
            settings = GenerationConfig.from_pretrained(self.source).to_dict()
            description["generation_config"] = {name: value for name, value in settings.items() if value is not None}
        return description


__all__ = ["EvaluatedModel"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Methods of a pipeline that load and unload LoRA adapters, with the names of diffusers' `LoraBaseMixin`."""

import os
from typing import Any


class VilaULoraLoading:
    """Loads LoRA adapters into the model of a pipeline, chooses and unloads them."""

    model: Any  # `VilaUForConditionalGeneration` or a `peft.PeftModel` around it

    def load_lora_weights(
        self, pretrained_model_name_or_path: str | os.PathLike, adapter_name: str | None = None, **kwargs: Any
    ) -> None:
        """
        Loads a LoRA adapter that `vilau train` or peft saved, and makes it the active one.

        The adapter is checked before the model is changed.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): folder or Hub id of the adapter.
            adapter_name (`str`, *optional*): name of the adapter, by default `"default_0"`, `"default_1"` and so on.
            kwargs: `subfolder`, `revision`, `token`, `cache_dir`, `force_download` and `local_files_only`.

        Raises:
            ValueError: if the name is taken or cannot be used. Also if the adapter is no LoRA adapter, or its tensors
                are not those of the model; the message has their names.
            TypeError: for unknown arguments.
        """
        self._plain_model().load_lora_weights(pretrained_model_name_or_path, adapter_name, **kwargs)

    def unload_lora_weights(self) -> None:
        """
        Removes all adapters.

        The pipeline then generates the same as before the first adapter, bit by bit.
        """
        self._plain_model().unload_lora_weights()

    def set_adapters(self, adapter_names: str | list[str], adapter_weights: float | list[float] | None = None) -> None:
        """
        Chooses the active adapters, whose effects are added.

        Args:
            adapter_names (`str` or `list[str]`): names of loaded adapters.
            adapter_weights (`float` or `list[float]`, *optional*, defaults to 1): factors of their effects.

        Raises:
            ValueError: if an adapter is not loaded, or the numbers of names and weights differ. Modules that an
                adapter trained in full can be neither added nor weighted.
        """
        self._plain_model().set_adapters(adapter_names, adapter_weights)

    def get_active_adapters(self) -> list[str]:
        """Returns the names of the active adapters."""
        return self.model.get_active_adapters()

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Returns the names of all adapters as `{"model": [...]}`, or an empty dictionary without any."""
        names = list(getattr(self.model, "peft_config", {}))
        return {"model": names} if names else {}

    def _plain_model(self) -> Any:
        """Returns the model, and raises a `ValueError` if it is a `peft.PeftModel`, which manages its adapters."""
        if hasattr(self.model, "get_base_model"):
            raise ValueError(
                "the model of the pipeline is a `PeftModel`, which manages its adapters: use its `load_adapter`, "
                "`set_adapter` and `unload`."
            )
        return self.model


__all__ = ["VilaULoraLoading"]

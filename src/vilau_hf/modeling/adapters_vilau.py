# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""LoRA adapters on a model: loading, choosing, unloading, and merging for a checkpoint."""

import copy
import os
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import PreTrainedModel

from .argument_checks_vilau import check_value
from .complete_loading_vilau import loading_problems


# peft puts this prefix in front of the names in a saved adapter.
_PREFIX = "base_model.model."
_WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# Options that both files of an adapter are loaded with.
_HUB_OPTIONS = {"subfolder", "revision", "token", "cache_dir", "force_download", "local_files_only"}


def import_peft() -> Any:
    """
    Imports peft, which is optional.

    Raises:
        ImportError: if it is not installed.
    """
    # The library lists the imports of uploaded code as required, except those in `try` blocks.
    try:
        import peft.functional
    except ImportError as error:
        raise ImportError("adapters need peft: `pip install peft`.") from error
    return peft


def has_adapters(model: Any) -> bool:
    """Returns whether peft has put adapters on `model`, which can be a `peft.PeftModel`."""
    return bool(getattr(model, "peft_config", None))


class VilaUAdapterMixin(PreTrainedModel):
    """Loads LoRA adapters, unloads them, and refuses adapters that do not fit the model."""

    # Whether parameters were trainable before the first adapter, which freezes all of them.
    _trainable_before_adapters: dict[str, bool]

    def load_lora_weights(
        self, pretrained_model_name_or_path: str | os.PathLike, adapter_name: str | None = None, **kwargs: Any
    ) -> None:
        """
        Loads a LoRA adapter that peft saved, and makes it the active one.

        The adapter is checked before the model is changed. Its weights are not trainable.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): folder or Hub id of the adapter.
            adapter_name (`str`, *optional*): name of the adapter, by default `"default_0"`, `"default_1"` and so on.
            kwargs: `subfolder`, `revision`, `token`, `cache_dir`, `force_download` and `local_files_only`.

        Raises:
            ValueError: if the name is taken or cannot be used. Also if the adapter is no LoRA adapter, changes
                weights of the base model, or its tensors are not those of this model.
            TypeError: for unknown arguments.
        """
        peft = import_peft()
        unknown = sorted(kwargs.keys() - _HUB_OPTIONS)
        if unknown:
            raise TypeError(f"unexpected keyword argument `{unknown[0]}`.")
        existing = getattr(self, "peft_config", {})
        name = f"default_{len(existing)}" if adapter_name is None else adapter_name
        _check_name(name, existing)
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError("the weights of the model are offloaded: load adapters before you offload the model.")
        source = os.fspath(pretrained_model_name_or_path)
        config, weights = _read_adapter(self, source, name, kwargs)
        if not has_adapters(self):
            self._trainable_before_adapters = {
                parameter_name: parameter.requires_grad for parameter_name, parameter in self.named_parameters()
            }
        config.inference_mode = True
        _inject(config, self, name)
        # As `PeftModel.from_pretrained` does: matrices in float32, because training saves them so.
        peft.functional.cast_adapter_dtype(self, name)
        peft.set_peft_model_state_dict(self, weights, name)
        # New dropout layers are in training mode.
        self.eval()
        self.set_adapters(name)

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
        peft = import_peft()
        check_value("adapter_names", adapter_names, str | list[str] | tuple[str, ...])
        check_value("adapter_weights", adapter_weights, float | list[float] | tuple[float, ...] | None)
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        factors = adapter_weights if isinstance(adapter_weights, (list, tuple)) else [adapter_weights] * len(names)
        if not names or len(factors) != len(names):
            raise ValueError(
                f"`adapter_names` and `adapter_weights` must have one entry for each adapter, got {adapter_names!r} "
                f"and {adapter_weights!r}."
            )
        check_adapters_exist(self, names)
        trained_in_full = {name: getattr(self.peft_config[name], "modules_to_save", None) or [] for name in names}
        in_full = [name for name, modules in trained_in_full.items() if modules]
        if in_full and (len(names) > 1 or any(factor not in (None, 1) for factor in factors)):
            raise ValueError(
                f"`adapter_names`: {in_full[0]!r} has modules that were trained in full "
                f"({', '.join(trained_in_full[in_full[0]])}). They can be used alone and with weight 1, got {names} "
                f"and {adapter_weights!r}."
            )
        peft.functional.set_adapter(self, names, inference_mode=True)
        scaled: list[Any] = [module for module in self.modules() if hasattr(module, "set_scale")]  # LoRA layers
        for module in scaled:
            for name, factor in zip(names, factors, strict=True):
                module.set_scale(name, 1.0 if factor is None else factor)
        self._drop_graphs()

    def get_active_adapters(self) -> list[str]:
        """Returns the names of the active adapters."""
        layers: list[Any] = [module for module in self.modules() if _is_adapter_layer(module)]
        return list(layers[0].active_adapters) if layers else []

    def unload_lora_weights(self) -> None:
        """
        Removes all adapters.

        The model is then as before the first adapter, bit by bit.

        Raises:
            ValueError: if adapters were merged into the weights, since these cannot be restored exactly.
        """
        if not has_adapters(self):
            return
        _check_not_merged(self)
        for name, module in _adapter_modules(self):
            is_layer = _is_adapter_layer(module)
            self.set_submodule(name, module.get_base_layer() if is_layer else module.original_module)
        del self.peft_config
        # The library sets it in `load_adapter`. Then `save_pretrained` would look for adapters.
        self._hf_peft_config_loaded = False
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(getattr(self, "_trainable_before_adapters", {}).get(name, False))
        self._drop_graphs()

    def load_adapter(self, peft_model_id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        Loads an adapter like `PreTrainedModel.load_adapter`, but refuses one with other tensors.

        The library would fill missing tensors with random values. `from_pretrained` calls this method for the folder
        of an adapter.

        Args:
            peft_model_id (`str`, *optional*): folder or Hub id of the adapter.
            args: further positional arguments of `PreTrainedModel.load_adapter`.
            kwargs: further keyword arguments of `PreTrainedModel.load_adapter`.

        Raises:
            ValueError: if a tensor is missing, unexpected or of another shape. The message has the names.
        """
        if peft_model_id is None:
            return super().load_adapter(peft_model_id, *args, **kwargs)
        given = {**(kwargs.get("adapter_kwargs") or {}), **kwargs}
        options = {name: given[name] for name in _HUB_OPTIONS if given.get(name) is not None}
        adapter_name = given.get("adapter_name") or (args[0] if args else "default")
        _read_adapter(self, peft_model_id, adapter_name, options)
        info = super().load_adapter(peft_model_id, *args, **kwargs)
        # The library makes the layers of a second adapter active, but not the modules that it has trained in full.
        # Read in transformers 5.20.2, 5.23.0 and 5.24.0.
        is_trainable = bool(given.get("is_trainable"))
        import_peft().functional.set_adapter(self, adapter_name, inference_mode=not is_trainable)
        self._drop_graphs()
        return info

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """
        Saves the model like `PreTrainedModel.save_pretrained`.

        Args:
            save_directory (`str` or `os.PathLike`): the folder.
            args: further positional arguments of `PreTrainedModel.save_pretrained`.
            kwargs: further keyword arguments of `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: if peft has put adapters on the model, whose weights then have other names. Adapters of
                `load_adapter` are saved as the library does.
        """
        if has_adapters(self) and not self._hf_peft_config_loaded and kwargs.get("state_dict") is None:
            raise ValueError(
                f"the model has adapters ({', '.join(self.peft_config)}), and `save_pretrained` would save its "
                "weights under other names. Save a pipeline, which merges the adapters, or the adapter with "
                "`PeftModel.save_pretrained`, or call `unload_lora_weights` first."
            )
        super().save_pretrained(save_directory, *args, **kwargs)

    def _drop_graphs(self) -> None:
        """Drops compiled positions, whose graphs were compiled for other modules."""
        graphs = getattr(self, "position_graphs", None)
        if graphs is not None:
            self.position_graphs = type(graphs)(graphs.compile_kwargs)

    # For pipelines, whose model can be a `peft.PeftModel`: that passes attributes on, but not itself.
    @staticmethod
    def merge_adapters(model: Any) -> Any:
        """
        Returns a copy of a model whose weights contain its active adapters.

        The copy shares all tensors that the adapters leave unchanged. The model itself does not change.

        Args:
            model ([`VilaUForConditionalGeneration`] or `peft.PeftModel`): the model.

        Returns:
            [`VilaUForConditionalGeneration`]: the copy, or `model` if it has no adapters.

        Raises:
            ValueError: if adapters cannot be merged into weights.
        """
        if not has_adapters(model):
            return model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        tensors = [*base.parameters(), *base.buffers()]
        merged = copy.deepcopy(base, {id(tensor): tensor for tensor in tensors})
        if hasattr(merged, "peft_config"):
            del merged.peft_config
        merged._hf_peft_config_loaded = False  # the library would save the adapter alone
        for name, module in _adapter_modules(merged):
            merged.set_submodule(name, _merged_module(name, module))
        _check_merged(merged, list(model.peft_config.values()))
        return merged


def check_adapters_exist(model: Any, names: list[str]) -> None:
    """Raises a `ValueError` if one of `names` is not the name of an adapter on `model`."""
    loaded = list(getattr(model, "peft_config", {}))
    missing = [name for name in names if name not in loaded]
    if missing:
        raise ValueError(f"`adapter_names` must be among the loaded adapters {loaded}, got {missing[0]!r}.")


def _is_adapter_layer(module: Any) -> bool:
    """Returns whether a module is a layer of peft around a layer of the model."""
    # `BaseTunerLayer` of peft has both. Its import would need peft, also for models without adapters.
    return hasattr(module, "get_base_layer") and hasattr(module, "active_adapters")


def _adapter_modules(model: Any) -> list[tuple[str, Any]]:
    """Lists names and modules of peft in a model: adapter layers, and wrappers of modules trained in full."""
    found: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found[-1:])
        if not inside and (_is_adapter_layer(module) or hasattr(module, "original_module")):
            found.append((name, module))
    return found


def _check_name(name: Any, existing: Any) -> None:
    """Raises a `ValueError` if an adapter cannot have this name."""
    if not isinstance(name, str) or not name or "." in name or hasattr(torch.nn.ModuleDict(), name):
        raise ValueError(f"`adapter_name` must be a name without dots that no module attribute has, got {name!r}.")
    if name == "__base__":
        raise ValueError("`adapter_name` must not be '__base__', which means no adapter in `adapter_names`.")
    if name in existing:
        raise ValueError(f"`adapter_name`: {name!r} is already loaded. Loaded adapters are {list(existing)}.")


def _check_not_merged(model: Any) -> None:
    """Raises a `ValueError` if an adapter is merged into the weights."""
    merged = sorted({name for module in model.modules() for name in getattr(module, "merged_adapters", None) or ()})
    if merged:
        raise ValueError(
            f"the adapters {merged} are merged into the weights, which cannot be restored exactly. Load the model "
            "again."
        )


def _read_adapter(
    model: Any, source: str, adapter_name: str, options: dict[str, Any]
) -> tuple[Any, dict[str, torch.Tensor]]:
    """
    Reads a LoRA adapter and checks that it fits a model. The model does not change.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        source (`str`): folder or Hub id of the adapter.
        adapter_name (`str`): name that it will have.
        options (`dict`): options of the Hub.

    Returns:
        The `peft.PeftConfig`, and the weights by their names without prefix.

    Raises:
        ValueError: if the adapter is damaged or does not fit the model.
    """
    peft = import_peft()
    try:
        config = peft.PeftConfig.from_pretrained(source, **options)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{source} has no readable `adapter_config.json`: {error}") from error
    if config.peft_type != peft.PeftType.LORA:
        raise ValueError(f"{source} must be a LoRA adapter, got {getattr(config.peft_type, 'value', 'no type')}.")
    if config.bias != "none":
        raise ValueError(f"{source} must have `bias='none'`: with {config.bias!r} it changes the base model.")
    folder = Path(source, options.get("subfolder") or "")
    if folder.is_dir() and not any((folder / name).is_file() for name in _WEIGHT_FILES):
        raise ValueError(f"{folder} has no `{_WEIGHT_FILES[0]}`.")
    saved = _load_weights(source, options)
    weights = {name.removeprefix(_PREFIX): weight for name, weight in saved.items()}
    problems = loading_problems(_compare(weights, _expected_shapes(model, source, adapter_name, config)))
    if problems:
        raise ValueError(f"the tensors of the adapter {source} do not fit {_describe(model)}: {problems}.")
    return config, weights


def _load_weights(source: str, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Loads the weights of an adapter, and raises a `ValueError` with its name if they are damaged."""
    try:
        from safetensors import SafetensorError

        return import_peft().load_peft_weights(source, device="cpu", **options)
    except (SafetensorError, UnpicklingError, EOFError) as error:
        raise ValueError(f"the weights of the adapter {source} are damaged: {error}") from error


def _expected_shapes(model: Any, source: str, adapter_name: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the tensors of an adapter with `config`, from a model without values."""
    peft = import_peft()
    with torch.device("meta"):
        skeleton = type(model)(copy.deepcopy(model.config))
    # Adapters that are loaded have replaced modules, which the new one may name.
    configs = {**getattr(model, "peft_config", {}), adapter_name: config}
    try:
        for name, each in configs.items():
            _inject(copy.deepcopy(each), skeleton, name, low_cpu_mem_usage=True)
        # By default peft asks the Hub whether the vocabulary has changed.
        state = peft.get_peft_model_state_dict(skeleton, adapter_name=adapter_name, save_embedding_layers=False)
    # peft looks for tensors in vain if one adapter has matrices in a module that another one has in full.
    except (ValueError, KeyError) as error:
        raise ValueError(f"the adapter {source} does not fit {_describe(model)}: {error}") from error
    return {name: tuple(weight.shape) for name, weight in state.items()}


def _describe(model: Any) -> str:
    """Returns the class of a model and its adapters, for errors."""
    name = type(model).__name__
    return f"{name} with the adapters {list(model.peft_config)}" if has_adapters(model) else name


def _inject(config: Any, model: Any, adapter_name: str, **kwargs: Any) -> None:
    """Puts the layers of an adapter with random weights on a model."""
    with warnings.catch_warnings():
        # Several adapters are what the caller wants.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        import_peft().inject_adapter_in_model(config, model, adapter_name, **kwargs)


def _compare(weights: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the differences in the form of a loading report of the library."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    return {
        "missing_keys": expected.keys() - shapes.keys(),
        "unexpected_keys": shapes.keys() - expected.keys(),
        "mismatched_keys": [
            (name, shape, expected[name]) for name, shape in shapes.items() if shape != expected.get(name, shape)
        ],
    }


def _merged_module(name: str, module: Any) -> torch.nn.Module:
    """Returns the module of the model inside of a module of peft, with the active adapters in its weights."""
    is_layer = _is_adapter_layer(module)
    if is_layer and not hasattr(module, "merge"):
        raise ValueError(f"the adapter of `{name}` ({type(module).__name__}) cannot be merged into its weights.")
    # The copy has separate tensors, which merging changes.
    separate = copy.deepcopy(module)
    if not is_layer:
        if separate.disable_adapters:
            return separate.original_module
        return separate.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
    if separate.disable_adapters:
        if separate.merged:
            separate.unmerge()
    else:
        separate.merge(safe_merge=True)
    return separate.get_base_layer()


def _check_merged(merged: Any, configs: list[Any]) -> None:
    """Raises a `ValueError` if a merged model is not the model with its adapters."""
    with torch.device("meta"):
        plain = type(merged)(copy.deepcopy(merged.config))
    changed = plain.state_dict().keys() ^ merged.state_dict().keys()
    if changed or any(config.is_prompt_learning for config in configs):
        kinds = ", ".join(sorted({config.peft_type.value for config in configs}))
        raise ValueError(
            f"adapters of the type {kinds} cannot be merged into the weights. Save them with "
            "`PeftModel.save_pretrained`."
        )
    head = merged.get_output_embeddings().weight
    if merged.config.tie_word_embeddings and head is not merged.get_input_embeddings().weight:
        raise ValueError(
            "the model shares the weight of embeddings and head (`config.tie_word_embeddings`), but an adapter "
            "changes one of them. Save the adapter with `PeftModel.save_pretrained`."
        )


__all__ = ["VilaUAdapterMixin", "check_adapters_exist", "has_adapters"]

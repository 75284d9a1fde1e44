# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Loading that refuses incomplete checkpoints and keeps frozen parameters frozen."""

import os
import re
from typing import Any

from transformers import PreTrainedModel


def loading_problems(info: dict[str, Any], ignored: tuple[str, ...] = ()) -> str:
    """
    Lists the tensors in which a checkpoint and a model differ.

    Args:
        info (`dict`): loading report, which `from_pretrained(..., output_loading_info=True)` returns.
        ignored (`tuple[str, ...]`, *optional*): regular expressions for the beginning of names that the checkpoint
            may have although the model does not.

    Returns:
        The names of missing, unexpected and mismatched tensors, or an empty text if there are none.
    """
    unexpected = [name for name in info["unexpected_keys"] if not any(re.match(each, name) for each in ignored)]
    mismatched = [
        f"{name} of shape {tuple(found)}, expected {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]
    ]
    problems = {"missing": list(info["missing_keys"]), "unexpected": unexpected, "mismatched": mismatched}
    return "; ".join(f"{problem} {_first_five(names)}" for problem, names in problems.items() if names)


def _first_five(names: list[str]) -> str:
    """Lists the first five of the sorted `names` and the number of the others."""
    listed = ", ".join(sorted(names)[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed


class CompleteLoading(PreTrainedModel):
    """
    Makes `from_pretrained` refuse incomplete checkpoints, and freeze what the constructor froze.

    The Auto classes, `pipeline`, diffusers' pipelines, trainers and servers all load through this method.
    """

    # Regular expressions for the beginning of names in a checkpoint that belong to other modules. For example, the
    # checkpoint of a complete model has the weights of its base model and those of its heads. The library's attribute
    # for this is inherited by every model around this one, which would then ignore its own modules.
    names_of_other_modules: tuple[str, ...] = ()

    def post_init(self) -> None:
        """Finishes the constructor, and records which parameters it froze."""
        super().post_init()
        self._frozen_names = frozenset(
            name for name, parameter in self.named_parameters() if not parameter.requires_grad
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        Loads a model like `PreTrainedModel.from_pretrained`, but refuses a checkpoint with other tensors.

        The library would fill missing tensors with random values and ignore unexpected ones.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`, *optional*): folder or Hub id of the checkpoint.
            model_args: further positional arguments of `PreTrainedModel.from_pretrained`.
            output_loading_info (`bool`, *optional*, defaults to `False`): also return the loading report. The caller
                then decides, so missing and unexpected tensors are accepted.
            ignore_mismatched_sizes (`bool`, *optional*, defaults to `False`): accept tensors of another shape, and
                initialise the weights of the model there.
            kwargs: further keyword arguments of `PreTrainedModel.from_pretrained`.

        Returns:
            The model, or a tuple of it and the loading report.

        Raises:
            ValueError: if a tensor is missing, unexpected or of another shape. The message has the names.
        """
        # With False the library refuses other shapes itself, but names them only in a log, which `vilau` hides.
        loaded: Any = super().from_pretrained(
            pretrained_model_name_or_path,
            *model_args,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
        model, info = loaded  # a pair because of `output_loading_info`
        checked = dict(info)
        if output_loading_info:
            checked.update(missing_keys=[], unexpected_keys=[])
        if ignore_mismatched_sizes:
            checked["mismatched_keys"] = []
        problems = loading_problems(checked, cls.names_of_other_modules)
        if problems:
            source = "`state_dict`" if pretrained_model_name_or_path is None else pretrained_model_name_or_path
            raise ValueError(
                f"the tensors in {source} are not those of {cls.__name__}: {problems}. `from_pretrained` with "
                "`output_loading_info=True` loads the model anyway and returns it with the loading report. Mismatched "
                "tensors also need `ignore_mismatched_sizes=True`."
            )
        # The library makes new parameters while it loads, which are all trainable.
        for name, parameter in model.named_parameters():
            if name in model._frozen_names:
                parameter.requires_grad_(False)
        return (model, info) if output_loading_info else model


__all__ = ["CompleteLoading", "loading_problems"]

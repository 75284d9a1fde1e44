"""
The only door to names that transformers does not document as public, and to what differs between its versions, for all
modules outside of `modeling`, `processing` and `pipelines`, which have doors of their own. `tests/test_layout.py`
forbids such imports anywhere else.

Each name says why it is needed and when it can go. All of `LIBRARY_NAMES` were read in transformers 5.20.2, 5.23.0 and
5.24.0, where they are the same. They are imported when first asked for: one that is not needed costs nothing.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


LIBRARY_NAMES = {
    # `Trainer` applies kernels to the model as a whole, and liger_kernel knows none for our model type; its own
    # function for the language model alone, `_apply_liger_kernel_to_instance`, is private, too. Can go when
    # `TrainingArguments` lets a part of the model be named, or liger_kernel knows this model.
    "apply_liger_kernel": "transformers.integrations.liger",
    # Name of the file in a checkpoint that `Trainer.train` reads its state from. A checkpoint's state is written once
    # more when the name of the best checkpoint is final. Can go when the base class writes checkpoints atomically.
    "TRAINER_STATE_NAME": "transformers.trainer",
    # The checkpoint that `Trainer.train(resume_from_checkpoint=True)` takes: what subclasses load themselves has to
    # come from the same one. Can go when `Trainer` says which checkpoint it resumes.
    "get_last_checkpoint": "transformers.trainer_utils",
    # The order in which `save_total_limit` deletes checkpoints. Can go when the base class deletes atomically.
    "sort_checkpoints": "transformers.trainer_utils",
    # Named in the documentation (main_classes/callback), but not in the top-level namespace. Told apart to log images,
    # for which callbacks have no event. Can go when transformers exports them, or logs images itself.
    "TensorBoardCallback": "transformers.integrations",
    "TrackioCallback": "transformers.integrations",
    "WandbCallback": "transformers.integrations",
}


def __getattr__(name: str) -> Any:
    if name not in LIBRARY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(LIBRARY_NAMES[name]), name)
    globals()[name] = value
    return value


# Activation checkpointing has its name since a version after 5.20.2, which says "gradient checkpointing" everywhere;
# 5.23.0 and 5.24.0 take the old name with a warning. Both below can go with the support of 5.20.


@dataclass
class ActivationCheckpointingArguments:
    """Gives `TrainingArguments` the argument `activation_checkpointing`; to be named before it as a base class."""

    activation_checkpointing: bool | None = field(
        default=None,
        metadata={
            "help": "compute activations again in the backward pass: less memory, more time",
            "nargs": "?",
            "const": True,
        },
    )

    def __post_init__(self):
        from transformers import TrainingArguments

        if not hasattr(TrainingArguments, "activation_checkpointing"):
            if self.activation_checkpointing is None:
                self.activation_checkpointing = self.gradient_checkpointing
            self.gradient_checkpointing = self.activation_checkpointing
        super().__post_init__()


def enable_activation_checkpointing(model):
    """Calls `activation_checkpointing_enable` of a `PreTrainedModel`, by the name that it has."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable()

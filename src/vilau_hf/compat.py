"""
The only door to names that transformers does not document as public, for all modules outside of `modeling`,
`processing` and `pipelines`, which have doors of their own. `tests/test_layout.py` forbids such imports anywhere else.

Each name says why it is needed and when it can go. All were read in transformers 5.20.2, 5.23.0 and 5.24.0, where they
are the same. A name is imported when it is first asked for, so that one that a user does not need costs nothing.
"""

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

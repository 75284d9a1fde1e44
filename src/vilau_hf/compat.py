"""
All names that transformers does not document as public, and all differences between its versions, for the modules
outside of the islands. `modeling` and `processing` have files of their own for this, and `pipelines` needs none.
`tests/test_layout.py` forbids such imports anywhere else.

Each name says why it is needed and when it can go. All of `LIBRARY_NAMES` were read in transformers 5.20.2, 5.23.0 and
5.24.0, where they are the same. They are imported when first asked for: one that is not needed costs nothing.
"""

from collections import OrderedDict
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
    # Where a task is registered. The documentation shows it (add_new_pipeline), but it is not in the top-level
    # namespace. Can go when transformers exports it.
    "PIPELINE_REGISTRY": "transformers.pipelines",
    # The class behind `transformers serve`. Can go when the library documents a way to start its server from Python.
    "Serve": "transformers.cli.serve",
    # The table by which that server tells multimodal models from models of text; `Auto*.register` does not write it.
    # Can go when the server asks the Auto classes.
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES": "transformers.models.auto.modeling_auto",
}


def __getattr__(name: str) -> Any:
    if name not in LIBRARY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(LIBRARY_NAMES[name]), name)
    globals()[name] = value
    return value


# Up to 5.22 transformers says "gradient checkpointing". From 5.23 on it says "activation checkpointing" and warns
# about the old name. Both definitions below can go when 5.23 is the oldest supported version.


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


# Module of diffusers that holds the tables of `AutoPipelineFor...`. Read in diffusers 0.40.0, 0.42.1. It can go when
# diffusers has a function that registers a pipeline.
AUTO_PIPELINE_MODULE = "diffusers.pipelines.auto_pipeline"


def auto_video_processor() -> type:
    """
    Returns `AutoVideoProcessor`, with which a class can be registered also where torchvision is missing.

    The name at the top of transformers is then a placeholder that raises at every use, though registering needs no
    torchvision. Read in transformers 5.20.2, 5.23.0, 5.24.0; it can go when the name is always the class.
    """
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    return AutoVideoProcessor


def text_to_image_pipelines() -> OrderedDict[str, type]:
    """
    Returns the table in which `AutoPipelineForText2Image` looks a pipeline up.

    diffusers has no function that adds a class to it. Read in diffusers 0.40.0, 0.42.1; it can go when there is one.
    """
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    return AUTO_TEXT2IMAGE_PIPELINES_MAPPING


def add_to_diffusers(pipeline_class: type) -> None:
    """
    Makes `DiffusionPipeline.from_pretrained` find a class that a `model_index.json` names.

    diffusers looks the name up in its own module and has no function that registers one. Read in diffusers 0.40.0,
    0.42.1; it can go when there is one.
    """
    import diffusers

    setattr(diffusers, pipeline_class.__name__, pipeline_class)


def forget_custom_code(pipeline_class: type) -> None:
    """
    Makes `save_pretrained` of a registered task's pipeline save no copy of its code.

    `PIPELINE_REGISTRY.register_pipeline` marks each class as custom code; a saved pipeline would then ask for
    `trust_remote_code`. Read in transformers 5.20.2, 5.23.0, 5.24.0; it can go when registering does not mark.
    """
    del pipeline_class._registered_impl

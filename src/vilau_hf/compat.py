"""
Names that transformers does not document as public, and differences between its versions.

This file is for the modules outside of the islands. `modeling` and `processing` have similar files, and `pipelines`
needs none. `tests/test_layout.py` forbids such imports anywhere else.

The comment of each name says why it is needed and when it can go. All of `LIBRARY_NAMES` were read in transformers
5.20.2, 5.23.0 and 5.24.0, where they are the same. They are imported at their first use.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


LIBRARY_NAMES = {
    # `Trainer` applies kernels to the whole model, and liger_kernel has none for our model type. Its function for a
    # language model alone, `_apply_liger_kernel_to_instance`, is also private. Can go when `TrainingArguments` accepts
    # a sub-model, or liger_kernel supports this model.
    "apply_liger_kernel": "transformers.integrations.liger",
    # Name of the file from which `Trainer.train` reads the state of a checkpoint. We write it again when the name of
    # the best checkpoint is final. Can go when the base class writes checkpoints atomically.
    "TRAINER_STATE_NAME": "transformers.trainer",
    # Finds the checkpoint that `Trainer.train(resume_from_checkpoint=True)` resumes. Our trainers load more states
    # from the same checkpoint. Can go when `Trainer` tells which checkpoint it resumes.
    "get_last_checkpoint": "transformers.trainer_utils",
    # Gives the order in which `save_total_limit` deletes checkpoints. Can go when the base class deletes atomically.
    "sort_checkpoints": "transformers.trainer_utils",
    # Documented by accelerate (package_reference/utilities), but not in its top-level namespace. Ranks of a run agree
    # on the name of a staging folder. Read in accelerate 1.15.0. Can go when accelerate exports it.
    "broadcast_object_list": "accelerate.utils",
    # Documented (main_classes/callback), but not in the top-level namespace. We need the types of the loggers to log
    # images, for which callbacks have no event. Can go when transformers exports them or logs images.
    "TensorBoardCallback": "transformers.integrations",
    "TrackioCallback": "transformers.integrations",
    "WandbCallback": "transformers.integrations",
    # Registers a task of `pipeline`. The documentation shows it (add_new_pipeline), but it is not in the top-level
    # namespace. Can go when transformers exports it.
    "PIPELINE_REGISTRY": "transformers.pipelines",
    # The class of `transformers serve`. Can go when the library documents a way to start its server from Python.
    "Serve": "transformers.cli.serve",
    # The table by which that server recognises multimodal models. `Auto*.register` does not add to it. Can go when the
    # server asks the Auto classes.
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES": "transformers.models.auto.modeling_auto",
}


def __getattr__(name: str) -> Any:
    if name not in LIBRARY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(LIBRARY_NAMES[name]), name)
    globals()[name] = value  # Python finds it there from now on, without this function
    return value


# Up to 5.22 transformers says "gradient checkpointing". From 5.23 on it says "activation checkpointing" and warns
# about the old name. Both definitions below can go when 5.23 is the oldest supported version.


@dataclass
class ActivationCheckpointingArguments:
    """Adds the argument `activation_checkpointing` to `TrainingArguments`, which it precedes in the base classes."""

    activation_checkpointing: bool | None = field(
        default=None,
        metadata={
            "help": "compute activations again in the backward pass, which needs less memory and more time",
            "nargs": "?",
            "const": True,
        },
    )

    def __post_init__(self) -> None:
        from transformers import TrainingArguments

        if not hasattr(TrainingArguments, "activation_checkpointing"):
            arguments: Any = self  # which has the fields of `TrainingArguments` as well
            if arguments.activation_checkpointing is None:
                arguments.activation_checkpointing = arguments.gradient_checkpointing
            arguments.gradient_checkpointing = arguments.activation_checkpointing
        super().__post_init__()  # type: ignore[misc]  # `TrainingArguments` follows in the bases


def enable_activation_checkpointing(model: Any) -> None:
    """Enables activation checkpointing of a `PreTrainedModel` by the method's name in this version."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable()


# Module of diffusers that holds the tables of `AutoPipelineFor...`. Read in diffusers 0.40.0, 0.42.1. It can go when
# diffusers has a function that registers a pipeline.
AUTO_PIPELINE_MODULE = "diffusers.pipelines.auto_pipeline"


def auto_video_processor() -> Any:
    """
    Returns `AutoVideoProcessor`, which can register a class even without torchvision.

    Without torchvision, the name at the top level of transformers is a placeholder that raises at each use. Read in
    transformers 5.20.2, 5.23.0 and 5.24.0. It can go when the name is always the class.
    """
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    return AutoVideoProcessor


def text_to_image_pipelines() -> MutableMapping[str, Any]:
    """
    Returns the table of the pipelines that `AutoPipelineForText2Image` finds.

    diffusers has no function that adds a class to it. Read in diffusers 0.40.0 and 0.42.1. It can go when there is
    one.
    """
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    return AUTO_TEXT2IMAGE_PIPELINES_MAPPING


def add_to_transformers(model_class: type) -> None:
    """
    Adds a class to transformers, so that `getattr(transformers, config.architectures[0])` finds it.

    TRL loads a model by its path this way (trl#3862, read in 1.16.0). For other classes it reads `config.auto_map`,
    which only configurations with custom code have. Can go when TRL asks the Auto classes.

    Args:
        model_class (`type`): the class.
    """
    transformers = import_module("transformers")
    setattr(transformers, model_class.__name__, model_class)


def add_to_diffusers(pipeline_class: type) -> None:
    """
    Adds a class to diffusers, so that `DiffusionPipeline.from_pretrained` finds it by its name in `model_index.json`.

    diffusers looks for the name in the module `diffusers` and has no function that registers a class. Read in
    diffusers 0.40.0 and 0.42.1. It can go when there is one.
    """
    import diffusers

    setattr(diffusers, pipeline_class.__name__, pipeline_class)


def forget_custom_code(pipeline_class: Any) -> None:
    """
    Makes `save_pretrained` of a registered pipeline save no copy of its code.

    `PIPELINE_REGISTRY.register_pipeline` marks each class as custom code, so loading a saved pipeline would need
    `trust_remote_code`. Read in transformers 5.20.2, 5.23.0 and 5.24.0. It can go when registering does not mark.
    """
    del pipeline_class._registered_impl

"""What the package needs of its libraries beyond what they document, each with its reason."""

from collections import OrderedDict


# Module of diffusers that holds the tables of `AutoPipelineFor...`. Read in diffusers 0.40.0, 0.42.1.
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

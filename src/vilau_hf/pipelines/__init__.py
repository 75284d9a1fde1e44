"""Pipelines: diffusers style, and tasks of transformers."""

from .pipeline_text_to_image import VilaUTextToImagePipeline, VilaUTextToVideoPipeline
from .pipeline_vilau import VilaUPipeline, VilaUVideoPipelineOutput


__all__ = ["VilaUPipeline", "VilaUTextToImagePipeline", "VilaUTextToVideoPipeline", "VilaUVideoPipelineOutput"]

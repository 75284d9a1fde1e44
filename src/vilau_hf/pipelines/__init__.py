"""Pipelines: diffusers style, and tasks of transformers."""

from .pipeline_vilau import VilaUPipeline, VilaUVideoPipelineOutput


__all__ = ["VilaUPipeline", "VilaUVideoPipelineOutput"]

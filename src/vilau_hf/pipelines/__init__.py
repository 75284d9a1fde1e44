"""Pipelines: diffusers style, and tasks of transformers."""

import transformers  # noqa: F401  must come first: its import registers the classes of this package

from .candidate_ranking_vilau import AnswerRanker, LikelihoodRanker, TowerRanker
from .image_streamer_vilau import VilaUImageStreamer
from .pipeline_text_to_image import VilaUTextToImagePipeline, VilaUTextToVideoPipeline
from .pipeline_vilau import VilaUPipeline, VilaUVideoPipelineOutput


__all__ = [
    "AnswerRanker",
    "LikelihoodRanker",
    "TowerRanker",
    "VilaUImageStreamer",
    "VilaUPipeline",
    "VilaUTextToImagePipeline",
    "VilaUTextToVideoPipeline",
    "VilaUVideoPipelineOutput",
]

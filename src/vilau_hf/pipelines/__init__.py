"""Pipelines of diffusers and transformers, and their streamers and rankers."""

# Must come first: the import of transformers registers the classes of this package, which imports the modules below.
import transformers  # noqa: F401

from .candidate_ranking_vilau import AnswerRanker, LikelihoodRanker, TowerRanker
from .image_streamer_vilau import VilaUImageStreamer
from .pipeline_outputs_vilau import VilaUImagePipelineOutput, VilaUVideoPipelineOutput
from .pipeline_text_to_image import VilaUTextToImagePipeline, VilaUTextToVideoPipeline
from .pipeline_vilau import VilaUPipeline


__all__ = [
    "AnswerRanker",
    "LikelihoodRanker",
    "TowerRanker",
    "VilaUImagePipelineOutput",
    "VilaUImageStreamer",
    "VilaUPipeline",
    "VilaUTextToImagePipeline",
    "VilaUTextToVideoPipeline",
    "VilaUVideoPipelineOutput",
]

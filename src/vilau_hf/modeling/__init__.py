"""Configurations and models."""

# must come first: its import registers the classes of this package
import transformers  # noqa: F401

from .configuration_vilau import VilaUConfig, VilaUDepthConfig, VilaUVisionConfig
from .modeling_depth_transformer import VilaUDepthTransformer
from .modeling_residual_quantizer import VilaUResidualQuantizer
from .modeling_vilau import VILAU_SKIP_MODULES, VilaUForConditionalGeneration, VilaUModel, VilaUPreTrainedModel
from .modeling_vision_tower import VilaUVisionTower, VilaUVisionTowerForPreTraining
from .outputs_vilau import VilaUGenerateOutput


__all__ = [
    "VILAU_SKIP_MODULES",
    "VilaUConfig",
    "VilaUDepthConfig",
    "VilaUDepthTransformer",
    "VilaUForConditionalGeneration",
    "VilaUGenerateOutput",
    "VilaUModel",
    "VilaUPreTrainedModel",
    "VilaUResidualQuantizer",
    "VilaUVisionConfig",
    "VilaUVisionTower",
    "VilaUVisionTowerForPreTraining",
]

"""
VILA-U for Hugging Face: one autoregressive model that understands and generates images, videos and text.

Public names are imported at their first use. The import of this package registers its classes with the Auto classes of
transformers and diffusers, see `registration`.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .registration import register_when_imported
from .tested_versions import warn_if_untested
from .version import __version__


if TYPE_CHECKING:
    from .modeling import (
        VILAU_SKIP_MODULES,
        VilaUConfig,
        VilaUDepthConfig,
        VilaUDepthTransformer,
        VilaUForConditionalGeneration,
        VilaUGenerateOutput,
        VilaUModel,
        VilaUPreTrainedModel,
        VilaUResidualQuantizer,
        VilaUVisionConfig,
        VilaUVisionTower,
        VilaUVisionTowerForPreTraining,
    )
    from .original.convert_vilau_weights_to_hf import convert_original_checkpoint
    from .pipelines import (
        AnswerRanker,
        LikelihoodRanker,
        TowerRanker,
        VilaUImagePipelineOutput,
        VilaUImageStreamer,
        VilaUPipeline,
        VilaUTextToImagePipeline,
        VilaUTextToVideoPipeline,
        VilaUVideoPipelineOutput,
    )
    from .processing import (
        VilaUImageProcessor,
        VilaUImageProcessorPil,
        VilaUProcessor,
        VilaUVideoProcessor,
        original_chat_template,
        vilau_chat_template,
    )

# folder of the small checkpoint that is shipped with the package
TINY_CHECKPOINT = str(Path(__file__).parent / "checkpoints" / "tiny")

__all__ = [
    "__version__",
    "TINY_CHECKPOINT",
    "VILAU_SKIP_MODULES",
    "AnswerRanker",
    "LikelihoodRanker",
    "TowerRanker",
    "VilaUConfig",
    "VilaUDepthConfig",
    "VilaUDepthTransformer",
    "VilaUForConditionalGeneration",
    "VilaUGenerateOutput",
    "VilaUImagePipelineOutput",
    "VilaUImageProcessor",
    "VilaUImageProcessorPil",
    "VilaUImageStreamer",
    "VilaUModel",
    "VilaUPipeline",
    "VilaUPreTrainedModel",
    "VilaUProcessor",
    "VilaUResidualQuantizer",
    "VilaUTextToImagePipeline",
    "VilaUTextToVideoPipeline",
    "VilaUVideoPipelineOutput",
    "VilaUVideoProcessor",
    "VilaUVisionConfig",
    "VilaUVisionTower",
    "VilaUVisionTowerForPreTraining",
    "convert_original_checkpoint",
    "original_chat_template",
    "vilau_chat_template",
]


def __getattr__(name: str) -> Any:
    # Each public name that is not defined above is one of these packages or in the `__all__` of one of them.
    packages = ("modeling", "processing", "pipelines")
    if name in packages:
        return importlib.import_module(f".{name}", __name__)
    if name == "convert_original_checkpoint":
        module = importlib.import_module(".original.convert_vilau_weights_to_hf", __name__)
    elif name in __all__:
        modules = (importlib.import_module(f".{package}", __name__) for package in packages)
        module = next(module for module in modules if name in module.__all__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(module, name)  # Python finds it there from now on, without this function
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


warn_if_untested()
register_when_imported()

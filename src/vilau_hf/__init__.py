"""VILA-U for Hugging Face: one autoregressive model that understands and generates images, videos and text."""

import warnings
from pathlib import Path

import diffusers
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.modeling_auto import (
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoModelForZeroShotImageClassification,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .convert_vilau_weights_to_hf import (
    convert_original_checkpoint,
    load_original_model,
    load_original_processor,
)
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
from .modeling.configuration_vilau import VilaUOriginalConfig
from .pipelines import (
    AnswerRanker,
    LikelihoodRanker,
    TowerRanker,
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
from .version import __version__


with warnings.catch_warnings():  # this imports every pipeline of diffusers, one of which uses what torch deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

# folder of the small checkpoint that comes with the package
TINY_CHECKPOINT = str(Path(__file__).parent / "checkpoints" / "tiny")

AutoConfig.register("vilau", VilaUConfig)
AutoConfig.register("vilau_vision", VilaUVisionConfig)
AutoConfig.register("vilau_depth", VilaUDepthConfig)
AutoConfig.register("vila_u_llama", VilaUOriginalConfig)
AutoModel.register(VilaUConfig, (VilaUForConditionalGeneration, VilaUModel))
AutoModel.register(VilaUVisionConfig, (VilaUVisionTower, VilaUVisionTowerForPreTraining))
AutoModel.register(VilaUDepthConfig, VilaUDepthTransformer)
AutoModelForImageTextToText.register(VilaUConfig, VilaUForConditionalGeneration)
AutoModelForMultimodalLM.register(VilaUConfig, VilaUForConditionalGeneration)
AutoModelForPreTraining.register(VilaUConfig, VilaUForConditionalGeneration)
AutoModelForZeroShotImageClassification.register(VilaUVisionConfig, VilaUVisionTowerForPreTraining)
AutoProcessor.register(VilaUConfig, VilaUProcessor)
AutoImageProcessor.register(
    VilaUConfig, image_processor_classes={"torchvision": VilaUImageProcessor, "pil": VilaUImageProcessorPil}
)
AutoVideoProcessor.register(
    VilaUConfig, video_processor_classes={"torchvision": VilaUVideoProcessor, "pil": VilaUVideoProcessor}
)

for _task, _pipeline in (("text-to-image", VilaUTextToImagePipeline), ("text-to-video", VilaUTextToVideoPipeline)):
    PIPELINE_REGISTRY.register_pipeline(
        _task,
        pipeline_class=_pipeline,
        pt_model=AutoModelForMultimodalLM,
        default={"model": (TINY_CHECKPOINT, "main")},
        type="multimodal",
    )
    del _pipeline._registered_impl  # or a saved pipeline would ask for code that the package has
diffusers.VilaUPipeline = VilaUPipeline  # where DiffusionPipeline.from_pretrained looks for the class
AUTO_TEXT2IMAGE_PIPELINES_MAPPING["vilau"] = VilaUPipeline

# islands know nothing of the converter, which knows them
VilaUForConditionalGeneration.from_original = classmethod(load_original_model)
VilaUProcessor.from_original = classmethod(load_original_processor)

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

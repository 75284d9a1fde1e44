"""VILA-U for Hugging Face: one autoregressive model that understands and generates images, videos and text."""

from pathlib import Path

import diffusers
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.modeling_auto import (
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoModelForZeroShotImageClassification,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from .convert_vilau_weights_to_hf import (
    convert_original_checkpoint,
    load_original_model,
    load_original_processor,
)
from .modeling import (
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
from .pipelines import VilaUPipeline, VilaUVideoPipelineOutput
from .processing import (
    VilaUImageProcessor,
    VilaUImageProcessorPil,
    VilaUProcessor,
    VilaUVideoProcessor,
    original_chat_template,
    vilau_chat_template,
)
from .version import __version__


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

diffusers.VilaUPipeline = VilaUPipeline  # where DiffusionPipeline.from_pretrained looks for the class
AUTO_TEXT2IMAGE_PIPELINES_MAPPING["vilau"] = VilaUPipeline

# islands know nothing of the converter, which knows them
VilaUForConditionalGeneration.from_original = classmethod(load_original_model)
VilaUProcessor.from_original = classmethod(load_original_processor)

__all__ = [
    "__version__",
    "TINY_CHECKPOINT",
    "VilaUConfig",
    "VilaUDepthConfig",
    "VilaUDepthTransformer",
    "VilaUForConditionalGeneration",
    "VilaUGenerateOutput",
    "VilaUImageProcessor",
    "VilaUImageProcessorPil",
    "VilaUModel",
    "VilaUPipeline",
    "VilaUPreTrainedModel",
    "VilaUProcessor",
    "VilaUResidualQuantizer",
    "VilaUVideoPipelineOutput",
    "VilaUVideoProcessor",
    "VilaUVisionConfig",
    "VilaUVisionTower",
    "VilaUVisionTowerForPreTraining",
    "convert_original_checkpoint",
    "original_chat_template",
    "vilau_chat_template",
]

"""
Registers the classes of the package with the Auto classes of transformers and diffusers.

Registering needs the classes, and with them torch, transformers and a part of diffusers. That takes seconds, for which
`vilau --help` or a script that wants `TINY_CHECKPOINT` should not wait. No Auto class can be used before its library
is imported. So the classes are registered at once if the library is there when `vilau_hf` is imported, and otherwise
right after the library's import. Both orders of imports give the same state.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import MethodType

from .compat import (
    AUTO_PIPELINE_MODULE,
    add_to_diffusers,
    auto_video_processor,
    forget_custom_code,
    text_to_image_pipelines,
)


def register_when_imported() -> None:
    """Registers with the libraries that are imported already, and with each other one after its import."""
    callbacks = {
        "transformers": _register_classes,
        # Our modules import parts of diffusers, and parts of diffusers import transformers. Without this line the
        # classes could be registered while such a part is half imported, and fail to import it.
        "diffusers": lambda: importlib.import_module("transformers"),
        # This module imports every pipeline of diffusers (0.8 s). Only who uses its Auto class should wait for that.
        AUTO_PIPELINE_MODULE: _register_auto_pipeline,
    }
    waiting = {name: callback for name, callback in callbacks.items() if sys.modules.get(name) is None}
    sys.meta_path.insert(0, _CallAfterImport(waiting.copy()))
    for name, callback in callbacks.items():
        if name not in waiting:
            callback()


class _CallAfterImport(MetaPathFinder):
    """
    Calls a function right after a module was imported for the first time. Other finders find the module itself.

    Args:
        callbacks (`dict[str, Callable]`): module name -> function; each is called once.
    """

    def __init__(self, callbacks: dict[str, Callable[[], object]]):
        self.callbacks = callbacks

    def find_spec(self, name, path=None, target=None):
        if name not in self.callbacks:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is None:
            return None
        # `importlib.util.find_spec` searches without an import, so the function hangs on the module's execution.
        loader, execute = spec.loader, spec.loader.exec_module

        def execute_and_call(module):
            del loader.exec_module  # the loader's own again
            execute(module)
            callback = self.callbacks.pop(name, None)
            if callback is not None:
                callback()

        loader.exec_module = execute_and_call
        return spec


class _FromOriginal:
    """
    Class method that a function of the converter implements. The converter imports the islands, so they cannot import
    it; it is imported at the first use.

    Args:
        function (`str`): name of the function, whose first argument is the class.
    """

    def __init__(self, function: str):
        self.function = function

    def __get__(self, instance, owner):
        converter = importlib.import_module(".original.convert_vilau_weights_to_hf", __package__)
        return MethodType(getattr(converter, self.function), owner)


def _register_classes() -> None:
    # Imports nothing but the islands, and their files instead of their packages: it may run while the `__init__.py` of
    # an island, or any other module of this package, is half imported.
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoModelForPreTraining,
        AutoModelForZeroShotImageClassification,
        AutoProcessor,
        is_torchvision_available,
    )

    from .modeling.configuration_vilau import VilaUConfig, VilaUDepthConfig, VilaUOriginalConfig, VilaUVisionConfig
    from .modeling.modeling_depth_transformer import VilaUDepthTransformer
    from .modeling.modeling_vilau import VilaUForConditionalGeneration, VilaUModel
    from .modeling.modeling_vision_tower import VilaUVisionTower, VilaUVisionTowerForPreTraining
    from .pipelines.pipeline_vilau import VilaUPipeline
    from .processing.image_processing_pil_vilau import VilaUImageProcessorPil
    from .processing.image_processing_vilau import VilaUImageProcessor
    from .processing.processing_vilau import VilaUProcessor
    from .processing.video_processing_vilau import VilaUVideoProcessor

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
    image_processors = {"pil": VilaUImageProcessorPil}
    if is_torchvision_available():
        image_processors["torchvision"] = VilaUImageProcessor
    AutoImageProcessor.register(VilaUConfig, image_processor_classes=image_processors)
    auto_video_processor().register(
        VilaUConfig, video_processor_classes={"torchvision": VilaUVideoProcessor, "pil": VilaUVideoProcessor}
    )
    _register_tasks()
    add_to_diffusers(VilaUPipeline)
    VilaUForConditionalGeneration.from_original = _FromOriginal("load_original_model")
    VilaUProcessor.from_original = _FromOriginal("load_original_processor")


def _register_tasks() -> None:
    from transformers import AutoModelForMultimodalLM

    from . import TINY_CHECKPOINT
    from .compat import PIPELINE_REGISTRY
    from .pipelines.pipeline_text_to_image import VilaUTextToImagePipeline, VilaUTextToVideoPipeline

    for task, pipeline_class in (
        ("text-to-image", VilaUTextToImagePipeline),
        ("text-to-video", VilaUTextToVideoPipeline),
    ):
        PIPELINE_REGISTRY.register_pipeline(
            task,
            pipeline_class=pipeline_class,
            pt_model=AutoModelForMultimodalLM,
            default={"model": (TINY_CHECKPOINT, "main")},
            type="multimodal",
        )
        forget_custom_code(pipeline_class)


def _register_auto_pipeline() -> None:
    from .pipelines.pipeline_vilau import VilaUPipeline

    text_to_image_pipelines()["vilau"] = VilaUPipeline

"""
Registers the classes of the package with the Auto classes of transformers and diffusers.

Registering needs the classes, and with them torch, transformers and a part of diffusers. That takes seconds, for which
`vilau --help` or a script that wants `TINY_CHECKPOINT` should not wait. No Auto class can be used before its library
is imported. So the classes are registered at once if the library is there when `vilau_hf` is imported, and otherwise
right after the library's import. Both orders of imports give the same state.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
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
        # This module imports every pipeline of diffusers (0.8 s). Only users of its Auto class should wait for it.
        AUTO_PIPELINE_MODULE: _register_auto_pipeline,
    }
    waiting = {name: callback for name, callback in callbacks.items() if sys.modules.get(name) is None}
    # a reload of this package finds the finder that is there already
    if not any(isinstance(finder, _CallAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CallAfterImport(waiting.copy()))
    for name, callback in callbacks.items():
        if name not in waiting:
            callback()


class _CallAfterImport(MetaPathFinder):
    """
    Calls a function right after a module was imported for the first time. Other finders find the module itself.

    Args:
        callbacks (`dict[str, Callable]`): module name -> function. Each is called until it succeeds once.
    """

    def __init__(self, callbacks: dict[str, Callable[[], object]]):
        self.callbacks = callbacks
        self._searching = threading.local()  # names that this finder asks the others for

    def find_spec(self, name, path=None, target=None):
        searching = self._searching.__dict__.setdefault("names", set())
        if name not in self.callbacks or name in searching:
            return None
        searching.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            searching.discard(name)
        if spec is not None:
            # A search for the module does not import it. So the function is called after the module has run.
            spec.loader = _LoaderWithCallback(spec.loader, lambda: self._call(name))
        return spec

    def _call(self, name: str) -> None:
        callback = self.callbacks.get(name)
        if callback is not None:
            callback()
            self.callbacks.pop(name, None)  # after it succeeded: an interrupted registration is done again


class _LoaderWithCallback(Loader):
    """Loads a module by `loader`, which the module then names as its own, and calls `callback`."""

    def __init__(self, loader: Loader, callback: Callable[[], None]):
        self.loader, self.callback = loader, callback

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.callback()


class _FromOriginal:
    """
    Class method that a function of the converter implements.

    The islands cannot import the converter, which imports them. So the converter is imported at the first use.

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

    # `exist_ok`: a registration that was interrupted is done again as a whole
    AutoConfig.register("vilau", VilaUConfig, exist_ok=True)
    AutoConfig.register("vilau_vision", VilaUVisionConfig, exist_ok=True)
    AutoConfig.register("vilau_depth", VilaUDepthConfig, exist_ok=True)
    AutoConfig.register("vila_u_llama", VilaUOriginalConfig, exist_ok=True)
    AutoModel.register(VilaUConfig, (VilaUForConditionalGeneration, VilaUModel), exist_ok=True)
    AutoModel.register(VilaUVisionConfig, (VilaUVisionTower, VilaUVisionTowerForPreTraining), exist_ok=True)
    AutoModel.register(VilaUDepthConfig, VilaUDepthTransformer, exist_ok=True)
    AutoModelForImageTextToText.register(VilaUConfig, VilaUForConditionalGeneration, exist_ok=True)
    AutoModelForMultimodalLM.register(VilaUConfig, VilaUForConditionalGeneration, exist_ok=True)
    AutoModelForPreTraining.register(VilaUConfig, VilaUForConditionalGeneration, exist_ok=True)
    AutoModelForZeroShotImageClassification.register(VilaUVisionConfig, VilaUVisionTowerForPreTraining, exist_ok=True)
    AutoProcessor.register(VilaUConfig, VilaUProcessor, exist_ok=True)
    image_processors = {"pil": VilaUImageProcessorPil}
    if is_torchvision_available():
        image_processors["torchvision"] = VilaUImageProcessor
    AutoImageProcessor.register(VilaUConfig, image_processor_classes=image_processors, exist_ok=True)
    auto_video_processor().register(
        VilaUConfig,
        video_processor_classes={"torchvision": VilaUVideoProcessor, "pil": VilaUVideoProcessor},
        exist_ok=True,
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

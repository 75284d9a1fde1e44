"""
Registers the classes of the package with the Auto classes of transformers and diffusers.

Registering imports the classes, and with them torch, transformers and some of diffusers. That takes seconds, and
`vilau --help` or a script that only needs `TINY_CHECKPOINT` should not wait for it. No Auto class can be used before
its library is imported. So the classes are registered when `vilau_hf` is imported if the library is loaded by then,
and otherwise right after the import of the library. Both orders of imports give the same state.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MethodType, ModuleType

from .compat import (
    AUTO_PIPELINE_MODULE,
    add_to_diffusers,
    add_to_transformers,
    auto_video_processor,
    forget_custom_code,
    text_to_image_pipelines,
)


def register_when_imported() -> None:
    """Registers the classes with each library that is imported already, and with the others after their import."""
    callbacks: dict[str, Callable[[], object]] = {
        "transformers": _register_classes,
        # Our modules import modules of diffusers, some of which import transformers. Without this line the classes
        # could be registered while such a module is half imported, and our import of it would fail.
        "diffusers": lambda: importlib.import_module("transformers"),
        # This module imports every pipeline of diffusers (0.8 s). Only users of its Auto class should wait for it.
        AUTO_PIPELINE_MODULE: _register_auto_pipeline,
    }
    waiting = {name: callback for name, callback in callbacks.items() if sys.modules.get(name) is None}
    # a reload of this package must not add a second finder
    if not any(isinstance(finder, _CallAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CallAfterImport(waiting.copy()))
    for name, callback in callbacks.items():
        if name not in waiting:
            callback()


class _CallAfterImport(MetaPathFinder):
    """
    Import hook that calls a function right after the first import of a module.

    It leaves the search for the module to the other finders and only replaces the loader that they return.

    Args:
        callbacks (`dict[str, Callable]`): function for each module name. It is called until it succeeds once.
    """

    def __init__(self, callbacks: dict[str, Callable[[], object]]) -> None:
        self.callbacks = callbacks
        self._searching = threading.local()  # module names for which `find_spec` now asks the other finders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds a module for which there is a callback, by the other finders."""
        # `importlib.util.find_spec` below asks all finders, this one included. `None` ends the recursion.
        searching = self._searching.__dict__.setdefault("names", set())
        if name not in self.callbacks or name in searching:
            return None
        searching.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            searching.discard(name)
        if spec is not None and spec.loader is not None:
            # A search can happen without an import. So the loader calls the function, after the module has run.
            spec.loader = _LoaderWithCallback(spec.loader, lambda: self._call(name))
        return spec

    def _call(self, name: str) -> None:
        """Calls the function of a module, if it has not succeeded yet."""
        callback = self.callbacks.get(name)
        if callback is not None:
            callback()
            self.callbacks.pop(name, None)  # only after success, so that an interrupted registration is repeated


class _LoaderWithCallback(Loader):
    """
    Loads a module by another loader and then calls a function.

    Args:
        loader (`Loader`): loader of the module.
        callback (`Callable`): function without arguments.
    """

    def __init__(self, loader: Loader, callback: Callable[[], None]) -> None:
        self.loader = loader
        self.callback = callback

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Creates the module by the other loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module by the other loader, and calls the function."""
        # The module must not keep this loader: `importlib.reload` and `inspect` would use it.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.callback()


class _FromOriginal:
    """
    Descriptor of a class method that the converter of the original release implements.

    The islands cannot import the converter, which imports them. So the converter is imported at the first use.

    Args:
        function (`str`): name of the function in the converter. Its first argument is the class.
    """

    def __init__(self, function: str) -> None:
        self.function = function

    def __get__(self, instance: object, owner: type) -> MethodType:
        converter = importlib.import_module(".original.convert_vilau_weights_to_hf", __package__)
        return MethodType(getattr(converter, self.function), owner)


def _register_classes() -> None:
    """Registers all classes with transformers, and the pipeline with diffusers."""
    # This can run while the `__init__.py` of an island, or another module of this package, is half imported. So it
    # imports only files of the islands.
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

    # `exist_ok`, since an interrupted registration is repeated from the start
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
    image_processors: dict[str, type] = {"pil": VilaUImageProcessorPil}
    if is_torchvision_available():
        image_processors["torchvision"] = VilaUImageProcessor
    AutoImageProcessor.register(VilaUConfig, image_processor_classes=image_processors, exist_ok=True)
    auto_video_processor().register(
        VilaUConfig,
        video_processor_classes={"torchvision": VilaUVideoProcessor, "pil": VilaUVideoProcessor},
        exist_ok=True,
    )
    _register_tasks()
    add_to_transformers(VilaUForConditionalGeneration)
    add_to_diffusers(VilaUPipeline)
    for cls, function in (
        (VilaUForConditionalGeneration, "load_original_model"),
        (VilaUProcessor, "load_original_processor"),
    ):
        setattr(cls, "from_original", _FromOriginal(function))  # noqa: B010  the classes do not declare it


def _register_tasks() -> None:
    """Registers the tasks "text-to-image" and "text-to-video" of transformers' `pipeline`."""
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
    """Registers the pipeline with `AutoPipelineForText2Image` of diffusers."""
    from .pipelines.pipeline_vilau import VilaUPipeline

    text_to_image_pipelines()["vilau"] = VilaUPipeline

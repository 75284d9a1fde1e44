"""Chat over HTTP, in text about images: transformers' own server, told of this package's models."""

from .compat import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, Serve
from .modeling import VilaUConfig, VilaUForConditionalGeneration


def serve_model(model: str, **settings) -> Serve:
    """
    Serves a model by the routes of `transformers serve`, which understand OpenAI's clients.

    Args:
        model (`str`): folder or Hub id of a checkpoint; requests may name it or leave it out.
        settings: as for `transformers serve`, for example `host`, `port`, `device`, `dtype`. With `non_blocking=True`
            it returns at once, and `kill_server()` of the result ends it.

    Raises:
        ImportError: if `transformers[serving]` is not installed.
    """
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[VilaUConfig.model_type] = VilaUForConditionalGeneration.__name__
    return Serve(force_model=model, **settings)


__all__ = ["serve_model"]

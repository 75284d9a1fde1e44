"""HTTP server for chats about images: the server of transformers with the models of this package."""

from typing import Any

from .compat import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, Serve
from .modeling import VilaUConfig, VilaUForConditionalGeneration


def serve_model(model: str, **settings: Any) -> Serve:
    """
    Serves a model with the routes of `transformers serve`, which the clients of OpenAI can use.

    Args:
        model (`str`): folder or Hub id of a checkpoint. Requests can name it or leave the name out.
        settings: further arguments of `transformers serve`, for example `host`, `port`, `device`, `dtype`. With
            `non_blocking=True` the function returns at once, and `kill_server()` of the result stops the server.

    Returns:
        The server.

    Raises:
        ImportError: if `transformers[serving]` is not installed.
    """
    # The server chooses between text models and multimodal models by this table, which `Auto*.register` does not fill.
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[VilaUConfig.model_type] = VilaUForConditionalGeneration.__name__
    return Serve(force_model=model, **settings)


__all__ = ["serve_model"]

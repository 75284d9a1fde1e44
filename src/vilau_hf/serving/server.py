"""The server of transformers with the models of this package, behind the guard."""

from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from ..compat import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, Serve
from ..modeling import VilaUConfig, VilaUForConditionalGeneration
from ..modeling.argument_checks_vilau import PositiveInt, check_value
from .background_loop import BackgroundLoop
from .errors import add_error_handlers
from .guard import RequestGuard
from .media import MediaSources
from .prompt_check import PromptCheck
from .protocol import ChatRequest, CompletionRequest, ResponsesRequest, TextRequest


# The routes that take a prompt, with the class of their body.
SCHEMAS: dict[str, type[TextRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
}
# All other routes of transformers are removed. They load or unload models (`/load_model`, `/reset`,
# `/v1/audio/transcriptions`), or read images without the guard (`/v1/systemone`).
KEPT_ROUTES = {*SCHEMAS, "/health", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


def serve_model(
    model: str,
    *,
    api_key: str | None = None,
    media: MediaSources | None = None,
    max_body_bytes: int = 32 * 2**20,
    non_blocking: bool = False,
    **settings: Any,
) -> Serve:
    """
    Serves a model with the routes of `transformers serve`, which the clients of OpenAI can use.

    Clients cannot load or unload models. Images are `data:` URLs, unless `media` allows other sources.

    Args:
        model (`str`): folder or Hub id of a checkpoint. Requests can name it or leave the name out.
        api_key (`str`, *optional*): key that each request but `/health` must have.
        media ([`MediaSources`], *optional*): the images that clients may name. By default `data:` URLs only.
        max_body_bytes (`int`, *optional*, defaults to 32 MiB): largest accepted body of a request.
        non_blocking (`bool`, *optional*, defaults to `False`): whether the function returns at once. Then
            `kill_server()` of the result stops the server. Otherwise the function returns when the server has stopped.
        settings: further arguments of `transformers serve`, for example `host`, `port`, `device`, `dtype`.

    Returns:
        The server.

    Raises:
        ImportError: if `transformers[serving]` is not installed.
        ValueError: if `api_key` is empty or `max_body_bytes` is not positive.
    """
    if api_key is not None and not api_key.strip():
        raise ValueError("`api_key` must not be empty.")
    check_value("max_body_bytes", max_body_bytes, PositiveInt)
    # The server chooses between text models and multimodal models by this table, which `Auto*.register` does not fill.
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[VilaUConfig.model_type] = VilaUForConditionalGeneration.__name__
    guard = {
        "schemas": SCHEMAS,
        "prompts": PromptCheck(model),
        "sources": media or MediaSources(),
        "api_key": api_key,
        "max_body_bytes": max_body_bytes,
    }
    return _GuardedServe(model, guard, non_blocking, settings)


class _GuardedServe(Serve):
    """The server of transformers, whose application is changed before it starts."""

    def __init__(self, model: str, guard: dict[str, Any], non_blocking: bool, settings: dict[str, Any]) -> None:
        self._model = model
        self._guard = guard
        self._non_blocking = non_blocking
        # The base class builds the application and starts the server in its constructor. With `non_blocking` it does
        # so by `start_server`, the only method that runs in between (read in transformers 5.20.2, 5.23.0 and 5.24.0).
        super().__init__(force_model=model, non_blocking=True, **settings)

    def start_server(self) -> None:
        """Puts the guard around the application, and starts the server."""
        guard_app(self.server.config.app, self._model, self._guard)
        if self._non_blocking:
            super().start_server()
        else:
            self.server.run()


def guard_app(app: FastAPI, model: str, guard: dict[str, Any]) -> None:
    """
    Puts the guard around an application, which has not started.

    Args:
        app (`FastAPI`): the application of transformers.
        model (`str`): the name of the model for clients.
        guard (`dict[str, Any]`): arguments of [`RequestGuard`].
    """
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in KEPT_ROUTES]

    # The route of transformers asks the Hub in some versions, so it fails without a network (5.20.2, 5.23.0).
    def list_models() -> Response:
        entry = {"id": model, "object": "model", "created": 0, "owned_by": "local"}
        return JSONResponse({"object": "list", "data": [entry]})

    app.add_api_route("/v1/models", list_models, methods=["GET"])
    add_error_handlers(app)
    # The one that is added last sees a request first.
    app.add_middleware(BackgroundLoop)
    app.add_middleware(RequestGuard, **guard)


__all__ = ["guard_app", "serve_model"]

"""Errors of HTTP requests in the shape that clients of the OpenAI API expect."""

import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


logger = logging.getLogger(__name__)


class RequestError(Exception):
    """
    A request that the server refuses.

    Args:
        message (`str`): what is wrong and what is accepted. The client reads it.
        status (`int`, *optional*, defaults to 400): HTTP status code.
        param (`str`, *optional*): field of the request that is wrong.
        code (`str`, *optional*): name of the error for programs, such as `"invalid_api_key"`.
    """

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code

    def response(self) -> Response:
        """Returns the HTTP response for this error."""
        return error_response(self.message, self.status, self.param, self.code)


def error_response(message: str, status: int, param: str | None = None, code: str | None = None) -> Response:
    """
    Returns an error response with the body `{"error": {"message", "type", "param", "code"}}`.

    Args:
        message (`str`): the message.
        status (`int`): HTTP status code.
        param (`str`, *optional*): field of the request that is wrong.
        code (`str`, *optional*): name of the error for programs.
    """
    if status >= 500:
        kind = "server_error"
    elif status == 429:
        kind = "rate_limit_error"
    else:
        kind = "invalid_request_error"
    # 401 needs the scheme (RFC 9110). The client of OpenAI repeats a request after 429.
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(status)
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Makes all errors of an application have the same shape. Must run before the application starts."""
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_value_error)
    # Processor and model raise a `ValueError` for input that they do not accept.
    app.add_exception_handler(ValueError, _answer_value_error)
    app.add_exception_handler(Exception, _answer_exception)


def _answer_http_exception(request: Request, error: Any) -> Response:
    """Answers errors that a route raises. The unsupported status 422 becomes 400, as in the API of OpenAI."""
    status = 400 if error.status_code == 422 else error.status_code
    return error_response(str(error.detail), status)


def _answer_value_error(request: Request, error: Exception) -> Response:
    """Answers input that the model or its processor refuses."""
    logger.warning("Refused a request to %s: %s", request.url.path, error)
    return error_response(str(error), 400)


def _answer_exception(request: Request, error: Exception) -> Response:
    """Answers a fault of the server without its details, which the log has."""
    return error_response("The server failed to answer this request.", 500)


__all__ = ["RequestError", "add_error_handlers", "error_response"]

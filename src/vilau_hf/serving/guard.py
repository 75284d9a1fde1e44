"""Checks of each HTTP request before the application sees it: key, size, fields, prompt and images."""

import secrets
from collections.abc import Mapping

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import RequestError
from .media import MediaReader, MediaSources
from .prompt_check import PromptCheck
from .protocol import TextRequest, parse


# How long the rest of a body that was refused is read. Most clients have sent it by then.
DISCARD_SECONDS = 5.0


class RequestGuard:
    """
    Refuses bad requests, and replaces the images of good ones by checked `data:` URLs.

    The application gets the body that was checked, written anew. So it cannot read another meaning into the bytes.

    Args:
        app (`ASGIApp`): the application behind the guard.
        schemas (`Mapping[str, type[TextRequest]]`): class of the body by path of the route.
        prompts ([`PromptCheck`]): check of the prompt.
        sources ([`MediaSources`]): the images that a client may name.
        api_key (`str`, *optional*): key that each request but `/health` must have.
        max_body_bytes (`int`, *optional*, defaults to 32 MiB): largest accepted body.
        body_timeout (`float`, *optional*, defaults to 60): seconds in which a client must send its body.
        max_requests (`int`, *optional*, defaults to 256): requests that are answered or wait at the same time.
    """

    def __init__(
        self,
        app: ASGIApp,
        schemas: Mapping[str, type[TextRequest]],
        prompts: PromptCheck,
        sources: MediaSources,
        api_key: str | None = None,
        max_body_bytes: int = 32 * 2**20,
        body_timeout: float = 60.0,
        max_requests: int = 256,
    ) -> None:
        self.app = app
        self.schemas = schemas
        self.prompts = prompts
        self.media = MediaReader(sources)
        self.api_key = api_key
        self.max_body_bytes = max_body_bytes
        self.body_timeout = body_timeout
        self.max_requests = max_requests
        self._num_requests = 0
        # Threads apart from those of the application, which answer `/health`.
        self._limiter = CapacityLimiter(4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._answer_without_body(scope, receive, send)
            return
        try:
            self._check_key(scope)
            if self._num_requests >= self.max_requests:
                raise RequestError("The server is busy, try again later.", 429, code="server_busy")
        except RequestError as error:
            await _discard_body(receive)
            await error.response()(scope, receive, send)
            return
        self._num_requests += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._num_requests -= 1

    async def _answer_without_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request that changes nothing. `/health` needs no key, for load balancers."""
        try:
            # Browsers send OPTIONS without a key before a request to another host.
            if scope["type"] == "http" and scope["path"] != "/health" and scope["method"] != "OPTIONS":
                self._check_key(scope)
        except RequestError as error:
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with a body."""
        try:
            body = await self._read_body(scope, receive)
            if body is None:
                return  # the client has left
            schema = self.schemas.get(scope["path"])
            if schema is not None:
                body = await self._check_body(schema, scope, body)
        except RequestError as error:
            await error.response()(scope, receive, send)
            return
        await self.app(_with_length(scope, len(body)), _replay(body, receive), send)

    def _check_key(self, scope: Scope) -> None:
        """Raises a `RequestError` unless the request has the key of the server."""
        if self.api_key is None:
            return
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        # The time of this comparison does not tell how many characters are right.
        if scheme.lower() != "bearer" or not secrets.compare_digest(key.strip().encode(), self.api_key.encode()):
            raise RequestError(
                "The API key is missing or wrong. Send it in the header `Authorization: Bearer KEY`.",
                401,
                code="invalid_api_key",
            )

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Reads the body, up to the limit. Returns `None` if the client left."""
        too_large = RequestError(f"The body of a request must have at most {self.max_body_bytes} bytes.", 413)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_body_bytes:
            await _discard_body(receive)
            raise too_large
        chunks: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(self.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self.max_body_bytes:
                        if message.get("more_body", False):
                            await _discard_body(receive)
                        raise too_large
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError as error:
            raise RequestError(f"The body was not complete after {self.body_timeout:g} seconds.", 408) from error

    async def _check_body(self, schema: type[TextRequest], scope: Scope, body: bytes) -> bytes:
        """Checks fields, prompt and images, and returns the body for the application."""
        # A web page can send other content types to a server on the same machine without asking (CORS).
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestError(f"The header `Content-Type` must be 'application/json', got {kind!r}.", 415)
        # These steps take time for large bodies, and must not delay other requests.
        request = await to_thread.run_sync(parse, schema, body, limiter=self._limiter)
        await to_thread.run_sync(self.prompts.check, request, limiter=self._limiter)
        images = list(request.images())
        addresses = await self.media.read_all(image.address for image in images)
        for image, address in zip(images, addresses, strict=True):
            image.replace(address)
        checked = await to_thread.run_sync(lambda: request.model_dump_json(exclude_unset=True), limiter=self._limiter)
        return checked.encode()


async def _discard_body(receive: Receive) -> None:
    """Reads the rest of a body without keeping it, for a few seconds."""
    # A server that closes a connection with unread data resets it, and the client may not see the answer.
    with anyio.move_on_after(DISCARD_SECONDS):
        while (await receive()).get("more_body", False):
            pass


def _with_length(scope: Scope, length: int) -> Scope:
    """Returns the scope of a request with another length of the body."""
    scope = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=scope)
    headers["content-length"] = str(length)
    if "transfer-encoding" in headers:
        del headers["transfer-encoding"]
    return scope


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a function that gives the body first, and then what the server sends."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


__all__ = ["RequestGuard"]

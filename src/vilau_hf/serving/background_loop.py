"""An event loop in another thread, so that slow work of an application does not delay other answers."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


class BackgroundLoop:
    """
    Answers POST requests in the event loop of another thread, and all others in the loop of the server.

    The handlers of transformers decode images and make the prompt in the event loop. Here that delays other
    chats, but not `/health`. The loop is one thread, because these handlers are written for one.

    Args:
        app (`ASGIApp`): the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()
        # A daemon: the loop runs for ever, and must not keep the process from ending.
        threading.Thread(target=self.loop.run_forever, name="vilau-serve-requests", daemon=True).start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:  # the server stops, and all requests have been answered
                self.loop.call_soon_threadsafe(self.loop.stop)
            return
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        server_loop = asyncio.get_running_loop()
        answer = self.app(scope, _run_in(server_loop, receive), _run_in(server_loop, send))
        # If the server cancels this request, `wrap_future` cancels it in the other loop, too.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_as_coroutine(answer), self.loop))


def _run_in(loop: asyncio.AbstractEventLoop, function: Callable[..., Awaitable]) -> Callable[..., Awaitable]:
    """Returns a function that can be awaited in one loop and runs in another."""

    async def run(*args: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_as_coroutine(function(*args)), loop))

    return run


async def _as_coroutine(awaitable: Awaitable) -> Any:
    """Awaits an awaitable. `run_coroutine_threadsafe` takes coroutines only."""
    return await awaitable


__all__ = ["BackgroundLoop"]

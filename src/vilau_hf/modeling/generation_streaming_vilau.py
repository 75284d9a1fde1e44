# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Tells the streamer of a `generate` call that the call begins, and that it ends with an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def streamed_call(streamer: Any) -> Iterator[None]:
    """
    Reports the beginning and an error of a `generate` call to its streamer.

    transformers calls `streamer.end()` only after success. After an error, a thread that reads the streamer would wait
    for ever. The next call would begin with what is left of this one.

    Args:
        streamer (*optional*): its optional method `begin_call()` is called at the beginning. After an error its
            optional method `end_with_error(error)` is called, or else `end()`.
    """
    if hasattr(streamer, "begin_call"):
        streamer.begin_call()
    try:
        yield
    except BaseException as error:  # also `KeyboardInterrupt`, for which a thread must not wait; it is raised again
        if hasattr(streamer, "end_with_error"):
            streamer.end_with_error(error)
        elif hasattr(streamer, "end"):
            streamer.end()
        raise


__all__ = ["streamed_call"]

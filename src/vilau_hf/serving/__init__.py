"""HTTP server for chats about images: transformers' server behind a guard."""

from .media import MediaSources
from .server import serve_model


__all__ = ["MediaSources", "serve_model"]

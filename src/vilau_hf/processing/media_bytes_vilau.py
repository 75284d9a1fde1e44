# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Bytes of images and videos that are not files: web addresses, `data:` URLs and base64."""

import base64
import binascii
import io
from typing import Any

from .compat_processing_vilau import httpx


# seconds without any answer of the server
TIMEOUT = 30


class MediaBytes(str):
    """
    Bytes of a file in memory, as a string that describes them.

    transformers passes a video that is not decoded as a string, and tells files from frames by this type.

    Args:
        data (`bytes`): content of a file.
    """

    data: bytes

    def __new__(cls, data: bytes) -> "MediaBytes":
        """Creates the string from the content of a file."""
        described = super().__new__(cls, f"<{len(data)} bytes>")
        described.data = data
        return described

    def __reduce__(self) -> tuple[type, tuple[bytes]]:
        """Returns the class and the argument of its constructor, for copies and pickles."""
        return type(self), (self.data,)


def to_media_bytes(source: Any) -> Any:
    """Returns bytes and binary files in memory as `MediaBytes`, and everything else unchanged."""
    if isinstance(source, io.BytesIO):
        return MediaBytes(source.getvalue())
    return MediaBytes(bytes(source)) if isinstance(source, (bytes, bytearray)) else source


def is_web_address(source: str) -> bool:
    """Returns whether a string is an address that `download` takes."""
    return source.startswith(("http://", "https://"))


def download(address: str) -> bytes:
    """
    Downloads a file.

    Args:
        address (`str`): an address that begins with `http://` or `https://`.

    Returns:
        The content of the file.

    Raises:
        httpx.HTTPError: if the server does not answer in time, or not with the file.
    """
    return httpx.get(address, timeout=TIMEOUT, follow_redirects=True).raise_for_status().content


def bytes_of_data_url(source: str) -> bytes:
    """
    Decodes a `data:` URL or plain base64.

    Args:
        source (`str`): for example `"data:video/mp4;base64,AAAA"` or `"AAAA"`.

    Returns:
        The decoded bytes.

    Raises:
        ValueError: if the text is not base64.
    """
    header, comma, text = source.partition(",")
    if source.startswith("data:") and not (comma and header.endswith(";base64")):
        raise ValueError("a `data:` URL must have the form 'data:<type>;base64,<base64>'.")
    try:
        # line breaks are allowed in base64, and `validate` would refuse them
        return base64.b64decode("".join((text if comma else source).split()), validate=True)
    except binascii.Error as error:
        raise ValueError(
            "it must be the path of a file, a URL (`http://`, `https://`, `data:`) or base64. No such file is found."
        ) from error


__all__ = ["MediaBytes", "bytes_of_data_url", "download", "is_web_address", "to_media_bytes"]

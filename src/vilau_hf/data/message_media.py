"""Images and videos that are given inside of messages, as chat templates take them."""

import base64
import binascii
from typing import Any

from .records import MEDIA_FIELDS, RecordError, checked_content_parts


# Keys of a content part that can hold its image or video, as in `ProcessorMixin.apply_chat_template`.
_KEYS = {"image": ("image", "path", "url", "base64"), "video": ("video", "path", "url")}


def collect_media(record: dict) -> dict:
    """
    Checks the messages of a record, and moves the images and videos inside of them to `images` and `videos`.

    Args:
        record (`dict`): a record, whose content parts may hold their media: `{"type": "image", "image": image}`, or
            with the keys `"path"`, `"url"` or `"base64"` instead.

    Returns:
        The record if its messages hold no media, otherwise a new one with content parts without media.

    Raises:
        RecordError: for messages that do not follow the schema, and for `images` or `videos` that are no list. Also
            for media that are given both ways or for some content parts only. The message names the record.
    """
    content_parts = checked_content_parts(record)
    for name in MEDIA_FIELDS.values():
        if record.get(name) is not None and not isinstance(record[name], (list, tuple)):
            detail = f"`{name}` must be a list, got {type(record[name]).__name__}: put a single one into a list."
            raise RecordError(f"`{name}` is not a list", detail, record.get("id"))
    collected = {
        name: _media_of_kind(content_parts, kind, record)
        for kind, name in MEDIA_FIELDS.items()
        if any(_is_given(content_part, kind) for content_part in content_parts)
    }
    if not collected:
        return record
    messages = [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [_without_media(content_part) for content_part in message["content"]]}
        for message in record["messages"]
    ]
    return {**record, "messages": messages, **collected}


def _media_of_kind(content_parts: list[dict], kind: str, record: dict) -> list:
    """Returns the images or the videos of a record whose messages hold them."""
    name = MEDIA_FIELDS[kind]
    of_kind = [content_part for content_part in content_parts if content_part["type"] == kind]
    given = [content_part for content_part in of_kind if _is_given(content_part, kind)]
    if record.get(name) or record.get("codes") is not None or len(given) < len(of_kind):
        detail = (
            f"give the {name} either in `{name}` or inside of all content parts of type '{kind}'. "
            f"{len(given)} of {len(of_kind)} content parts hold one, and `{name}` has {len(record.get(name) or [])}."
        )
        raise RecordError(f"{name} are given in two ways", detail, record.get("id"))
    return [_item(content_part, kind, record) for content_part in given]


def _is_given(content_part: dict, kind: str) -> bool:
    return content_part["type"] == kind and any(content_part.get(key) is not None for key in _KEYS[kind])


def _item(content_part: dict, kind: str, record: dict) -> Any:
    key = next(key for key in _KEYS[kind] if content_part.get(key) is not None)
    item = content_part[key]
    if key != "base64":
        return item
    try:
        return base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        detail = f"the `base64` of a content part must be an image in base64: {error}."
        raise RecordError("image is not base64", detail, record.get("id")) from error


def _without_media(content_part: dict) -> dict:
    kind = content_part["type"]
    return {"type": kind, "text": None} if kind in MEDIA_FIELDS else content_part


__all__ = ["collect_media"]

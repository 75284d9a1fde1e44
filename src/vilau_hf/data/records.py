"""
Records: the one schema of training data.

What the assistant says is a target. What the user says is context.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from datasets import Features, Image, List, Value, Video


ROLES = ("system", "user", "assistant", "document")
# type of a content part -> field of the record that holds the media of this type
MEDIA_FIELDS = {"image": "images", "video": "videos"}
PLACEHOLDERS = {"image": "<image>", "video": "<video>"}

# Raises a `RecordError` with a reason and a detail.
Refuse = Callable[[str, str], NoReturn]


class RecordError(ValueError):
    """
    A record does not follow the schema.

    Args:
        reason (`str`): the kind of mistake in a few words, the same for all records with this mistake.
        detail (`str`): what is wrong in this record.
        record_id (`str`, *optional*): the `id` of the record.
    """

    def __init__(self, reason: str, detail: str, record_id: str | None = None) -> None:
        super().__init__(f"Record {record_id!r}: {detail}")
        self.reason = reason


def record_features() -> Features:
    """
    Returns the schema of stored records.

    - `id` (`str`): identifies the record in errors and reports.
    - `messages` (`list[dict]`): turns with `role` and `content`. The roles are `"system"` (first turn only), `"user"`
      and `"assistant"`; or there is one single message with the role `"document"`. `content` is a list of content
      parts: `{"type": "text", "text": str}`, `{"type": "image", "text": None}` or `{"type": "video", "text": None}`.
    - `images` (`list[dict]`): the images in the order of their content parts, each
      `{"path": str | None, "bytes": bytes | None}`. They can be given as paths, bytes, arrays or PIL images.
    - `videos` (`list[dict]`): the same for video files.

    Media are not decoded until [`MediaLoader`] opens them. So a pass over the records decodes and downloads nothing.

    Returns:
        `datasets.Features`: the features of a dataset of records.
    """
    content_part = {"type": Value("string"), "text": Value("string")}
    return Features(
        {
            "id": Value("string"),
            "messages": List({"role": Value("string"), "content": List(content_part)}),
            "images": List(Image(decode=False)),
            "videos": List(Video(decode=False)),
        }
    )


def text_content_part(text: str | None) -> dict[str, str | None]:
    """Returns a content part that holds text."""
    return {"type": "text", "text": text}


def media_content_part(kind: str | None) -> dict[str, str | None]:
    """Returns a content part that refers to the next `"image"` or `"video"` of the record."""
    return {"type": kind, "text": None}


def validate_record(record: Mapping[str, Any]) -> None:
    """
    Checks a record, either as it is stored or as it is in memory.

    In memory, `content` may be a string. Media fields may be missing, and their items may be of any type that
    [`MediaLoader`] opens.

    Args:
        record (`Mapping`): a record with `messages`, and with `id`, `images` and `videos` if it has any. A record that
            was encoded has `codes` instead of `images` and `videos`.

    Raises:
        RecordError: for an unknown role or type, a text that is not a string or contains a placeholder, or a record
            without a target. Also if the number of media or codes differs from the number of content parts. The
            message names the record.
    """
    record_id = record.get("id")

    def refuse(reason: str, detail: str) -> NoReturn:
        raise RecordError(reason, detail, record_id)

    if record_id is not None and not isinstance(record_id, str):
        refuse("`id` is not a string", f"`id` must be a string, got {type(record_id).__name__}.")
    if record_id is not None and not _is_unicode(record_id):
        refuse("`id` is not valid Unicode", f"`id` must not have lone surrogates, got {_shorten(record_id)}.")
    content_parts = checked_content_parts(record)
    _check_roles([message["role"] for message in record["messages"]], refuse)
    # Encoded records have no media fields, or empty ones.
    if record.get("codes") is not None:
        num_media = sum(content_part["type"] in MEDIA_FIELDS for content_part in content_parts)
        _check_codes(record, num_media, refuse)
        return
    for kind, field in MEDIA_FIELDS.items():
        num_media = sum(content_part["type"] == kind for content_part in content_parts)
        _check_media(record.get(field), kind, num_media, refuse)


def checked_content_parts(record: Mapping[str, Any]) -> list[dict]:
    """
    Checks the messages of a record and returns their content parts, one after the other.

    Args:
        record (`Mapping`): a record, as in [`validate_record`].

    Raises:
        RecordError: for messages that do not follow the schema. The message names the record.
    """

    def refuse(reason: str, detail: str) -> NoReturn:
        raise RecordError(reason, detail, record.get("id"))

    messages = record.get("messages")
    if not isinstance(messages, (list, tuple)) or not messages:
        refuse("no messages", f"`messages` must be a list of at least one message, got {_shorten(messages)}.")
    return [
        content_part
        for index, message in enumerate(messages)
        for content_part in _checked_content_parts(message, index, refuse)
    ]


def _check_media(media: Any, kind: str, num_expected: int, refuse: Refuse) -> None:
    """Checks type and number of the images or the videos of a record."""
    field = MEDIA_FIELDS[kind]
    if media is not None and not isinstance(media, (list, tuple)):
        refuse(f"`{field}` is not a list", f"`{field}` must be a list, got {type(media).__name__}.")
    for index, item in enumerate(media or []):
        if not _is_media(kind, item):
            refuse(
                f"invalid {kind}",
                f"`{field}[{index}]` must be a file name, bytes, an array, a PIL image or a dictionary with "
                f"'path' or 'bytes', got {_shorten(item)}.",
            )
    if num_expected != len(media or []):
        refuse(
            f"number of {field} differs from the number of content parts",
            f"`messages` have {num_expected} content parts of type '{kind}', but `{field}` has "
            f"{len(media or [])} items.",
        )


def _checked_content_parts(message: Any, index: int, refuse: Refuse) -> list[dict]:
    """Checks a message and returns its content parts."""
    where = f"`messages[{index}]`"
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        refuse("invalid message", f"{where} must be a dictionary with 'role' and 'content', got {_shorten(message)}.")
    role = message["role"]
    content = message["content"]
    if role not in ROLES:
        refuse("unknown role", f"`role` of {where} must be one of {', '.join(ROLES)}, got {role!r}.")
    content_parts = [text_content_part(content)] if isinstance(content, str) else content
    if not isinstance(content_parts, (list, tuple)):
        refuse(
            "invalid content",
            f"`content` of {where} must be a string or a list of content parts, got {_shorten(content)}.",
        )
    for content_part in content_parts:
        kind = content_part.get("type") if isinstance(content_part, Mapping) else None
        if kind not in ("text", *MEDIA_FIELDS):
            refuse(
                "unknown type",
                f"a content part of {where} must be of type text, image or video, got {_shorten(content_part)}.",
            )
        if kind == "text":
            _check_text(content_part.get("text"), where, refuse)
    return list(content_parts)


def _check_text(text: Any, where: str, refuse: Refuse) -> None:
    if not isinstance(text, str):
        refuse(
            "text is not a string", f"the `text` of a content part of {where} must be a string, got {_shorten(text)}."
        )
    if not _is_unicode(text):
        refuse("text is not valid Unicode", f"the text of {where} must not have lone surrogates: {_shorten(text)}.")
    for placeholder in PLACEHOLDERS.values():
        # The processor would count it as an image or a video that the record does not have.
        if placeholder in text:
            refuse(
                "placeholder in text",
                f"the text of {where} must not contain {placeholder!r}, got {_shorten(text)}. Give an image or a "
                "video as a separate content part.",
            )


def _check_roles(roles: list[str], refuse: Refuse) -> None:
    if "system" in roles[1:]:
        refuse("system message is not first", f"`system` may only be the first role, got {', '.join(roles)}.")
    if "document" in roles and roles != ["document"]:
        refuse("document among other messages", f"`document` must be the only message, got {', '.join(roles)}.")
    if not {"assistant", "document"} & set(roles):
        refuse("no target", f"there must be an assistant turn or a document, got {', '.join(roles)}.")


def _check_codes(record: Mapping[str, Any], num_expected: int, refuse: Refuse) -> None:
    if any(record.get(field) for field in MEDIA_FIELDS.values()):
        refuse("codes beside images or videos", "`codes` replace `images` and `videos`: give one or the other.")
    if len(record["codes"]) != num_expected:
        refuse(
            "number of codes differs from the number of content parts",
            f"`messages` have {num_expected} content parts of type image or video, but `codes` has "
            f"{len(record['codes'])} items.",
        )


def _is_media(kind: str, item: Any) -> bool:
    if isinstance(item, Mapping):
        path = item.get("path")
        data = item.get("bytes")
        is_typed = (path is None or _is_path(path)) and (data is None or isinstance(data, (bytes, bytearray)))
        return is_typed and (path is not None or data is not None)
    if isinstance(item, (list, tuple)):  # frames of a video
        return kind == "video" and len(item) > 0
    # `shape`: an array or a tensor; `convert`: a PIL image
    return isinstance(item, bytes) or _is_path(item) or hasattr(item, "shape") or hasattr(item, "convert")


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike) or (isinstance(value, str) and _is_unicode(value))


def _is_unicode(text: str) -> bool:
    """Returns whether a string can be stored as UTF-8. JSON can hold lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shorten(value: Any) -> str:
    """Returns `repr(value)` with at most 80 characters, for error messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


__all__ = [
    "MEDIA_FIELDS",
    "PLACEHOLDERS",
    "ROLES",
    "RecordError",
    "media_content_part",
    "record_features",
    "text_content_part",
    "validate_record",
]

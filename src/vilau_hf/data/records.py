"""Records: the one form of training data. What the assistant says is a target, what the user says is context."""

import os
from collections.abc import Mapping
from typing import Any

from datasets import Features, Image, List, Value, Video


ROLES = ("system", "user", "assistant", "document")
# type of a part of a message -> field of the record that holds what the part stands for
MEDIA_FIELDS = {"image": "images", "video": "videos"}
PLACEHOLDERS = {"image": "<image>", "video": "<video>"}


class RecordError(ValueError):
    """
    A record that breaks the schema.

    Args:
        reason (`str`): the kind of mistake in a few words, the same for all records that make it.
        detail (`str`): what is wrong in this record.
        record_id (`str`, *optional*).
    """

    def __init__(self, reason: str, detail: str, record_id: str | None = None):
        super().__init__(f"Record {record_id!r}: {detail}")
        self.reason = reason


def record_features() -> Features:
    """
    The schema of stored records.

    - `id` (`str`): names the record in errors and reports.
    - `messages` (`list[dict]`): turns with `role` (`"system"`, first, `"user"`, `"assistant"`, or one single
      `"document"`) and `content`, a list of parts `{"type": "text", "text": str}`, `{"type": "image", "text": None}`
      and `{"type": "video", "text": None}`.
    - `images` (`list[dict]`): the images in the order of their parts, each `{"path": str | None, "bytes": bytes |
      None}`; written from paths, bytes, arrays or PIL images.
    - `videos` (`list[dict]`): the same for video files.

    Media stay as they are until [`MediaLoader`] opens them: a pass over records decodes nothing and downloads nothing.

    Returns:
        `datasets.Features`.
    """
    part = {"type": Value("string"), "text": Value("string")}
    return Features(
        {
            "id": Value("string"),
            "messages": List({"role": Value("string"), "content": List(part)}),
            "images": List(Image(decode=False)),
            "videos": List(Video(decode=False)),
        }
    )


def text_part(text: str) -> dict:
    """A part of a message that is text."""
    return {"type": "text", "text": text}


def media_part(kind: str) -> dict:
    """A part of a message that stands for the next `"image"` or `"video"` of the record."""
    return {"type": kind, "text": None}


def validate_record(record: Mapping) -> None:
    """
    Checks a record, stored or in memory (`content` may then be a string, media may be missing or anything that
    [`MediaLoader`] opens).

    Args:
        record (`Mapping`): with `messages`, and `id`, `images`, `videos` if it has any; or `codes` in place of these.

    Raises:
        RecordError: naming the record and what is wrong: an unknown role or type, a text that is none, a
            placeholder within text, a number of images, videos or codes other than that of their parts, no target.
    """
    record_id = record.get("id")

    def refuse(reason: str, detail: str):
        raise RecordError(reason, detail, record_id)

    if record_id is not None and not isinstance(record_id, str):
        refuse("id is no string", f"`id` must be a string, got {type(record_id).__name__}.")
    messages = record.get("messages")
    if not isinstance(messages, (list, tuple)) or not messages:
        refuse("no messages", f"`messages` must be a list of at least one message, got {_shortly(messages)}.")
    parts = [part for place, message in enumerate(messages) for part in _parts_of(message, place, refuse)]
    _check_roles([message["role"] for message in messages], refuse)
    if record.get("codes") is not None:
        _check_codes(record, sum(part["type"] in MEDIA_FIELDS for part in parts), refuse)
        return
    for kind, field in MEDIA_FIELDS.items():
        media, wanted = record.get(field), sum(part["type"] == kind for part in parts)
        if media is not None and not isinstance(media, (list, tuple)):
            refuse(f"{field} is no list", f"`{field}` must be a list, got {type(media).__name__}.")
        for place, item in enumerate(media or []):
            if not _is_media(kind, item):
                refuse(
                    f"bad {kind}",
                    f"`{field}[{place}]` must be a file name, bytes, an array, a PIL image or a dictionary with "
                    f"'path' or 'bytes', got {_shortly(item)}.",
                )
        if wanted != len(media or []):
            refuse(
                f"number of {field} differs from their parts",
                f"`messages` have {wanted} parts of type '{kind}', but `{field}` has {len(media or [])} items.",
            )


def _parts_of(message: Any, place: int, refuse) -> list[dict]:
    """Checked parts of a message."""
    where = f"`messages[{place}]`"
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        refuse("bad message", f"{where} must be a dictionary with 'role' and 'content', got {_shortly(message)}.")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        refuse("unknown role", f"`role` of {where} must be one of {', '.join(ROLES)}, got {role!r}.")
    parts = [text_part(content)] if isinstance(content, str) else content
    if not isinstance(parts, (list, tuple)):
        refuse("bad content", f"`content` of {where} must be a string or a list of parts, got {_shortly(content)}.")
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", *MEDIA_FIELDS):
            refuse("unknown type", f"a part of {where} must be of type text, image or video, got {_shortly(part)}.")
        text = part.get("text")
        if kind == "text" and not isinstance(text, str):
            refuse("text is no string", f"the `text` of a part of {where} must be a string, got {_shortly(text)}.")
        for placeholder in PLACEHOLDERS.values() if kind == "text" else ():
            if placeholder in text:
                refuse(
                    "placeholder in text",
                    f"the text of {where} must not hold {placeholder!r}, an image or a video is a part of its own; "
                    f"got {_shortly(text)}.",
                )
    return list(parts)


def _check_roles(roles: list[str], refuse):
    if "system" in roles[1:]:
        refuse("system message not first", f"`system` may only be the first role, got {', '.join(roles)}.")
    if "document" in roles and roles != ["document"]:
        refuse("document among turns", f"`document` must be the only message, got {', '.join(roles)}.")
    if not {"assistant", "document"} & set(roles):
        refuse("no target", f"there must be an assistant turn or a document, got {', '.join(roles)}.")


def _check_codes(record: Mapping, wanted: int, refuse):
    if any(record.get(field) for field in MEDIA_FIELDS.values()):
        refuse("codes beside images or videos", "`codes` replace `images` and `videos`: give one or the other.")
    if len(record["codes"]) != wanted:
        refuse(
            "number of codes differs from their parts",
            f"`messages` have {wanted} parts of type image or video, but `codes` has {len(record['codes'])} items.",
        )


def _is_media(kind: str, item: Any) -> bool:
    if isinstance(item, Mapping):
        return item.get("path") is not None or item.get("bytes") is not None
    if isinstance(item, (list, tuple)):  # a video given as its frames
        return kind == "video" and len(item) > 0
    return isinstance(item, (str, bytes, os.PathLike)) or hasattr(item, "shape") or hasattr(item, "convert")


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


__all__ = [
    "MEDIA_FIELDS",
    "PLACEHOLDERS",
    "ROLES",
    "RecordError",
    "media_part",
    "record_features",
    "text_part",
    "validate_record",
]

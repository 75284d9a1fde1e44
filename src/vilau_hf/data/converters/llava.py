"""Conversations in the JSON format of LLaVA."""

import re
import reprlib
from typing import Any

from ..records import media_content_part, text_content_part
from .conversion import ConversionReport, Converter, MediaFolder, SkipRow, as_list, find_media, get_id


ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class LlavaConverter(Converter):
    """
    Converts an array of conversations, the format of LLaVA.

    It is described in github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md. ShareGPT4V, VILA and the text-only
    ShareGPT have the same format. A row has `id`, `image` (a file name or a list of
    file names) or `video`, and `conversations`, a list of `{"from": "human" | "gpt", "value": ...}`. `<image>` or
    `<video>` in a value is the position of the media. In a row with a single `video`, `<image>` also refers to the
    video (LLaVA-Video). If no turn has a placeholder, the media come first in the first turn of the user, as in VILA.

    Args:
        media_folder (`str` or `list[str]`, *optional*, defaults to the folder of the file): folder of the named files.
    """

    fields = ("id", "image", "video", "conversations")

    def __init__(self, media_folder: MediaFolder = None) -> None:
        self.media_folder = media_folder

    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """Returns a record with all turns of a conversation."""
        turns = row.get("conversations")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise SkipRow("no list of conversations")
        media = {kind: self._find_all_media(row.get(kind), source) for kind in ("image", "video")}
        texts = [turn.get("value") for turn in turns]
        if not all(isinstance(text, str) for text in texts):
            raise SkipRow("a turn without text")
        roles = [turn.get("from") for turn in turns]
        for role in roles:
            if not isinstance(role, str) or role not in ROLES:
                raise SkipRow(f"unknown speaker {reprlib.repr(role)}")
        only_video = bool(media["video"]) and not media["image"]
        contents = [_content_parts(text, only_video) for text in texts]
        if not any(content_part["type"] != "text" for content in contents for content_part in content):
            # `first` is a list of `contents`, which is changed here. Without a turn of the user it is a new list, and
            # the record is skipped because its media have no content parts.
            first = next((content for role, content in zip(roles, contents, strict=True) if ROLES[role] == "user"), [])
            first[:0] = [media_content_part(kind) for kind, items in media.items() for _ in items]
        return {
            "id": get_id(row, "id", row_id),
            "messages": [
                {"role": ROLES[role], "content": content} for role, content in zip(roles, contents, strict=True)
            ],
            "images": media["image"],
            "videos": media["video"],
        }

    def _find_all_media(self, names: Any, source: str) -> list[dict]:
        return [find_media(name, self.media_folder, source) for name in as_list(names)]


def _content_parts(text: str, only_video: bool) -> list[dict]:
    """Returns text and media of a turn in order, without the line breaks around a placeholder."""
    content_parts: list[dict] = []
    for piece in re.split(r"(<image>|<video>)", text):
        if piece in ("<image>", "<video>"):
            content_parts.append(media_content_part("video" if only_video else piece[1:-1]))
        elif piece.strip():
            content_parts.append(text_content_part(piece.strip()))
    return content_parts


__all__ = ["LlavaConverter"]

"""Conversations in the JSON of LLaVA."""

import re

from ..records import media_part, text_part
from .conversion import Converter, SkipRow, find_media, get_id


ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class LlavaConverter(Converter):
    """
    An array of conversations, the layout of LLaVA (github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md),
    ShareGPT4V, VILA and the text-only ShareGPT: `id`, `image` (a file name, or a list of them) or `video`, and
    `conversations`, a list of `{"from": "human" | "gpt", "value": ...}` in which `<image>` or `<video>` says where
    the media stand; beside a single `video`, `<image>` means the video, too (LLaVA-Video). Where no turn says it,
    they come first in the first turn of the user, as VILA reads them.

    Args:
        media_folder (`str`, *optional*, defaults to the folder of the file): where the file names begin.
    """

    fields = ("id", "image", "video", "conversations")

    def __init__(self, media_folder: str | None = None):
        self.media_folder = media_folder

    def convert(self, row_id, row, source, report):
        turns = row.get("conversations")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise SkipRow("no list of conversations")
        media = {kind: self._media(row.get(kind), source) for kind in ("image", "video")}
        texts = [turn.get("value") for turn in turns]
        if not all(isinstance(text, str) for text in texts):
            raise SkipRow("a turn without text")
        roles = [turn.get("from") for turn in turns]
        for role in roles:
            if role not in ROLES:
                raise SkipRow(f"unknown speaker {role!r}")
        only_video = bool(media["video"]) and not media["image"]
        contents = [_parts(text, only_video) for text in texts]
        if not any(part["type"] != "text" for content in contents for part in content):
            first = next((content for role, content in zip(roles, contents, strict=True) if ROLES[role] == "user"), [])
            first[:0] = [media_part(kind) for kind, items in media.items() for _ in items]
        return {
            "id": get_id(row, "id", row_id),
            "messages": [
                {"role": ROLES[role], "content": content} for role, content in zip(roles, contents, strict=True)
            ],
            "images": media["image"],
            "videos": media["video"],
        }

    def _media(self, names, source) -> list[dict]:
        names = [] if names is None else names if isinstance(names, list) else [names]
        return [find_media(name, self.media_folder, source) for name in names]


def _parts(text: str, only_video: bool) -> list[dict]:
    """Text and media of a turn in order, without the line breaks around a placeholder."""
    parts = []
    for piece in re.split(r"(<image>|<video>)", text):
        if piece in ("<image>", "<video>"):
            parts.append(media_part("video" if only_video else piece[1:-1]))
        elif piece.strip():
            parts.append(text_part(piece.strip()))
    return parts


__all__ = ["LlavaConverter"]

"""Chat datasets with the columns of TRL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..records import media_content_part, text_content_part
from .conversion import ConversionReport, Converter, MediaFolder, SkipRow, as_list, find_media, get_id
from .hub_captions import hub_rows
from .rows import list_sources


class ChatConverter(Converter):
    """
    Converts rows of TRL's formats "language modeling" and "prompt-completion".

    They are described in huggingface.co/docs/trl/dataset_formats. A row has `messages`, or `prompt` and `completion`.
    Each is a list of messages; `prompt` and `completion` may also be a text. A row may have `images` or `image`. The
    content of a message is a text or a list of content parts. If all contents are texts, the images come first in the
    first turn of the user, as in TRL's `prepare_multimodal_messages`.

    Args:
        media_folder (`str` or `list[str]`, *optional*, defaults to the folder of the file): folders of images that are
            files.
        config_name (`str`, *optional*): configuration of a dataset of the Hub, if the source is not a file.
        split (`str`, *optional*, defaults to `"train"`): split of a dataset of the Hub.
    """

    def __init__(self, media_folder: MediaFolder = None, config_name: str | None = None, split: str = "train") -> None:
        self.media_folder = media_folder
        self.config_name = config_name
        self.split = split

    def list_sources(self, source: str | list[str]) -> list[str]:
        """Returns files in a fixed order, and ids of datasets of the Hub as they are."""
        if isinstance(source, (list, tuple)):
            return [file for item in source for file in self.list_sources(item)]
        # Names of files have a suffix or a pattern, ids of the Hub have neither of them.
        is_id = not Path(source).exists() and not any(sign in source for sign in "*?[.")
        return [source] if is_id else list_sources(source)

    def rows(self, source: str, shard: int, num_shards: int) -> Iterator[tuple[str, Any]]:
        """Yields names and rows of a file or of a dataset of the Hub."""
        if Path(source).is_file():
            yield from super().rows(source, shard, num_shards)
        else:
            yield from hub_rows(source, self.config_name, self.split, shard, num_shards)

    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """Returns a record with all messages of a chat."""
        if row.get("messages") is not None:
            messages = row["messages"]
        elif row.get("prompt") is not None and row.get("completion") is not None:
            messages = _turns(row["prompt"], "user") + _turns(row["completion"], "assistant")
        else:
            raise SkipRow("neither messages nor prompt and completion")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise SkipRow("`messages` is not a list of messages")
        values = as_list(row.get("images") if row.get("images") is not None else row.get("image"))
        images = [find_media(value, self.media_folder, source) for value in values]
        contents = [_content_parts(message.get("content")) for message in messages]
        roles = [message.get("role") for message in messages]
        # If a content is a list, it says itself where the images are.
        if images and "user" in roles and all(isinstance(message.get("content"), str) for message in messages):
            contents[roles.index("user")][:0] = [media_content_part("image") for _ in images]
        return {
            "id": get_id(row, "id", row_id),
            "messages": [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)],
            "images": images,
        }


def _turns(value: Any, role: str) -> list:
    """Returns the messages of a prompt or a completion."""
    if not isinstance(value, (str, list)):
        raise SkipRow("a prompt or completion is neither a text nor a list of messages")
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _content_parts(content: Any) -> list[dict]:
    """Returns the content parts of a message with the fields of a record only."""
    # A table gives each content part all fields of its column, empty ones included.
    if isinstance(content, str):
        return [text_content_part(content)]
    if not isinstance(content, list) or not all(isinstance(content_part, dict) for content_part in content):
        raise SkipRow("a content is neither a text nor a list of content parts")
    return [
        text_content_part(content_part.get("text"))
        if content_part.get("type") == "text"
        else media_content_part(content_part.get("type"))
        for content_part in content
    ]


__all__ = ["ChatConverter"]

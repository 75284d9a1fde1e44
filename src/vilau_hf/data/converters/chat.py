"""Chat datasets in the columns of TRL."""

from pathlib import Path

from ..records import media_part, text_part
from .conversion import Converter, SkipRow, find_media, get_id
from .hub_captions import hub_rows
from .rows import list_sources


class ChatConverter(Converter):
    """
    Rows of the formats "language modeling" and "prompt-completion" of TRL
    (huggingface.co/docs/trl/dataset_formats): `messages`, or `prompt` and `completion`, each a list of messages or,
    for the latter two, a text; `images` or `image` beside them. Contents are texts or lists of parts; where all are
    texts, the images come first in the first turn of the user, as TRL's `prepare_multimodal_messages` puts them.

    Args:
        media_folder (`str`, *optional*, defaults to the folder of the file): where images that are files lie.
        config_name (`str`, *optional*), split (`str`, *optional*, defaults to `"train"`): of a dataset of the Hub, if
            the source is no file.
    """

    def __init__(self, media_folder: str | None = None, config_name: str | None = None, split: str = "train"):
        self.media_folder = media_folder
        self.config_name = config_name
        self.split = split

    def list_sources(self, source):
        if isinstance(source, (list, tuple)):
            return [file for item in source for file in self.list_sources(item)]
        is_id = not Path(source).exists() and not any(sign in source for sign in "*?[.")
        return [source] if is_id else list_sources(source)

    def rows(self, source, part, num_parts):
        if Path(source).is_file():
            yield from super().rows(source, part, num_parts)
        else:
            yield from hub_rows(source, self.config_name, self.split, part, num_parts)

    def convert(self, row_id, row, source, report):
        if row.get("messages") is not None:
            messages = row["messages"]
        elif row.get("prompt") is not None and row.get("completion") is not None:
            messages = _turns(row["prompt"], "user") + _turns(row["completion"], "assistant")
        else:
            raise SkipRow("neither messages nor prompt and completion")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise SkipRow("messages are no list of messages")
        values = row.get("images") if row.get("images") is not None else row.get("image")
        values = [] if values is None else values if isinstance(values, list) else [values]
        images = [find_media(value, self.media_folder, source) for value in values]
        contents = [_parts(message.get("content")) for message in messages]
        roles = [message.get("role") for message in messages]
        if images and "user" in roles and all(isinstance(message.get("content"), str) for message in messages):
            contents[roles.index("user")][:0] = [media_part("image") for _ in images]
        return {
            "id": get_id(row, "id", row_id),
            "messages": [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)],
            "images": images,
        }


def _turns(value, role: str) -> list:
    """Messages of a prompt or a completion."""
    if not isinstance(value, (str, list)):
        raise SkipRow("a prompt or completion that is neither text nor a list of messages")
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _parts(content) -> list[dict]:
    """Parts of a content, without the fields that stay empty in a table."""
    if isinstance(content, str):
        return [text_part(content)]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise SkipRow("a content that is neither text nor a list of parts")
    return [
        text_part(part.get("text")) if part.get("type") == "text" else media_part(part.get("type")) for part in content
    ]


__all__ = ["ChatConverter"]

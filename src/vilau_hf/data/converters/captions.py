"""Images and videos with captions, in either direction: the picture of a text, or the text of a picture."""

from ..records import MEDIA_FIELDS, PLACEHOLDERS, media_part, text_part
from .conversion import Converter, SkipRow, find_media, get_id, get_text


TARGETS = ("media", "text")


class CaptionConverter(Converter):
    """
    Rows with a caption and an image or a video.

    Args:
        target (`str`): what is learned: `"media"`, the image or video of a caption, or `"text"`, the caption of an
            image or video.
        caption_field (`str`), media_field (`str`): fields of a row; a caption within a field is named with a dot, as
            in `"json.caption"`.
        id_field (`str`, *optional*): without, rows are named after their place in the file.
        media (`str`, *optional*, defaults to `"image"`): `"image"` or `"video"`.
        media_folder (`str`, *optional*, defaults to the folder of the file): where media that are files lie.
        prompt (`str`, *optional*): what the user asks beside the image or video, with `target="text"`; by default
            nothing.
    """

    def __init__(
        self,
        target: str,
        caption_field: str,
        media_field: str,
        id_field: str | None = None,
        media: str = "image",
        media_folder: str | None = None,
        prompt: str | None = None,
    ):
        if target not in TARGETS:
            raise ValueError(f"`target` must be 'media' (draw the caption) or 'text' (write it), got {target!r}.")
        if media not in MEDIA_FIELDS:
            raise ValueError(f"`media` must be 'image' or 'video', got {media!r}.")
        if prompt is not None and target == "media":
            raise ValueError(f"`prompt` ({prompt!r}) needs `target='text'`: with 'media' the caption is the prompt.")
        self.target = target
        self.caption_field = caption_field
        self.media_field = media_field
        self.id_field = id_field
        self.media = media
        self.media_folder = media_folder
        self.prompt = prompt
        self.fields = tuple(name for name in (caption_field.split(".")[0], media_field, id_field) if name)

    def convert(self, row_id, row, source, report):
        caption = plain_text(self.find_caption(row))
        media = find_media(self.find_value(row), self.media_folder, source)
        part, text = media_part(self.media), text_part(caption)
        if self.target == "media":
            user, assistant = [text], [part]
        else:
            user, assistant = [part] if self.prompt is None else [part, text_part(self.prompt)], [text]
        return {
            "id": get_id(row, self.id_field, row_id),
            "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
            MEDIA_FIELDS[self.media]: [media],
        }

    def find_caption(self, row: dict) -> str:
        """The caption of a row, at `caption_field`."""
        *path, name = self.caption_field.split(".")
        for step in path:
            row = row.get(step)
            if not isinstance(row, dict):
                raise SkipRow(f"no field {self.caption_field!r}")
        return get_text(row, name)

    def find_value(self, row: dict):
        """The image or video of a row, at `media_field`."""
        if self.media_field not in row:
            raise SkipRow(f"no field {self.media_field!r}")
        return row[self.media_field]


def plain_text(text: str) -> str:
    """A text of the web in which `<image>` or `<video>` is a word (an HTML tag), written so that it stays one."""
    for placeholder in PLACEHOLDERS.values():
        text = text.replace(placeholder, placeholder.upper())
    return text


__all__ = ["CaptionConverter", "plain_text"]

"""Images and videos with captions, to train on either of the two."""

from typing import Any

from ..records import MEDIA_FIELDS, PLACEHOLDERS, media_content_part, text_content_part
from .conversion import ConversionReport, Converter, MediaFolder, SkipRow, find_media, get_id, get_text


TARGETS = ("media", "text")


class CaptionConverter(Converter):
    """
    Converts rows with a caption and an image or a video.

    Args:
        target (`str`): the target of training: `"media"`, the image or video of a caption, or `"text"`, the caption of
            an image or video.
        caption_field (`str`): field with the caption. A dot names a field within a field, as in `"json.caption"`.
        media_field (`str`): field with the image or video.
        id_field (`str`, *optional*): field with the id. Without it, the id is the index of the row in its file.
        media (`str`, *optional*, defaults to `"image"`): `"image"` or `"video"`.
        media_folder (`str` or `list[str]`, *optional*, defaults to the folder of the file): folders of media that are
            files.
        prompt (`str`, *optional*): what the user asks about the image or video, with `target="text"`. By default
            nothing.
    """

    def __init__(
        self,
        target: str,
        caption_field: str,
        media_field: str,
        id_field: str | None = None,
        media: str = "image",
        media_folder: MediaFolder = None,
        prompt: str | None = None,
    ) -> None:
        if target not in TARGETS:
            raise ValueError(
                "`target` must be 'media' (train to generate the media) or 'text' (train to generate the caption), "
                f"got {target!r}."
            )
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
        # Only the outermost name of `caption_field` is a column.
        self.fields = tuple(name for name in (caption_field.split(".")[0], media_field, id_field) if name)

    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """Returns a record with the caption and the media in two turns, the target last."""
        caption = text_content_part(plain_text(self.find_caption(row)))
        media = media_content_part(self.media)
        if self.target == "media":
            user = [caption]
            assistant = [media]
        else:
            user = [media] if self.prompt is None else [media, text_content_part(self.prompt)]
            assistant = [caption]
        return {
            "id": get_id(row, self.id_field, row_id),
            "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
            MEDIA_FIELDS[self.media]: [find_media(self.find_value(row), self.media_folder, source)],
        }

    def find_caption(self, row: dict) -> str:
        """Returns the caption of a row, from `caption_field`."""
        *outer_names, name = self.caption_field.split(".")
        for outer_name in outer_names:
            inner = row.get(outer_name)
            if not isinstance(inner, dict):
                raise SkipRow(f"no field {self.caption_field!r}")
            row = inner
        return get_text(row, name)

    def find_value(self, row: dict) -> Any:
        """Returns the image or video of a row, from `media_field`."""
        if self.media_field not in row:
            raise SkipRow(f"no field {self.media_field!r}")
        return row[self.media_field]


def plain_text(text: str) -> str:
    """Returns a text in which the HTML tags `<image>` and `<video>` are in upper case."""
    # Texts of the web contain them as words. In lower case they would be placeholders.
    for placeholder in PLACEHOLDERS.values():
        text = text.replace(placeholder, placeholder.upper())
    return text


__all__ = ["CaptionConverter", "plain_text"]

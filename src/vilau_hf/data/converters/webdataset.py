"""Tar archives in the format of webdataset."""

import json

from .captions import CaptionConverter
from .conversion import SkipRow


EXTENSIONS = {"image": ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"), "video": ("mp4", "webm", "mkv")}


class WebdatasetConverter(CaptionConverter):
    """
    Converts tar archives in which files with the same name up to the first dot are one sample.

    This is the format of webdataset (github.com/webdataset/webdataset). img2dataset writes `000010005.jpg`, `.txt`
    with the caption, and `.json` with `caption`, `url`, `key` and more. Only captions and media are read. Pickles in
    an archive are never loaded.

    Args:
        target (`str`): see [`CaptionConverter`].
        caption_field (`str`, *optional*, defaults to `"txt"`): extension of the file with the caption. With a dot,
            extension of a JSON file and the field in it, as in `"json.caption"`.
        media_field (`str`, *optional*): extension of the image or video, by default any of `EXTENSIONS`.
        media (`str`, *optional*, defaults to `"image"`): see [`CaptionConverter`].
        prompt (`str`, *optional*): see [`CaptionConverter`].
    """

    def __init__(
        self,
        target: str,
        caption_field: str = "txt",
        media_field: str | None = None,
        media: str = "image",
        prompt: str | None = None,
    ) -> None:
        super().__init__(target, caption_field, media_field or "", media=media, prompt=prompt)
        self.extensions = EXTENSIONS[media] if media_field is None else (media_field,)

    def find_caption(self, row: dict) -> str:
        """Returns the caption of a sample, from a text or a JSON file."""
        name = self.caption_field.split(".")[0]
        if name not in row:
            raise SkipRow(f"no .{name} file")
        try:
            value = json.loads(row[name]) if "." in self.caption_field else row[name].decode("utf-8")
        except ValueError as error:
            raise SkipRow(f"unreadable .{name} file") from error
        return super().find_caption({name: value})

    def find_value(self, row: dict) -> dict:
        """Returns the image or video of a sample, from the first file with a known extension."""
        # The path is not of an existing file. Its suffix tells a video decoder the type of the bytes.
        for extension in self.extensions:
            if extension in row:
                return {"path": f"sample.{extension}", "bytes": row[extension]}
        raise SkipRow(f"no {self.media} file")


__all__ = ["WebdatasetConverter"]

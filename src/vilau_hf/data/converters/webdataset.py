"""Tar archives in the layout of webdataset."""

import json

from .captions import CaptionConverter
from .conversion import SkipRow


EXTENSIONS = {"image": ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"), "video": ("mp4", "webm", "mkv")}


class WebdatasetConverter(CaptionConverter):
    """
    Tar archives in which files of the same name up to the first dot make a sample
    (github.com/webdataset/webdataset), as img2dataset writes them: `000010005.jpg`, `.txt` with the caption, `.json`
    with `caption`, `url`, `key` and the rest. Only captions and media are read; what is pickled in an archive stays
    closed.

    Args:
        target (`str`): see [`CaptionConverter`].
        caption_field (`str`, *optional*, defaults to `"txt"`): extension of the caption, or one of a JSON file and
            the field in it, as in `"json.caption"`.
        media_field (`str`, *optional*): extension of the image or video, by default any usual one.
        media (`str`), prompt (`str`): see [`CaptionConverter`].
    """

    def __init__(self, target, caption_field="txt", media_field=None, media="image", prompt=None):
        super().__init__(target, caption_field, media_field or "", media=media, prompt=prompt)
        self.extensions = EXTENSIONS[media] if media_field is None else (media_field,)

    def find_caption(self, row):
        name = self.caption_field.split(".")[0]
        if name not in row:
            raise SkipRow(f"no .{name} file")
        try:
            value = json.loads(row[name]) if "." in self.caption_field else row[name].decode("utf-8")
        except ValueError as error:
            raise SkipRow(f"unreadable .{name} file") from error
        return super().find_caption({name: value})

    def find_value(self, row):
        for extension in self.extensions:
            if extension in row:
                return {"path": f"sample.{extension}", "bytes": row[extension]}
        raise SkipRow(f"no {self.media} file")


__all__ = ["WebdatasetConverter"]

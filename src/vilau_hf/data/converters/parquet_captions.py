"""Parquet tables of images with captions, the format of img2dataset for COYO, CC3M, CC12M or LAION."""

from .captions import CaptionConverter
from .conversion import MediaFolder


class ParquetCaptionConverter(CaptionConverter):
    """
    Converts parquet files with a caption and an image in each row.

    The defaults are the columns of img2dataset with `--output_format parquet` (github.com/rom1504/img2dataset): `key`,
    `caption`, and the bytes of the image in `jpg`. A row whose image could not be downloaded has no bytes and is
    skipped.

    Rows with URLs instead of images are skipped. For tables of URLs such as COYO-700M
    (github.com/kakaobrain/coyo-dataset), use img2dataset first.

    Args:
        target (`str`): see [`CaptionConverter`], also for all other arguments.
    """

    def __init__(
        self,
        target: str,
        caption_field: str = "caption",
        media_field: str = "jpg",
        id_field: str | None = "key",
        media_folder: MediaFolder = None,
        prompt: str | None = None,
    ) -> None:
        super().__init__(target, caption_field, media_field, id_field, "image", media_folder, prompt)


__all__ = ["ParquetCaptionConverter"]

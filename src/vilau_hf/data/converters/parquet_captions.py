"""Parquet tables of images with captions, as img2dataset writes them for COYO, CC3M, CC12M or LAION."""

from .captions import CaptionConverter


class ParquetCaptionConverter(CaptionConverter):
    """
    Parquet with a caption and an image in each row. The defaults are the columns of img2dataset with
    `--output_format parquet` (github.com/rom1504/img2dataset): `key`, `caption` and the image's bytes in `jpg`; a row
    that could not be downloaded has none there and is skipped. Tables with a list of URLs, as COYO-700M is published
    (github.com/kakaobrain/coyo-dataset: `id`, `url`, `text`), give records whose images have to be downloaded before
    training: `id_field="id", media_field="url", caption_field="text"`.

    Args:
        target (`str`): see [`CaptionConverter`], as all others.
    """

    def __init__(
        self, target, caption_field="caption", media_field="jpg", id_field="key", media_folder=None, prompt=None
    ):
        super().__init__(target, caption_field, media_field, id_field, "image", media_folder, prompt)


__all__ = ["ParquetCaptionConverter"]

"""OpenVid: a table of captions and a folder of videos."""

from .captions import CaptionConverter


class OpenVidConverter(CaptionConverter):
    """
    Converts the CSV file of OpenVid-1M (huggingface.co/datasets/nkp37/OpenVid-1M).

    Its columns are `video` (a file name), `caption`, `aesthetic score`, `motion score`, `temporal consistency score`,
    `camera motion`, `frame`, `fps` and `seconds`. The unpacked videos are in the folder `video` beside it. Rows whose
    video is missing are skipped.

    Args:
        target (`str`): see [`CaptionConverter`].
        media_folder (`str` or `list[str]`): folder of the videos.
        prompt (`str`, *optional*): see [`CaptionConverter`].
    """

    def __init__(self, target: str, media_folder: str | list[str], prompt: str | None = None) -> None:
        super().__init__(
            target,
            caption_field="caption",
            media_field="video",
            id_field="video",
            media="video",
            media_folder=media_folder,
            prompt=prompt,
        )


__all__ = ["OpenVidConverter"]

"""OpenVid: a table of captions and a folder of videos."""

from .captions import CaptionConverter


class OpenVidConverter(CaptionConverter):
    """
    The CSV of OpenVid-1M (huggingface.co/datasets/nkp37/OpenVid-1M): `video` (a file name), `caption`, `aesthetic
    score`, `motion score`, `temporal consistency score`, `camera motion`, `frame`, `fps`, `seconds`; beside it the
    folder `video` with the unpacked files. Rows whose video is not there are skipped.

    Args:
        target (`str`): see [`CaptionConverter`].
        media_folder (`str`): folder of the videos.
        prompt (`str`, *optional*): see [`CaptionConverter`].
    """

    def __init__(self, target, media_folder, prompt=None):
        super().__init__(target, "caption", "video", "video", "video", media_folder, prompt)


__all__ = ["OpenVidConverter"]

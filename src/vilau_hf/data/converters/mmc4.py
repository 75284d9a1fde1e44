"""Documents of Multimodal C4: sentences with the images between them."""

import base64
import binascii

from ..records import media_part, text_part
from .captions import plain_text
from .conversion import Converter, SkipRow, find_media, get_id


class Mmc4Converter(Converter):
    """
    The JSON lines of MMC4 (github.com/allenai/mmc4, also as published: gzip or zip): `text_list`, and `image_info`
    with `image_name`, `matched_text_index` and `matched_sim`. A document becomes one `document` message: each image
    stands before the sentence it matches, as in OpenFlamingo and VILA; the loss is on the text alone. Images are read
    from a folder by their names, or from `image_base64` where a copy of the data has that field. Those that could not
    be downloaded are left out of their document and counted; a document without any image is skipped.

    Args:
        media_folder (`str`, *optional*, defaults to the folder of the file): where the downloaded images lie.
        max_images (`int`, *optional*, defaults to 6): images that are kept of a document, the first ones; 6 as in
            VILA.
        min_similarity (`float`, *optional*, defaults to 0.0): images less similar to their sentence are left out;
            OpenFlamingo took 0.24.
    """

    fields = ("url", "text_list", "image_info")

    def __init__(self, media_folder: str | None = None, max_images: int = 6, min_similarity: float = 0.0):
        if max_images < 1:
            raise ValueError(f"`max_images` must be at least 1, got {max_images}.")
        self.media_folder = media_folder
        self.max_images = max_images
        self.min_similarity = min_similarity

    def convert(self, row_id, row, source, report):
        sentences = row.get("text_list")
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise SkipRow("no list of sentences")
        placed = []
        for info in row.get("image_info") or []:
            try:
                placed.append(self._place(info, len(sentences), source))
            except SkipRow as skip:
                report.dropped[str(skip)] += 1
        if len(placed) > self.max_images:
            report.dropped[f"image beyond the first {self.max_images} of a document"] += len(placed) - self.max_images
        placed = sorted(placed[: self.max_images], key=lambda item: item[0])
        if not placed:
            raise SkipRow("document without images")
        content, begin = [], 0
        for index, _ in placed:
            content += _join(sentences[begin:index])
            content.append(media_part("image"))
            begin = index
        content += _join(sentences[begin:])
        return {
            "id": get_id(row, "url", row_id),
            "messages": [{"role": "document", "content": content}],
            "images": [image for _, image in placed],
        }

    def _place(self, info: dict, num_sentences: int, source: str) -> tuple[int, dict]:
        """The sentence of an image, and the image."""
        index = info.get("matched_text_index")
        if not isinstance(index, int) or not 0 <= index < num_sentences:
            raise SkipRow("image without a sentence")
        if info.get("matched_sim", 1.0) < self.min_similarity:
            raise SkipRow(f"image less similar than {self.min_similarity}")
        value = info.get("image_name")
        if info.get("image_base64") is not None:
            try:
                value = base64.b64decode(info["image_base64"], validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise SkipRow("image is no base64") from error
        return index, find_media(value, self.media_folder, source)


def _join(sentences: list[str]) -> list[dict]:
    text = plain_text(" ".join(sentence.strip() for sentence in sentences if sentence.strip()))
    return [text_part(text)] if text else []


__all__ = ["Mmc4Converter"]

"""Documents of Multimodal C4: sentences with images between them."""

from typing import Any

from ..records import media_content_part, text_content_part
from .captions import plain_text
from .conversion import ConversionReport, Converter, MediaFolder, SkipRow, decode_base64, find_media, get_id


class Mmc4Converter(Converter):
    """
    Converts the JSON lines of MMC4 (github.com/allenai/mmc4), also as they are published: in gzip or zip files.

    A row has `text_list`, and `image_info` with `image_name`, `matched_text_index` and `matched_sim`. A document
    becomes one `document` message. Each image comes before the sentence that it matches, as in OpenFlamingo and VILA.
    The loss is on the text only. Images are read from a folder by their names, or from `image_base64` if a copy of the
    data has this field. Images that are missing are left out of their document and counted. A document without any
    image is skipped.

    Args:
        media_folder (`str` or `list[str]`, *optional*, defaults to the folder of the file): folders of the downloaded
            images.
        max_images (`int`, *optional*, defaults to 6): largest number of images of a document. The first ones are kept.
            VILA uses 6.
        min_similarity (`float`, *optional*, defaults to 0.0): images that are less similar to their sentence are left
            out. OpenFlamingo uses 0.24.
    """

    fields = ("url", "text_list", "image_info")

    def __init__(self, media_folder: MediaFolder = None, max_images: int = 6, min_similarity: float = 0.0) -> None:
        if max_images < 1:
            raise ValueError(f"`max_images` must be at least 1, got {max_images}.")
        self.media_folder = media_folder
        self.max_images = max_images
        self.min_similarity = min_similarity

    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """Returns a record with one document, each image before its sentence."""
        sentences = row.get("text_list")
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise SkipRow("no list of sentences")
        infos = row.get("image_info") or []
        if not isinstance(infos, list):
            raise SkipRow("no list of images")
        matched = []
        for info in infos:
            try:
                matched.append(self._match(info, len(sentences), source))
            except SkipRow as skip:
                report.drop(str(skip), f"{row_id} in {source}")
        for _ in matched[self.max_images :]:
            report.drop(f"image beyond the first {self.max_images} of a document", f"{row_id} in {source}")
        # The first images of the document are kept, and only then sorted by their sentences.
        matched = sorted(matched[: self.max_images], key=lambda item: item[0])
        if not matched:
            raise SkipRow("document without images")
        content = []
        begin = 0
        for index, _ in matched:
            content += _join(sentences[begin:index])
            content.append(media_content_part("image"))
            begin = index
        content += _join(sentences[begin:])
        return {
            "id": get_id(row, "url", row_id),
            "messages": [{"role": "document", "content": content}],
            "images": [image for _, image in matched],
        }

    def _match(self, info: Any, num_sentences: int, source: str) -> tuple[int, dict]:
        """Returns the index of the sentence of an image, and the image."""
        if not isinstance(info, dict):
            raise SkipRow("malformed image")
        index = info.get("matched_text_index")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < num_sentences:
            raise SkipRow("image without a sentence")
        similarity = info.get("matched_sim", 1.0)
        if isinstance(similarity, bool) or not isinstance(similarity, (int, float)) or similarity != similarity:
            raise SkipRow("image whose similarity is not a number")
        if similarity < self.min_similarity:
            raise SkipRow(f"image less similar than {self.min_similarity}")
        value = info.get("image_name")
        if info.get("image_base64") is not None:
            value = decode_base64(info["image_base64"])
        return index, find_media(value, self.media_folder, source)


def _join(sentences: list[str]) -> list[dict]:
    """Returns sentences as one content part, or none if they are empty."""
    text = plain_text(" ".join(sentence.strip() for sentence in sentences if sentence.strip()))
    return [text_content_part(text)] if text else []


__all__ = ["Mmc4Converter"]

"""Questions with images and their answers, one in each line."""

from typing import Any

from ..records import PLACEHOLDERS, media_content_part, text_content_part
from .captions import plain_text
from .conversion import ConversionReport, Converter, MediaFolder, as_list, decode_base64, find_media, get_id, get_text


class QuestionAnswerConverter(Converter):
    """
    Converts JSON lines with a question, an answer and the images of the question.

    The default fields are those of VILA's VFLAN (github.com/NVlabs/VILA, data_prepare/sft/preprocess_m3it.py and
    llava/data/dataset.py). VILA stores them as pickles, which are refused here. Images come before the question, also
    if the question has `<image>` elsewhere.

    Args:
        question_field (`str`, *optional*, defaults to `"question"`): field with the question.
        answer_field (`str`, *optional*, defaults to `"answer"`): field with the answer.
        image_field (`str`, *optional*, defaults to `"image"`): field with an image, a list of images, or nothing.
        id_field (`str`, *optional*): field with the id. Without it, the id is the index of the row in its file.
        image_encoding (`str`, *optional*, defaults to `"path"`): `"path"` for file names, `"base64"` for the bytes of
            image files, as in M3IT.
        media_folder (`str` or `list[str]`, *optional*, defaults to the folder of the file): folder of the named files.
    """

    def __init__(
        self,
        question_field: str = "question",
        answer_field: str = "answer",
        image_field: str = "image",
        id_field: str | None = None,
        image_encoding: str = "path",
        media_folder: MediaFolder = None,
    ) -> None:
        if image_encoding not in ("path", "base64"):
            raise ValueError(f"`image_encoding` must be 'path' or 'base64', got {image_encoding!r}.")
        self.question_field = question_field
        self.answer_field = answer_field
        self.image_field = image_field
        self.id_field = id_field
        self.image_encoding = image_encoding
        self.media_folder = media_folder
        self.fields = tuple(name for name in (question_field, answer_field, image_field, id_field) if name)

    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """Returns a record with a question and its answer."""
        question = get_text(row, self.question_field).replace(PLACEHOLDERS["image"], "").strip()
        answer = plain_text(get_text(row, self.answer_field))
        values = as_list(row.get(self.image_field))
        images = [find_media(self._decode(value), self.media_folder, source) for value in values]
        # A question may consist of the placeholder only.
        asked = [text_content_part(plain_text(question))] if question else []
        return {
            "id": get_id(row, self.id_field, row_id),
            "messages": [
                {"role": "user", "content": [media_content_part("image") for _ in images] + asked},
                {"role": "assistant", "content": [text_content_part(answer)]},
            ],
            "images": images,
        }

    def _decode(self, value: Any) -> Any:
        return value if self.image_encoding == "path" else decode_base64(value)


__all__ = ["QuestionAnswerConverter"]

"""Questions with images and their answers, one to a line."""

import base64
import binascii

from ..records import PLACEHOLDERS, media_part, text_part
from .captions import plain_text
from .conversion import Converter, SkipRow, find_media, get_id, get_text


class QuestionAnswerConverter(Converter):
    """
    JSON lines with a question, an answer and the images of the question: the fields of VILA's VFLAN
    (github.com/NVlabs/VILA, data_prepare/sft/preprocess_m3it.py and llava/data/dataset.py; there they are pickled,
    which is refused). Images come before the question, wherever it has `<image>`.

    Args:
        question_field (`str`, *optional*, defaults to `"question"`), answer_field (`str`, *optional*, defaults to
            `"answer"`), image_field (`str`, *optional*, defaults to `"image"`): the image, a list of images, or none.
        id_field (`str`, *optional*).
        image_encoding (`str`, *optional*, defaults to `"path"`): `"path"` for file names, `"base64"` for the bytes of
            image files, as M3IT has them.
        media_folder (`str`, *optional*, defaults to the folder of the file): where the file names begin.
    """

    def __init__(
        self,
        question_field: str = "question",
        answer_field: str = "answer",
        image_field: str = "image",
        id_field: str | None = None,
        image_encoding: str = "path",
        media_folder: str | None = None,
    ):
        if image_encoding not in ("path", "base64"):
            raise ValueError(f"`image_encoding` must be 'path' or 'base64', got {image_encoding!r}.")
        self.question_field = question_field
        self.answer_field = answer_field
        self.image_field = image_field
        self.id_field = id_field
        self.image_encoding = image_encoding
        self.media_folder = media_folder
        self.fields = tuple(name for name in (question_field, answer_field, image_field, id_field) if name)

    def convert(self, row_id, row, source, report):
        question = get_text(row, self.question_field).replace(PLACEHOLDERS["image"], "").strip()
        answer = plain_text(get_text(row, self.answer_field))
        values = row.get(self.image_field)
        values = [] if values is None else values if isinstance(values, list) else [values]
        images = [find_media(self._decode(value), self.media_folder, source) for value in values]
        asked = [text_part(plain_text(question))] if question else []
        return {
            "id": get_id(row, self.id_field, row_id),
            "messages": [
                {"role": "user", "content": [media_part("image") for _ in images] + asked},
                {"role": "assistant", "content": [text_part(answer)]},
            ],
            "images": images,
        }

    def _decode(self, value):
        if self.image_encoding == "path":
            return value
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise SkipRow("image is no base64") from error


__all__ = ["QuestionAnswerConverter"]

"""The task of visual question answering, about images or videos, with the accuracy of the VQA challenge."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from datasets import load_dataset
from PIL import Image

from ..processing.image_functions_vilau import open_images
from ..processing.pixel_rules_vilau import to_rgb
from .image_data import HUB_SPLIT, choose_evenly
from .model_outputs import user_message
from .task import Conversation, ConversationTask, MetricValue
from .vqa_accuracy import answer_accuracy, normalize_answer


@dataclass(frozen=True)
class Question:
    """
    Holds a question about an image or a video.

    Args:
        text (`str`): the question.
        answers (`list[str]`): answers of people, ten in VQA, or one.
        image (`Path` or `PIL.Image.Image`, *optional*): the image.
        video (`Path`, *optional*): the file of the video, in place of an image.
    """

    text: str
    answers: list[str]
    image: Any = None
    video: Path | None = None

    def open(self) -> Image.Image:
        """Returns the image in RGB."""
        return to_rgb(open_images(self.image))


class VisualQuestions(ConversationTask):
    """Answers questions about images and videos."""

    name = "vqa"
    description = "answer the questions of --data about images and videos: accuracy of the VQA challenge"
    mode = "text"
    uses: ClassVar[tuple[str, ...]] = (*ConversationTask.uses, "data", "split", "instruction")
    needs: ClassVar[tuple[str, ...]] = ("data",)

    @cached_property
    def questions(self) -> Any:
        """Returns all questions by index: a list, or a dataset of the Hub."""
        source = str(self.options.data)
        if source.endswith(".jsonl"):
            return read_questions(Path(source))
        return load_dataset(source, split=self.options.split or HUB_SPLIT)

    @cached_property
    def indices(self) -> list[int]:
        """Returns the index in the data of each sample."""
        return choose_evenly(len(self.questions), self.options.samples, str(self.options.data))

    def __len__(self) -> int:
        return len(self.indices)

    def question(self, index: int) -> Question:
        """Returns the question of a sample."""
        entry = self.questions[self.indices[index]]
        return entry if isinstance(entry, Question) else _question_of(entry, f"row {index} of {self.options.data}")

    def check(self) -> None:
        """Checks that the data has questions. It reads every line of a file, and the first row of a dataset."""
        super().check()
        self.question(0)

    def settings(self) -> dict[str, Any]:
        """Returns the options, and what the first and the last question are."""
        ends = f"{self.question(0).text}\n{self.question(len(self) - 1).text}"
        return {**super().settings(), "data_identity": hashlib.sha256(ends.encode()).hexdigest()[:16]}

    def conversation(self, index: int) -> Conversation:
        """Returns the image or the video, and the question, followed by `instruction` in a new line."""
        question = self.question(index)
        instruction = self.options.instruction
        text = question.text if instruction is None else f"{question.text}\n{instruction}"
        kind = "image" if question.video is None else "video"
        messages = user_message([{"type": kind}, {"type": "text", "text": text}])
        if question.video is not None:
            return Conversation(messages, question.answers, videos=[question.video])
        return Conversation(messages, question.answers, [question.open()])

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Computes the accuracy of each answer, and whether it is one of the given answers."""
        rows: list[dict[str, MetricValue]] = []
        for answer, each in zip(outputs, conversations, strict=True):
            known = {normalize_answer(reference) for reference in each.reference}
            row: dict[str, MetricValue] = {"vqa_accuracy": float(answer_accuracy(answer, each.reference))}
            rows.append({**row, "any_match": normalize_answer(answer) in known})
        return rows


def read_questions(path: Path) -> list[Question]:
    """
    Reads questions from a file with one JSON object in each line.

    Args:
        path (`Path`): the file. Each object has `image` or `video` (path relative to the file), `question`, and
            `answers` (a list) or `answer`.

    Raises:
        ValueError: for a bad line or a missing file. The message names file, line and reason.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    questions = []
    for number, line in enumerate(lines, start=1):
        source = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source}: not valid JSON, {error.msg} at column {error.colno}.") from error
        kinds = [kind for kind in ("image", "video") if isinstance(entry, dict) and isinstance(entry.get(kind), str)]
        if len(kinds) != 1:
            raise ValueError(f"{source}: expected an object with `image` or `video`, the path of a file.")
        file = path.parent / entry[kinds[0]]
        if not file.is_file():
            raise ValueError(f"{source}: the {kinds[0]} {file} does not exist.")
        questions.append(_question_of({**entry, kinds[0]: file}, source))
    if not questions:
        raise ValueError(f"{path} has no questions.")
    return questions


def _question_of(entry: dict[str, Any], source: str) -> Question:
    """Returns the question of a line or of a row; answers are texts, or objects with `answer` as in VQAv2."""
    answers = entry.get("answers", entry.get("answer"))
    answers = answers if isinstance(answers, list) else [answers]
    answers = [answer.get("answer") if isinstance(answer, dict) else answer for answer in answers]
    if not isinstance(entry.get("question"), str) or not answers or not all(isinstance(text, str) for text in answers):
        raise ValueError(
            f"{source}: expected `image`, `question` (a text) and `answers` (a list of texts) or `answer`, got "
            f"{', '.join(sorted(entry))}."
        )
    video = entry.get("video") if isinstance(entry.get("video"), Path) else None
    if entry.get("image") is None and video is None:
        # The videos of a dataset of the Hub are decoders and no files.
        raise ValueError(
            f"{source}: expected `image`, got {', '.join(sorted(entry))}. A .jsonl file may have `video`."
        )
    return Question(entry["question"], answers, entry.get("image"), video)


__all__ = ["Question", "VisualQuestions", "read_questions"]

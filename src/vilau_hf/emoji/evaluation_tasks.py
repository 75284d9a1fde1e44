"""Evaluation tasks of emoji: drawing, style changes, rows of examples, clips, answers, and what the tower keeps."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from PIL import Image

from ..evaluation.image_data import choose_evenly
from ..evaluation.intervals import Score
from ..evaluation.model_outputs import user_message
from ..evaluation.reconstruction import ReconstructionTask
from ..evaluation.task import (
    Conversation,
    ConversationTask,
    EvaluationTask,
    MetricValue,
    SampleResult,
    StoredResult,
    rows_of,
)
from ..evaluation.zero_shot import ZeroShotClassifier
from .dataset import concept_names
from .evaluation_data import EmojiTask, JudgedEmojiTask
from .scores import (
    BACKGROUND,
    clip_hits,
    clip_prompt,
    drawing_hits,
    drawing_prompt,
    emoji_classifier,
    restyle_message,
)
from .tasks import Clip, load_clips, row_messages


class _EmojiDrawing(JudgedEmojiTask, ConversationTask):
    """A task whose conversations end with an image that the judge names."""

    uses = (*JudgedEmojiTask.uses, *ConversationTask.uses)
    mode = "image"

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Asks the judge what the drawings show, and what the real images show."""
        return rows_of(drawing_hits(self.judge, outputs, [each.reference for each in conversations]))


class EmojiTextToImage(_EmojiDrawing):
    """Draws held-out images from name and style."""

    name = "emoji-text-to-image"
    description = "draw concepts in styles that are new for them; the judge names concept and style"

    def conversation(self, index: int) -> Conversation:
        """Returns name and style as the message of the user."""
        one = self.held_out[index]
        return Conversation(user_message([{"type": "text", "text": drawing_prompt(one)}]), one)


class EmojiEdits(_EmojiDrawing):
    """Changes images of training to held-out styles."""

    name = "emoji-edits"
    description = "change images to styles that are new for their concepts; the judge names concept and style"

    def conversation(self, index: int) -> Conversation:
        """Returns an image in a style of training, and the instruction to change the style."""
        one = self.held_out[index]
        return Conversation(restyle_message(one.style), one, [self.other_style(one).on(BACKGROUND)])


class EmojiRows(_EmojiDrawing):
    """Ends rows of examples: a concept in two styles, another in the first style, and the same in the second."""

    name = "emoji-rows"
    description = "draw the last image of a row of examples in context; the judge names concept and style"

    def conversation(self, index: int) -> Conversation:
        """
        Returns a row, in which a concept of training shows the two styles.

        Raises:
            ValueError: if no concept of training has both styles.
        """
        asked = self.held_out[index]
        given = self.other_style(asked)
        shown = [styles for styles in self.styles.values() if given.style in styles and asked.style in styles]
        if not shown:
            raise ValueError(
                f"{self.folder} has no concept of training in the styles {given.style} and {asked.style}."
            )
        example = self.choice(index).choice(shown)
        row = [example[given.style], example[asked.style], given, asked]
        return Conversation(user_message(row_messages(row)[0]), asked, [one.on(BACKGROUND) for one in row[:-1]])


class EmojiClips(JudgedEmojiTask, ConversationTask):
    """Draws held-out clips from their names."""

    name = "emoji-clips"
    description = "draw clips that were held out; the judge names first and last frame, and the motion is compared"
    uses = (*JudgedEmojiTask.uses, *ConversationTask.uses)
    mode = "video"
    right = "clip_all"

    @cached_property
    def clips(self) -> list[Clip]:
        """Returns the held-out clips of all samples."""
        every = load_clips(self.folder, self.model.image_size, self.model.num_frames, held_out=True)
        return [every[index] for index in choose_evenly(len(every), self.options.samples, str(self.folder))]

    def __len__(self) -> int:
        return len(self.clips)

    def check(self) -> None:
        """Checks that there are a judge and held-out clips."""
        super().check()
        if not self.clips:
            raise ValueError(f"{self.folder} has no held-out clips, which the task {self.name!r} needs.")

    def conversation(self, index: int) -> Conversation:
        """Returns the name of a clip as the message of the user."""
        clip = self.clips[index]
        return Conversation(user_message([{"type": "text", "text": clip_prompt(clip)}]), clip)

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Compares the videos with the true clips."""
        return rows_of(clip_hits(self.judge, outputs, [each.reference for each in conversations]))


class _EmojiAnswers(EmojiTask, ConversationTask):
    """A task whose conversations are questions about held-out images."""

    uses = (*EmojiTask.uses, *ConversationTask.uses)
    mode = "text"
    right = "right"
    kinds: tuple[str, ...]

    def conversation(self, index: int) -> Conversation:
        """Returns an image and a question about it. The kinds of questions take turns."""
        one = self.held_out[index]
        kind = self.kinds[index % len(self.kinds)]
        question, answer = self.tasks.question(one, BACKGROUND, kind, self.choice(index))
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return Conversation(user_message(content), answer, [one.on(BACKGROUND)])

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Compares the answers with the expected ones."""
        return [{"right": answer == each.reference} for answer, each in zip(outputs, conversations, strict=True)]


class EmojiQuestions(_EmojiAnswers):
    """Answers questions about concept, style and group."""

    name = "emoji-questions"
    description = "answer what held-out images show, in which style, and of which group, compared word by word"
    kinds = ("name", "style", "group")


class EmojiCaptions(_EmojiAnswers):
    """Describes held-out images."""

    name = "emoji-captions"
    description = "describe held-out images; name, style and background must be in the description"
    kinds = ("describe",)
    right = "all"

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Compares the descriptions as a whole, and looks for name, style and background."""
        rows: list[dict[str, MetricValue]] = []
        for answer, each in zip(outputs, conversations, strict=True):
            # The description is "NAME, STYLE style, on a COLOUR background". A name may have a comma.
            name, style, background = each.reference.rsplit(", ", 2)
            row: dict[str, MetricValue] = {"name": answer.startswith(f"{name}, "), "style": style in answer}
            rows.append({**row, "background": background in answer, "all": answer == each.reference})
        return rows


class EmojiYesNo(_EmojiAnswers):
    """Answers whether an image shows a concept; the wrong concepts look alike."""

    name = "emoji-yes-no"
    description = "say whether held-out images show a concept; wrong ones look alike, as in POPE"
    kinds = ("is_it",)

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Compares the answers, with what precision and recall of POPE (Li et al., 2023) need."""
        rows: list[dict[str, MetricValue]] = []
        for answer, each in zip(outputs, conversations, strict=True):
            right = answer == each.reference
            row: dict[str, MetricValue] = {"right": right, "says_yes": answer == "yes"}
            row["precision"] = right if answer == "yes" else None
            row["recall"] = right if each.reference == "yes" else None
            rows.append(row)
        return rows

    def summarize(self, results: Sequence[StoredResult]) -> dict[str, Score | float]:
        """Adds the F1 score of the answer yes."""
        scores = super().summarize(results)
        precision, recall = (scores.get(name) for name in ("precision", "recall"))
        if isinstance(precision, Score) and isinstance(recall, Score) and precision.value + recall.value:
            scores["f1"] = 2 * precision.value * recall.value / (precision.value + recall.value)
        return scores


class EmojiReconstruction(EmojiTask, ReconstructionTask):
    """Encodes and decodes held-out images."""

    name = "emoji-reconstruction"
    description = "encode and decode held-out images: PSNR and SSIM"
    uses = (*EmojiTask.uses, *ReconstructionTask.uses)
    metrics = ("psnr", "ssim")

    def image(self, index: int) -> Image.Image:
        """Returns a held-out image on white."""
        return self.held_out[index].on(BACKGROUND)


class EmojiZeroShot(EmojiTask, EvaluationTask):
    """Classifies held-out images by the names of all concepts, without training."""

    name = "emoji-zero-shot"
    description = "choose the name of held-out images among all concepts, by the tower and its text encoder"
    right = "top_1"

    def check(self) -> None:
        """Checks that there is a text encoder."""
        self.model.text_tower_source()
        super().check()

    @cached_property
    def classifier(self) -> ZeroShotClassifier:
        """Returns the classifier of all concepts."""
        model = self.model
        return emoji_classifier(
            model.text_tower, model.text_tokenizer, model.image_processor, concept_names(self.folder)
        )

    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """Classifies the images."""
        images = [self.held_out[index].on(BACKGROUND) for index in indices]
        results = []
        for index, image, names in zip(indices, images, self.classifier.classify(images, count=5), strict=True):
            expected = self.held_out[index].concept.name
            metrics: dict[str, MetricValue] = {"top_1": names[0] == expected, "top_5": expected in names}
            results.append(SampleResult(index, metrics, {"chosen": names[0], "expected": expected}, {"given": image}))
        return results


__all__ = [
    "EmojiCaptions",
    "EmojiClips",
    "EmojiEdits",
    "EmojiQuestions",
    "EmojiReconstruction",
    "EmojiRows",
    "EmojiTextToImage",
    "EmojiYesNo",
    "EmojiZeroShot",
]

"""Evaluation tasks of drawn shapes. The drawing oracle scores images and videos, without a network."""

import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset
from PIL import Image

from ..evaluation.model_outputs import user_message
from ..evaluation.reconstruction import ReconstructionTask
from ..evaluation.sheets import to_pil
from ..evaluation.task import (
    Conversation,
    ConversationTask,
    EvaluationTask,
    MetricValue,
    SampleResult,
    evenly,
    rows_of,
)
from ..evaluation.zero_shot import ZeroShotClassifier
from ..pipelines.candidate_ranking_vilau import AnswerRanker
from .dataset import drawn_shapes
from .oracle import read_drawing
from .scores import ATTRIBUTES, drawing_hits, motion_hits, shape_classifier
from .scores_stories import is_shown, read_story, tell_stories
from .shapes import PLACE_PHRASES, Drawing, animate, draw, drawings, motions
from .stories import EDITS, edit_images, make_edit


class _ShapesConversation(ConversationTask):
    """A conversation about held-out shapes."""

    num_samples = 200

    def __len__(self) -> int:
        return self.options.samples or self.num_samples

    @cached_property
    def targets(self) -> list[Drawing]:
        """Returns the drawings of all samples."""
        return evenly(drawings("test"), len(self))

    def drawn(self, index: int) -> Image.Image:
        """Returns the image of a sample, with small variations of position and size."""
        generator = torch.Generator().manual_seed(self.options.seed + index)
        return to_pil(draw([self.targets[index]], self.model.image_size, generator)[0])


class ShapesTextToImage(_ShapesConversation):
    """Draws held-out drawings from their captions."""

    name = "shapes-text-to-image"
    description = "draw held-out shapes from their captions; the oracle reads five attributes"
    mode = "image"
    right = "all"

    def conversation(self, index: int) -> Conversation:
        """Returns the caption as the message of the user."""
        target = self.targets[index]
        return Conversation(user_message([{"type": "text", "text": target.caption}]), target)

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Reads the attributes of the images."""
        return rows_of(drawing_hits(outputs, [each.reference for each in conversations]))


class ShapesTextToVideo(_ShapesConversation):
    """Draws videos of held-out motions from their captions."""

    name = "shapes-text-to-video"
    description = "draw videos of held-out motions from their captions; the oracle reads direction, colour and shape"
    mode = "video"
    right = "all"
    num_samples = 50

    def conversation(self, index: int) -> Conversation:
        """Returns the caption as the message of the user."""
        target = evenly(motions("test"), len(self))[index]
        return Conversation(user_message([{"type": "text", "text": target.caption}]), target)

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Reads the motion in the videos."""
        rows = rows_of(motion_hits(outputs, [each.reference for each in conversations]))
        return [{**row, "all": all(row.values())} for row in rows]


class ShapesContinuation(ShapesTextToVideo):
    """Continues videos of held-out motions from their first half, without a caption."""

    name = "shapes-continuation"
    description = "continue videos of held-out motions from their first half; the oracle reads what they keep"

    def conversation(self, index: int) -> Conversation:
        """Returns the request, and the first half of a video with small variations of position and size."""
        seed = self.options.seed + index
        target = random.Random(seed).choice(motions("test"))
        num_frames = self.model.num_frames
        video = animate([target], num_frames, self.model.image_size, torch.Generator().manual_seed(seed))[0]
        frames = [to_pil(frame) for frame in video[: num_frames // 2]]
        return Conversation(
            user_message([{"type": "text", "text": "continue the video"}]), target, first_frames=frames
        )


class ShapesEdits(_ShapesConversation):
    """Edits drawings so that they become held-out ones."""

    name = "shapes-edits"
    description = "recolour, move and add shapes by instruction; the oracle reads five attributes"
    mode = "image"
    right = "right"
    num_samples = 150

    def conversation(self, index: int) -> Conversation:
        """Returns the image before an edit and its instruction. The kinds take turns."""
        edit = make_edit(EDITS[index % len(EDITS)], "test", random.Random(f"{self.options.seed} {index}"))
        before = edit_images(edit, self.model.image_size, self.options.seed + index)[0]
        content = [{"type": "image"}, {"type": "text", "text": edit.instruction}]
        return Conversation(user_message(content), edit, [to_pil(before)])

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Reads the attributes of the edited images."""
        rows: list[dict[str, MetricValue]] = []
        for reading, each in zip(read_drawing(outputs), conversations, strict=True):
            right = is_shown(reading, each.reference.after)
            rows.append({"right": right, **{kind: right if each.reference.kind == kind else None for kind in EDITS}})
        return rows


class ShapesQuestions(_ShapesConversation):
    """Answers questions about held-out drawings."""

    name = "shapes-questions"
    description = "answer questions about one attribute of held-out shapes, compared word by word"
    mode = "text"
    right = "right"

    def conversation(self, index: int) -> Conversation:
        """Returns an image and a question about one attribute. The attributes take turns."""
        question, answer = list(self.targets[index].answers.items())[index % len(ATTRIBUTES)]
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return Conversation(user_message(content), answer, [self.drawn(index)])

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Compares the answers with the attributes."""
        return [{"right": answer == each.reference} for answer, each in zip(outputs, conversations, strict=True)]


class ShapesCaptions(_ShapesConversation):
    """Describes held-out drawings."""

    name = "shapes-captions"
    description = "describe held-out shapes; each attribute must be in the description"
    mode = "text"
    right = "all"

    def conversation(self, index: int) -> Conversation:
        """Returns an image and the request to describe it."""
        target = self.targets[index]
        content = [{"type": "image"}, {"type": "text", "text": target.description_request}]
        return Conversation(user_message(content), target.caption, [self.drawn(index)])

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Looks for the words of each attribute in the descriptions."""
        rows: list[dict[str, MetricValue]] = []
        for answer, each in zip(outputs, conversations, strict=True):
            target = Drawing.from_caption(each.reference)
            words = {**vars(target), "place": PLACE_PHRASES[target.place], "background": f"{target.background} back"}
            row: dict[str, MetricValue] = {name: words[name] in answer for name in ATTRIBUTES}
            rows.append({**row, "all": answer == each.reference})
        return rows


class ShapesCaptionChoice(EvaluationTask):
    """Chooses between the true caption of a held-out drawing and one with another attribute, by likelihood."""

    name = "shapes-caption-choice"
    description = "prefer the true caption of held-out shapes to one with a wrong attribute, by likelihood"
    right = "right"

    def __len__(self) -> int:
        return self.options.samples or 200

    def pair(self, index: int) -> tuple[Drawing, Drawing, str]:
        """Returns a drawing, one that differs in one attribute, and the name of the attribute. They take turns."""
        target = evenly(drawings("test"), len(self))[index]
        name = ATTRIBUTES[index % len(ATTRIBUTES)]
        every = [*drawings("train"), *drawings("test")]
        others = [
            each
            for each in every
            if all((getattr(each, other) == getattr(target, other)) == (other != name) for other in ATTRIBUTES)
        ]
        return target, random.Random(f"{self.options.seed} {index}").choice(others), name

    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """Scores both captions as the answer to the request for a description."""
        model = self.model.model
        pairs = [self.pair(index) for index in indices]
        images = [
            to_pil(draw([target], self.model.image_size, torch.Generator().manual_seed(self.options.seed + index))[0])
            for index, (target, _, _) in zip(indices, pairs, strict=True)
        ]
        pixels = self.model.processor.image_processor(images, return_tensors="pt")["pixel_values"].to(model.device)
        codes = model.model.vision_tower.encode(pixels).codes[:, None]  # the ranker takes rows and columns
        ranker = AnswerRanker(model, self.model.processor)
        true = ranker([target.caption for target, _, _ in pairs], pixels, codes)
        wrong = ranker([other.caption for _, other, _ in pairs], pixels, codes)
        results = []
        for row, (index, (target, other, name)) in enumerate(zip(indices, pairs, strict=True)):
            right = bool(true[row] > wrong[row])
            metrics: dict[str, MetricValue] = {"right": right}
            metrics |= {attribute: right if attribute == name else None for attribute in ATTRIBUTES}
            texts = {"true": target.caption, "wrong": other.caption}
            results.append(SampleResult(index, metrics, texts, {"given": images[row]}))
        return results


class ShapesStories(EvaluationTask):
    """Tells stories of sentences and images."""

    name = "shapes-stories"
    description = "tell stories of two sentences and two images; the oracle compares each image with its sentence"
    uses = ("generation",)
    right = "second"

    def __len__(self) -> int:
        return self.options.samples or 96

    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """Lets the model tell one story for each sample, and reads it."""
        pairs = sorted({drawing.short_caption for drawing in drawings("train")})
        requests = [f"tell a story of {pairs[index % len(pairs)]}" for index in indices]
        seeds = [self.options.seed + index for index in indices]
        stories = tell_stories(self.model.model, self.model.processor, requests, seeds, **self.options.generation)
        results = []
        for index, request, items in zip(indices, requests, stories, strict=True):
            texts = {"request": request, "story": [item["text"] for item in items if item["type"] == "text"]}
            images = [item["image"] for item in items if item["type"] == "image" and item["image"] is not None]
            media = {f"generated-{number}": image for number, image in enumerate(images)}
            results.append(SampleResult(index, dict(read_story(items, request)), texts, media))
        return results


class ShapesReconstruction(ReconstructionTask):
    """Encodes and decodes held-out drawings."""

    name = "shapes-reconstruction"
    description = "encode and decode held-out shapes: PSNR, SSIM, and what the oracle still reads"
    metrics = ("psnr", "ssim")
    right = "color_and_shape"

    def __len__(self) -> int:
        return self.options.samples or 200

    @cached_property
    def dataset(self) -> Dataset:
        """Returns the drawings of all samples."""
        return held_out_drawings(len(self), self.model.image_size, self.options.seed)

    def image(self, index: int) -> Image.Image:
        """Returns a held-out drawing."""
        return self.dataset[index]["images"][0]

    def compare(
        self, indices: Sequence[int], original: torch.Tensor, rebuilt: torch.Tensor
    ) -> list[dict[str, MetricValue]]:
        """Compares pixels, and reads the attributes of the reconstructions."""
        values = super().compare(indices, original, rebuilt)
        targets = [Drawing(**self.dataset[index]["drawing"]) for index in indices]
        hits = rows_of(drawing_hits(rebuilt, targets))
        return [{**value, "color_and_shape": hit["color_and_shape"]} for value, hit in zip(values, hits, strict=True)]


class ShapesZeroShot(EvaluationTask):
    """Classifies held-out drawings by colour and shape, without training."""

    name = "shapes-zero-shot"
    description = "choose among 24 classes such as a red cross, by the vision tower and its text encoder"
    right = "top_1"

    def __len__(self) -> int:
        return self.options.samples or 200

    def check(self) -> None:
        """Checks that there is a text encoder."""
        super().check()
        self.model.text_tower_source()

    @cached_property
    def dataset(self) -> Dataset:
        """Returns the drawings of all samples."""
        return held_out_drawings(len(self), self.model.image_size, self.options.seed)

    @cached_property
    def classifier(self) -> ZeroShotClassifier:
        """Returns the classifier of all classes."""
        return shape_classifier(self.model.text_tower, self.model.text_tokenizer, self.model.image_processor)

    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """Classifies the drawings."""
        records = [self.dataset[index] for index in indices]
        images = [record["images"][0] for record in records]
        chosen = self.classifier.classify(images, count=5)
        results = []
        for index, record, image, names in zip(indices, records, images, chosen, strict=True):
            expected = f"{record['drawing']['color']} {record['drawing']['shape']}"
            metrics: dict[str, MetricValue] = {"top_1": names[0] == expected, "top_5": expected in names}
            results.append(SampleResult(index, metrics, {"chosen": names[0]}, {"given": image}))
        return results


def held_out_drawings(num_samples: int, image_size: int, seed: int) -> Dataset:
    """Returns records of held-out drawings with small variations of position and size."""
    return drawn_shapes("test", num_samples, image_size, tasks={"text_to_image": 1}, seed=seed)


__all__ = [
    "ShapesCaptionChoice",
    "ShapesCaptions",
    "ShapesContinuation",
    "ShapesEdits",
    "ShapesQuestions",
    "ShapesReconstruction",
    "ShapesStories",
    "ShapesTextToImage",
    "ShapesTextToVideo",
    "ShapesZeroShot",
]

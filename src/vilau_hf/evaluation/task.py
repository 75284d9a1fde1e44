"""Base classes of evaluation tasks, whose samples are scored one by one and chosen by their index."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image

from ..modeling.argument_checks_vilau import PositiveInt, check_value
from .evaluated_model import EvaluatedModel
from .intervals import Score, mean, share
from .model_outputs import answer_questions, generate_from_messages
from .sheets import to_pil


# a value of one sample that JSON can hold; `None` where the metric does not apply to the sample
MetricValue = bool | float | None
# an image, or the frames of a video
Medium = Image.Image | list[Image.Image]


@dataclass(frozen=True)
class TaskOptions:
    """
    Options of all tasks. Each task names in `uses` those that it takes beside `samples` and `seed`.

    Args:
        samples (`int`, *optional*): number of samples (default: the number of the task).
        seed (`int`, *optional*, defaults to 0): sample i has the seed `seed + i`.
        data (`str`, *optional*): folder or Hub id of a dataset.
        split (`str`, *optional*): split of the dataset.
        classes (`str`, *optional*): file with one class name a line, in the order of the labels.
        templates (`str`, *optional*): file with one text a line, in which `{}` is replaced by the name of a class.
        instruction (`str`, *optional*): text after each question.
        prompts (`str`, *optional*): file of prompts.
        reference (`str`, *optional*): folder of real images.
        features (`str`, *optional*): network whose features give FID and KID.
        judge (`str`, *optional*): folder of the emoji judge.
        records (`str`, *optional*): folder of emoji records.
        metrics (`tuple[str, ...]`, *optional*): metrics of reconstructions.
        download_metric_weights (`bool`, *optional*, defaults to `False`): whether missing weights of metric networks
            may be downloaded.
        generation (`Mapping[str, Any]`, *optional*): arguments of `generate` that replace the saved settings.
    """

    samples: int | None = None
    seed: int = 0
    data: str | None = None
    split: str | None = None
    classes: str | None = None
    templates: str | None = None
    instruction: str | None = None
    prompts: str | None = None
    reference: str | None = None
    features: str | None = None
    judge: str | None = None
    records: str | None = None
    metrics: tuple[str, ...] | None = None
    download_metric_weights: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_value("samples", self.samples, PositiveInt | None)


@dataclass
class SampleResult:
    """
    Holds what a task finds for one sample.

    Args:
        index (`int`): index of the sample.
        metrics (`dict[str, MetricValue]`): value of each metric. The summary of booleans is a share, that of
            numbers a mean.
        texts (`dict[str, Any]`, *optional*): prompts, answers and the like, values that JSON can hold.
        media (`dict[str, Medium]`, *optional*): images and videos by name, which are saved and shown, in this order.
    """

    index: int
    metrics: dict[str, MetricValue]
    texts: dict[str, Any] = field(default_factory=dict)
    media: dict[str, Medium] = field(default_factory=dict)


@dataclass
class StoredResult:
    """
    Holds a sample's result as it is read from the folder of a run.

    Args:
        index (`int`): index of the sample.
        metrics (`dict[str, MetricValue]`): value of each metric.
        texts (`dict[str, Any]`): prompts, answers and the like.
        media (`dict[str, Path]`): files of images (PNG) and videos (GIF), by name.
        seconds (`float`): time that the sample took, its share of its batch.
    """

    index: int
    metrics: dict[str, MetricValue]
    texts: dict[str, Any]
    media: dict[str, Path]
    seconds: float


class EvaluationTask(ABC):
    """
    A task: samples that a model answers, draws or reconstructs, and the metrics of each.

    A result depends on the index of its sample only, not on the batch, the process or an interruption.

    Args:
        model ([`EvaluatedModel`]): the model, loaded when it is first used.
        options ([`TaskOptions`], *optional*): the options.
    """

    name: ClassVar[str]
    # one line that says what is measured, on which data, and by what
    description: ClassVar[str]
    # options of `TaskOptions` that the task takes; those in `needs` must be given
    uses: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    # metric that decides whether a sample has a green or a red frame on the sheet
    right: ClassVar[str | None] = None

    def __init__(self, model: EvaluatedModel, options: TaskOptions | None = None) -> None:
        self.model = model
        self.options = TaskOptions() if options is None else options

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of samples."""

    def check(self) -> None:
        """
        Checks that model, data and metric networks are there. It runs before the first sample of any task.

        Raises:
            ValueError: if options, model or data do not fit the task.
            FileNotFoundError: if weights of a metric network are missing.
            ImportError: if an optional package is missing.
        """
        for name in self.needs:
            if getattr(self.options, name) is None:
                raise ValueError(f"task {self.name!r} needs `--{name}`, got none.")

    @abstractmethod
    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """
        Computes the results of some samples, in one batch.

        Args:
            indices (`Sequence[int]`): indices of the samples.
        """

    def summarize(self, results: Sequence[StoredResult]) -> dict[str, Score | float]:
        """
        Summarises all results: booleans as a share and numbers as a mean, each with its 95 % interval.

        Args:
            results (`Sequence[StoredResult]`): the results of all samples, in the order of their indices.

        Returns:
            Score of each metric. Samples whose value is `None` do not count; a metric without values is left out.
        """
        scores: dict[str, Score | float] = {}
        for name in dict.fromkeys(name for result in results for name in result.metrics):
            values = [value for result in results if (value := result.metrics.get(name)) is not None]
            if values:
                scores[name] = (
                    share([bool(value) for value in values])
                    if all(isinstance(value, bool) for value in values)
                    else mean([float(value) for value in values])
                )
        return scores

    def caption(self, result: StoredResult) -> str:
        """Returns the text below a sample on the sheet."""
        return ", ".join(str(text) for text in result.texts.values())

    def settings(self) -> dict[str, Any]:
        """Returns the options that the results depend on, values that JSON can hold."""
        used = {"seed", *self.uses} - {"download_metric_weights"}
        return {
            "task": self.name,
            "samples": len(self),
            **{name: value for name, value in asdict(self.options).items() if name in used},
        }


@dataclass(frozen=True)
class Conversation:
    """
    Holds the question of one sample.

    Args:
        messages (`list[dict]`): messages that the assistant continues. Their content parts of type `"image"` are
            filled with `images` in order, and those of type `"video"` with `videos`.
        reference (`Any`): what a right answer is compared with.
        images (`list[PIL.Image.Image]`, *optional*): images in the messages.
        first_frames (`list[PIL.Image.Image]`, *optional*): first frames of a video that the model continues.
        videos (`list[Path]`, *optional*): files of the videos in the messages, about which a text is asked for.
    """

    messages: list[dict]
    reference: Any
    images: list[Image.Image] = field(default_factory=list)
    first_frames: list[Image.Image] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        """Returns the texts of all messages, joined by spaces."""
        # stored records have all fields in all parts, with `None` for those of other types
        return " ".join(part["text"] for message in self.messages for part in message["content"] if part.get("text"))


class ConversationTask(EvaluationTask):
    """A task whose samples are conversations that the model continues with a text, an image or a video."""

    mode: ClassVar[Literal["text", "image", "video"]]
    uses: ClassVar[tuple[str, ...]] = ("generation",)
    max_new_tokens: ClassVar[int] = 24

    @abstractmethod
    def conversation(self, index: int) -> Conversation:
        """Returns the conversation of one sample. It does not load the weights of the model."""

    @abstractmethod
    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """
        Scores outputs.

        Args:
            conversations (`Sequence[Conversation]` of length N): the conversations.
            outputs (`list[str]` of length N, or `torch.Tensor`): answers, images `(N, 3, S, S)` or videos
                `(N, F, 3, S, S)` in uint8.

        Returns:
            Metrics of each output.
        """

    def check(self) -> None:
        """Checks the options, and that text is decoded greedily, since text has no seed for each sample."""
        super().check()
        if self.mode == "text" and self.options.generation.get("do_sample"):
            raise ValueError(f"task {self.name!r} decodes text greedily, got `do_sample` true in `--generation`.")

    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """Lets the model continue the conversations, sample i with the seed `seed + i`, and scores the outputs."""
        conversations = [self.conversation(index) for index in indices]
        outputs = self._outputs(indices, conversations)
        metrics = self.score(conversations, outputs)
        results = []
        for row, (index, conversation) in enumerate(zip(indices, conversations, strict=True)):
            texts = {"prompt": conversation.prompt}
            given = [*conversation.images, *conversation.first_frames]
            media: dict[str, Medium] = {f"given-{n}": image for n, image in enumerate(given)}
            output = outputs[row]
            if isinstance(output, str):
                texts["answer"] = output
                texts["expected"] = str(conversation.reference)
            elif output.ndim == 3:
                media["generated"] = to_pil(output)
            else:
                media["generated"] = [to_pil(frame) for frame in output]
            results.append(SampleResult(index, metrics[row], texts, media))
        return results

    def _outputs(self, indices: Sequence[int], conversations: Sequence[Conversation]) -> list[str] | torch.Tensor:
        model = self.model.model
        processor = self.model.processor
        if self.mode == "text":
            # `answer_questions` leaves the last message out.
            records = [
                {"messages": [*each.messages, {}], "images": each.images, "videos": each.videos}
                for each in conversations
            ]
            settings = {"max_new_tokens": self.max_new_tokens, **self.options.generation}
            return answer_questions(model, processor, records, batch_size=len(records), **settings)
        settings = dict(self.options.generation)
        if conversations[0].first_frames:
            frames = [frame for each in conversations for frame in each.first_frames]
            pixels = processor.image_processor(frames, return_tensors="pt")["pixel_values"].to(model.device)
            settings["first_frames"] = pixels.unflatten(0, (len(conversations), -1))
        return generate_from_messages(
            model,
            processor,
            [each.messages for each in conversations],
            self.mode,
            [self.options.seed + index for index in indices],
            [each.images for each in conversations] if conversations[0].images else None,
            batch_size=len(conversations),
            **settings,
        )


def rows_of(columns: dict[str, list[bool]]) -> list[dict[str, MetricValue]]:
    """Returns the metrics of each sample, from a list of values for each metric."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Returns `count` entries of `items`, spread evenly; all entries are repeated if there are fewer than `count`."""
    return [
        items[index * len(items) // count] if count < len(items) else items[index % len(items)]
        for index in range(count)
    ]


__all__ = [
    "Conversation",
    "ConversationTask",
    "EvaluationTask",
    "Medium",
    "MetricValue",
    "SampleResult",
    "StoredResult",
    "TaskOptions",
    "evenly",
    "rows_of",
]

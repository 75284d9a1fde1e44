"""Images, clips and judge that the evaluation tasks of emoji share."""

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ..evaluation.image_data import choose_evenly
from ..evaluation.intervals import Score, ratio
from ..evaluation.task import EvaluationTask, StoredResult
from .dataset import Emoji, load_emoji
from .demo import SAMPLES
from .judge import EmojiJudge
from .packages import STYLES
from .tasks import EmojiTasks


class EmojiTask(EvaluationTask):
    """A task about the images of `records` that were held out of training, each in a style that is new for it."""

    uses = ("records",)

    @property
    def folder(self) -> Path:
        """Returns the folder of records, by default that of the few concepts that the package ships."""
        return SAMPLES if self.options.records is None else Path(self.options.records)

    @cached_property
    def held_out(self) -> list[Emoji]:
        """Returns the held-out images of all samples, spread over the records."""
        every = load_emoji(self.folder, self.model.image_size, "pairs")
        return [every[index] for index in choose_evenly(len(every), self.options.samples, str(self.folder))]

    @cached_property
    def trained(self) -> list[Emoji]:
        """Returns the images of training."""
        return load_emoji(self.folder, self.model.image_size, "train")

    @cached_property
    def styles(self) -> dict[str, dict[str, Emoji]]:
        """Returns the images of training by concept and style."""
        styles: dict[str, dict[str, Emoji]] = {}
        for one in self.trained:
            styles.setdefault(one.concept.key, {})[one.style] = one
        return styles

    @cached_property
    def tasks(self) -> EmojiTasks:
        """Returns the training tasks, whose questions are asked."""
        return EmojiTasks([*self.trained, *load_emoji(self.folder, self.model.image_size, "pairs")], [], {}, 0)

    def __len__(self) -> int:
        return len(self.held_out)

    def choice(self, index: int) -> random.Random:
        """Returns the source of a sample's choices."""
        return random.Random(f"{self.options.seed} {index}")

    def check(self) -> None:
        """Checks that the records have held-out images."""
        super().check()
        if not self.held_out:
            raise ValueError(f"{self.folder} has no held-out images, which the task {self.name!r} needs.")

    def other_style(self, one: Emoji) -> Emoji:
        """Returns the image of the same concept in the first style of training."""
        styles = self.styles[one.concept.key]
        return next(styles[style] for style in STYLES if style in styles)


class JudgedEmojiTask(EmojiTask):
    """A task whose images the judge names."""

    uses = (*EmojiTask.uses, "judge")
    needs = ("judge",)
    right = "top_1"

    @cached_property
    def judge(self) -> EmojiJudge:
        """Returns the judge."""
        return EmojiJudge.load(str(self.options.judge))

    def check(self) -> None:
        """Checks that there are a judge and held-out images."""
        super().check()
        _ = self.judge

    def summarize(self, results: Sequence[StoredResult]) -> dict[str, Score | float]:
        """Adds the ratio of each share to that of the real images, which is the ceiling."""
        scores = super().summarize(results)
        for name in [name for name in scores if f"{name}_real" in scores]:
            columns = [[float(result.metrics[key] or 0) for result in results] for key in (name, f"{name}_real")]
            scores[f"{name}_ratio"] = ratio(*columns, seed=self.options.seed)
        return scores


__all__ = ["EmojiTask", "JudgedEmojiTask"]

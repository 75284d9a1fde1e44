"""Training tasks of stage 2: drawing, naming, answering, editing, clips and rows of examples, from stored codes."""

import io
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from ..data.records import media_content_part, text_content_part
from .concepts import Concept
from .dataset import BACKGROUNDS, Emoji, caption, compose, concept_of, load_emoji_records, moved
from .images import shrink
from .packages import STYLES
from .records import ANIMATED
from .split import is_taught, split_of


# Shares of the tasks. Drawing is the hardest and gets most: two thirds of the images and frames.
TASKS = {"draw": 24.0, "answer": 4.0, "edit": 2.0, "row": 0.5, "animate": 0.5, "watch": 0.1}
# Images in a record of each task; a clip counts as one.
IMAGES_OF_TASK = {"draw": 1, "answer": 1, "edit": 2, "row": 4, "animate": 1, "watch": 1}
QUESTIONS = ("name", "describe", "style", "group", "is_it")
# Variants of an image that are scaled, turned and shifted, each on one background. The model is asked about them, too:
# from the codes of a few fixed images it would learn names by heart.
NUM_MOVED = 6
SHARE_MOVED = 0.7
# Concepts that stand near each other in Unicode's order look alike: a dog and a poodle, two kinds of fruit.
NEAR_IN_ORDER = 8


@dataclass(frozen=True)
class Clip:
    """
    Holds one animated clip.

    Args:
        concept (`Concept`): what it shows.
        rgba (`np.ndarray` of shape `(F, S, S, 4)`, uint8): frames at equal distances.
    """

    concept: Concept
    rgba: np.ndarray

    def on(self, background: str) -> list[Image.Image]:
        """Returns the RGB frames on a background of `BACKGROUNDS`."""
        return [Image.fromarray(frame) for frame in compose(self.rgba, background)]


def load_clips(folder: str | Path, size: int, num_frames: int, held_out: bool = False) -> list[Clip]:
    """
    Loads clips of the concepts that the shipped model learns.

    Args:
        folder (`str` or `Path`): records written by `vilau records emoji`.
        size (`int`): side of the frames in pixels.
        num_frames (`int`): frames that are taken of a clip, at equal distances from the first.
        held_out (`bool`, *optional*, defaults to `False`): the clips that are held out, in place of the others.
    """
    records = load_emoji_records(folder)
    labels = [(concept_of(row), row["style"]) for row in records.remove_columns(["images", "videos", "messages"])]
    rows = [
        row
        for row, (concept, style) in enumerate(labels)
        if style == ANIMATED and is_taught(concept) and split_of(concept).is_clip == held_out
    ]
    return [
        Clip(labels[row][0], _frames(record["videos"][0]["bytes"], size, num_frames))
        for row, record in zip(rows, records.select(rows), strict=True)
    ]


def _frames(content: bytes, size: int, num_frames: int) -> np.ndarray:
    """Returns frames `(F, S, S, 4)` of an animated image at equal distances."""
    frames = []
    with Image.open(io.BytesIO(content)) as image:
        for index in range(num_frames):
            # Only the classes of formats with frames have the attribute, so `Image` does not declare it.
            image.seek(index * getattr(image, "n_frames", 1) // num_frames)
            frames.append(np.array(shrink(image, size)))
    return np.stack(frames)


def media_records(emoji: list[Emoji], clips: list[Clip]) -> Dataset:
    """
    Returns records of all images and clips that the tasks show, to be encoded once by [`encode_dataset`].

    These are every image and clip on every background, and `NUM_MOVED` moved variants of every image. Their ids are
    "style/key/background" and "style/key/moved-number".
    """
    items: list[Emoji | Clip] = [*emoji, *clips]
    variants = [(index, name) for index in range(len(items)) for name in BACKGROUNDS]
    variants += [(index, moved_name(number)) for index in range(len(emoji)) for number in range(NUM_MOVED)]
    columns = {"item": [index for index, _ in variants], "variant": [name for _, name in variants]}

    def read(batch: dict[str, list]) -> dict[str, list]:
        read_rows = []
        for item, variant in zip(batch["item"], batch["variant"], strict=True):
            one = items[item]
            kind = "video" if isinstance(one, Clip) else "image"
            media = _image_of_variant(one, variant)
            read_rows.append(
                {
                    "id": media_id(one, variant),
                    "messages": [{"role": "assistant", "content": [media_content_part(kind)]}],
                    "images": [media] if kind == "image" else [],
                    "videos": [media] if kind == "video" else [],
                }
            )
        return {name: [row[name] for row in read_rows] for name in read_rows[0]}

    return Dataset.from_dict(columns).with_transform(read)


def media_id(item: Emoji | Clip, variant: str) -> str:
    """Returns the id of an image or a clip on a background, or of a moved variant with a name of `moved_name`."""
    style = ANIMATED if isinstance(item, Clip) else item.style
    return f"{style}/{item.concept.key}/{variant}"


def moved_name(number: int) -> str:
    """Returns the name of a moved variant."""
    return f"moved-{number}"


def moved_background(one: Emoji, name: str) -> str:
    """Returns the background of a moved variant of an image."""
    return _background(random.Random(f"background {media_id(one, name)}"))


def _image_of_variant(one: Emoji | Clip, variant: str) -> Image.Image | list[Image.Image]:
    """Returns the image or the frames of a variant of [`media_records`]."""
    if isinstance(one, Clip) or variant in BACKGROUNDS:
        return one.on(variant)
    return moved(one, random.Random(media_id(one, variant))).on(moved_background(one, variant))


class EmojiTasks(torch.utils.data.Dataset):
    """
    Gives records of all tasks with stored codes, in the message schema of [`VilaUDataCollator`].

    Args:
        emoji (`list[Emoji]`): still images.
        clips (`list[Clip]`): animated clips.
        codes (`dict[str, np.ndarray]`): codes `(F, L * D)` of every image (F = 1) and clip by [`media_id`],
            as [`load_encoded`] returns them.
        num_samples (`int`): number of records; the record of an index is the same in every epoch.
        tasks (`dict[str, float]`, *optional*): shares of the tasks (default: `TASKS`).
        seed (`int`, *optional*, defaults to 0): seed of all choices.
    """

    def __init__(
        self,
        emoji: list[Emoji],
        clips: list[Clip],
        codes: dict[str, np.ndarray],
        num_samples: int,
        tasks: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.emoji = emoji
        self.clips = clips
        self.codes = codes
        self.num_samples = num_samples
        self.seed = seed
        shares = TASKS if tasks is None else tasks
        self.names = list(shares)
        self.weights = list(shares.values())
        self.concepts = sorted({one.concept.key: one.concept for one in emoji}.values(), key=_unicode_order)
        self.position = {concept.key: index for index, concept in enumerate(self.concepts)}
        self.styles: dict[str, dict[str, Emoji]] = defaultdict(dict)
        for one in emoji:
            self.styles[one.concept.key][one.style] = one

    def __len__(self) -> int:
        return self.num_samples

    def grouped(self) -> Dataset:
        """
        Returns the records as a `datasets.Dataset` with the column `length`, by which batches can be grouped.

        The length is the number of images and frames. So a batch has records of one task or of similar ones.
        """
        lengths = []
        for index in range(self.num_samples):
            task, _ = self._task_of(index)
            frames = len(self.clips[0].rgba) if task in ("animate", "watch") else 1
            lengths.append(IMAGES_OF_TASK[task] * frames)

        def read(batch: dict[str, list]) -> dict[str, list]:
            records = [self[index] for index in batch["index"]]
            return {name: [record[name] for record in records] for name in records[0]}

        columns = {"index": range(self.num_samples), "length": lengths}
        return Dataset.from_dict(columns).with_transform(read)

    def _task_of(self, index: int) -> tuple[str, random.Random]:
        """Returns the task of a record, and the source of its further choices."""
        choice = random.Random(f"{self.seed} {index}")
        return choice.choices(self.names, self.weights)[0], choice

    def __getitem__(self, index: int) -> dict:
        task, choice = self._task_of(index)
        user, assistant, media = getattr(self, f"_{task}")(choice)
        return {
            "id": f"{task} {index}",
            "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
            "codes": [self.codes[name] for name in media],
        }

    def _draw(self, choice: random.Random) -> tuple[list, list, list[str]]:
        one = choice.choice(self.emoji)
        background = _background(choice)
        text = caption(one.concept, one.style, background, choice, always_background=True)
        return [text_content_part(text)], [media_content_part("image")], [media_id(one, background)]

    def _answer(self, choice: random.Random) -> tuple[list, list, list[str]]:
        one = choice.choice(self.emoji)
        variant, background = self._shown(one, choice)
        question, answer = self.question(one, background, choice.choice(QUESTIONS), choice)
        return (
            [media_content_part("image"), text_content_part(question)],
            [text_content_part(answer)],
            [media_id(one, variant)],
        )

    def _shown(self, one: Emoji, choice: random.Random) -> tuple[str, str]:
        """Returns a variant of an image to show, often a moved one, and its background."""
        if choice.random() < SHARE_MOVED:
            variant = moved_name(choice.randrange(NUM_MOVED))
            return variant, moved_background(one, variant)
        background = _background(choice)
        return background, background

    def question(self, one: Emoji, background: str, kind: str, choice: random.Random) -> tuple[str, str]:
        """Returns a question of a kind of `QUESTIONS` about an image, and its answer."""
        if kind == "name":
            return "what is this?", one.concept.name
        if kind == "describe":
            return "describe the image", describe(one, background)
        if kind == "style":
            return "which style is it?", one.style
        if kind == "group":
            return "which group does it belong to?", one.concept.group.lower()
        is_right = choice.random() < 0.5
        asked = one.concept if is_right else self.near_concept(one.concept, choice)
        return f"is it {asked.name}?", "yes" if is_right else "no"

    def near_concept(self, concept: Concept, choice: random.Random) -> Concept:
        """Returns another concept of the same group that stands near in Unicode's order: a hard negative."""
        position = self.position.get(concept.key, 0)
        near = self.concepts[max(0, position - NEAR_IN_ORDER) : position + NEAR_IN_ORDER + 1]
        others = [other for other in near if other.key != concept.key and other.group == concept.group]
        return choice.choice(others or [other for other in self.concepts if other.key != concept.key])

    def _edit(self, choice: random.Random) -> tuple[list, list, list[str]]:
        before = choice.choice(self.emoji)
        variant, background = self._shown(before, choice)
        others = [style for style in self.styles[before.concept.key] if style != before.style]
        if others and choice.random() < 0.75:
            style = choice.choice(others)
            after = self.styles[before.concept.key][style]
            instruction = restyle_instruction(style)
            new_background = background
        else:
            after = before
            variant = background  # the image itself must not move
            new_background = choice.choice([name for name in BACKGROUNDS if name != background])
            instruction = f"put it on a {new_background} background"
        media = [media_id(before, variant), media_id(after, new_background)]
        return [media_content_part("image"), text_content_part(instruction)], [media_content_part("image")], media

    def _row(self, choice: random.Random) -> tuple[list, list, list[str]]:
        background = _background(choice)
        while True:
            shown, asked = choice.sample(self.concepts, 2)
            both = [style for style in STYLES if style in self.styles[shown.key] and style in self.styles[asked.key]]
            if len(both) >= 2:
                break
        given, wanted = choice.sample(both, 2)
        items = [self.styles[key][style] for key in (shown.key, asked.key) for style in (given, wanted)]
        return *row_messages(items), [media_id(item, background) for item in items]

    def _animate(self, choice: random.Random) -> tuple[list, list, list[str]]:
        clip = choice.choice(self.clips)
        background = _background(choice)
        text = "continue the video"
        if choice.random() < 0.8:
            text = caption(clip.concept, ANIMATED, background, choice, always_background=True)
        return [text_content_part(text)], [media_content_part("video")], [media_id(clip, background)]

    def _watch(self, choice: random.Random) -> tuple[list, list, list[str]]:
        clip = choice.choice(self.clips)
        background = _background(choice)
        return (
            [media_content_part("video"), text_content_part("what is this?")],
            [text_content_part(clip.concept.name)],
            [media_id(clip, background)],
        )


def _unicode_order(concept: Concept) -> tuple[str, list[int]]:
    """Returns a key that sorts concepts by their groups, then by their code points."""
    return concept.group, [int(point, 16) for point in concept.key.split("-")]


def row_messages(items: list[Emoji]) -> tuple[list, list]:
    """Returns user and assistant content of a row: every item with its caption, the last one to be drawn."""
    user = []
    for item in items[:-1]:
        user += [text_content_part(f"{item.concept.name}, {item.style} style"), media_content_part("image")]
    user.append(text_content_part(f"{items[-1].concept.name}, {items[-1].style} style"))
    return user, [media_content_part("image")]


def restyle_instruction(style: str) -> str:
    """Returns the instruction to draw an image in another style."""
    return f"change it to {style} style"


def describe(one: Emoji, background: str) -> str:
    """Returns the full description of an image."""
    return f"{one.concept.name}, {one.style} style, on a {background} background"


def _background(choice: random.Random) -> str:
    """Returns white in half of the cases, otherwise any background."""
    return "white" if choice.random() < 0.5 else choice.choice(list(BACKGROUNDS))


__all__ = [
    "NUM_MOVED",
    "QUESTIONS",
    "TASKS",
    "Clip",
    "EmojiTasks",
    "describe",
    "load_clips",
    "media_id",
    "media_records",
    "moved_background",
    "moved_name",
    "restyle_instruction",
    "row_messages",
]

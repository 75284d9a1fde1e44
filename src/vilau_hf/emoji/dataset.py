"""Images of emoji in memory, with a background and a caption chosen for each sample."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, load_dataset
from PIL import Image

from .concepts import Concept
from .images import move, shrink
from .packages import STYLES
from .records import ANIMATED
from .split import is_taught, split_of


# Colours of the backgrounds, RGB in [0, 255]. White is the background that captions do not name.
BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (20, 20, 24),
    "gray": (150, 150, 155),
    "red": (225, 85, 80),
    "yellow": (250, 220, 110),
    "green": (120, 200, 130),
    "blue": (110, 170, 240),
    "pink": (250, 180, 205),
}
SPLITS = ("train", "pairs", "concepts")
# columns that say what a record shows
COLUMNS = ("concept", "name", "group", "keywords", "style", "images", "videos", "messages")
# Largest motion of an image in stage 1: shares of its size, radians, and shares of its side.
SCALES = (0.8, 1.1)
TURN = 0.2
SHIFT = 0.08


@dataclass(frozen=True)
class Emoji:
    """
    Holds one still image.

    Args:
        concept (`Concept`): what it shows.
        style (`str`): a key of `STYLES`.
        rgba (`np.ndarray` of shape `(S, S, 4)`, uint8): the image.
    """

    concept: Concept
    style: str
    rgba: np.ndarray

    def on(self, background: str) -> Image.Image:
        """Returns the RGB image on a background of `BACKGROUNDS`."""
        return Image.fromarray(compose(self.rgba, background))


def compose(rgba: np.ndarray, background: str) -> np.ndarray:
    """Returns RGBA images `(..., 4)` in uint8 on a background of `BACKGROUNDS`, as RGB `(..., 3)` in uint8."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    mixed = rgba[..., :3] * alpha + np.array(BACKGROUNDS[background], np.float32) * (1 - alpha)
    return mixed.round().astype(np.uint8)


def load_emoji_records(folder: str | Path) -> Dataset:
    """
    Loads records written by `vilau records emoji`.

    Args:
        folder (`str` or `Path`): their folder.

    Raises:
        ValueError: if there is no such folder, or its records are of another kind.
    """
    # Otherwise `datasets` would look for a dataset of this name on the Hub.
    if not Path(folder).is_dir():
        raise ValueError(f"{str(folder)!r} is no folder. `vilau records emoji FOLDER` writes records of emoji.")
    records = load_dataset(str(folder), split="train")
    missing = [name for name in COLUMNS if name not in records.column_names]
    if missing:
        raise ValueError(
            f"{str(folder)!r} has no records of emoji: the columns {', '.join(missing)} are missing. "
            "`vilau records emoji FOLDER` writes such records."
        )
    return records


def load_emoji(folder: str | Path, size: int, split: str = "train") -> list[Emoji]:
    """
    Loads the still images of the concepts that the shipped model learns.

    Args:
        folder (`str` or `Path`): records written by `vilau records emoji`.
        size (`int`): side of the images in pixels.
        split (`str`, *optional*, defaults to `"train"`): `"train"`; `"pairs"`, held-out styles of concepts that are
            in training in two other styles or more; or `"concepts"`, held-out concepts in all styles.

    Raises:
        ValueError: for an unknown split, or a folder without records of emoji.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}.")
    records = load_emoji_records(folder)
    labels = [(concept_of(row), row["style"]) for row in records.remove_columns(["images", "videos", "messages"])]
    styles: dict[str, set[str]] = {}
    for concept, style in labels:
        styles.setdefault(concept.key, set()).add(style)
    rows = [
        row
        for row, (concept, style) in enumerate(labels)
        if style in STYLES and is_taught(concept) and _split_of_image(concept, style, styles[concept.key]) == split
    ]
    return [
        Emoji(*labels[row], np.array(shrink(Image.open(io.BytesIO(record["images"][0]["bytes"])), size)))
        for row, record in zip(rows, records.select(rows), strict=True)
    ]


def concept_of(record: dict) -> Concept:
    """Returns the concept of a record."""
    return Concept(record["concept"], record["name"], record["group"], tuple(record["keywords"]))


def _split_of_image(concept: Concept, style: str, styles: set[str]) -> str | None:
    """Returns the split of an image whose concept exists in `styles`, or `None` if it is in none."""
    split = split_of(concept)
    if split.is_concept:
        return "concepts"
    if style not in split.styles:
        return "train"
    return "pairs" if len(styles - {*split.styles, ANIMATED}) >= 2 else None


def concept_names(folder: str | Path) -> list[str]:
    """Returns the names of all concepts that the shipped model learns or that are held out from it, sorted."""
    records = load_emoji_records(folder).remove_columns(["images", "videos", "messages"])
    return sorted({row["name"] for row in records if row["style"] in STYLES and is_taught(concept_of(row))})


class CaptionedEmoji(torch.utils.data.Dataset):
    """
    Gives images with captions for stage 1: `{"images": [image], "caption": caption}`.

    Args:
        emoji (`list[Emoji]`): the images.
        num_samples (`int`): number of samples; the sample of an index is the same in every epoch.
        seed (`int`, *optional*, defaults to 0): seed of image, background and caption.
        share_moved (`float`, *optional*, defaults to 0.5): share of images that are scaled, turned and shifted. With
            three or four images of a concept, the tower learns more from moved ones.
    """

    def __init__(self, emoji: list[Emoji], num_samples: int, seed: int = 0, share_moved: float = 0.5) -> None:
        self.emoji = emoji
        self.num_samples = num_samples
        self.seed = seed
        self.share_moved = share_moved

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict:
        choice = random.Random(f"{self.seed} {index}")
        one = choice.choice(self.emoji)
        background = "white" if choice.random() < 0.5 else choice.choice(list(BACKGROUNDS))
        if choice.random() < self.share_moved:
            one = moved(one, choice)
        return {"images": [one.on(background)], "caption": caption(one.concept, one.style, background, choice)}


def moved(one: Emoji, choice: random.Random) -> Emoji:
    """Returns an image at another place, angle and size."""
    image = move(
        Image.fromarray(one.rgba),
        scale=choice.uniform(*SCALES),
        turn=choice.uniform(-TURN, TURN),
        right=choice.uniform(-SHIFT, SHIFT),
        down=choice.uniform(-SHIFT, SHIFT),
    )
    return Emoji(one.concept, one.style, np.array(image))


def caption(
    concept: Concept, style: str, background: str, choice: random.Random, always_background: bool = False
) -> str:
    """
    Returns a caption: the name or some keywords, often with the style, and the background if it is not white.

    Args:
        concept (`Concept`): what the image shows.
        style (`str`): its style.
        background (`str`): its background.
        choice (`random.Random`): source of the choices.
        always_background (`bool`, *optional*, defaults to `False`): name every background that is not white, rather
            than 70 % of them.
    """
    words = [word for word in concept.keywords if word.isalpha()]
    text = concept.name
    if words and choice.random() < 0.2:
        text = " ".join(choice.sample(words, min(len(words), choice.randint(2, 3))))
    if choice.random() < 0.5:
        text = f"{text}, {style} style"
    if background != "white" and (always_background or choice.random() < 0.7):
        text = f"{text}, on a {background} background"
    return text


def caption_texts(emoji: list[Emoji]) -> Iterator[str]:
    """Yields texts that hold every word of the captions, to train a tokenizer on."""
    for one in emoji:
        yield f"{one.concept.name}, {one.style} style"
        yield " ".join(word for word in one.concept.keywords if word.isalpha())
    for background in BACKGROUNDS:
        yield f", on a {background} background"


__all__ = [
    "BACKGROUNDS",
    "CaptionedEmoji",
    "Emoji",
    "caption",
    "caption_texts",
    "compose",
    "concept_names",
    "concept_of",
    "load_emoji",
    "load_emoji_records",
    "moved",
]

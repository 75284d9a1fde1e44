"""Drawn shapes that change: instructions to edit an image, and short stories of sentences and images."""

import random
from dataclasses import dataclass, replace

import torch

from .shapes import BACKGROUNDS, COLORS, HELD_OUT_DRAWINGS, PLACES, SHAPES, SIZES, Drawing, check_split, draw


EDITS = ("recolor", "move", "add")


@dataclass(frozen=True)
class Edit:
    """
    An instruction to edit an image, with the images before and after.

    kind (`str`): one of `EDITS`.
    before (`Drawing`, *optional*): the drawing before the edit, `None` for an image with nothing but a background.
    instruction (`str`): the text that asks for the edit.
    after (`Drawing`): the drawing after the edit.
    """

    kind: str
    before: Drawing | None
    instruction: str
    after: Drawing


@dataclass(frozen=True)
class Story:
    """Two drawings, the sentence in front of each drawing, and the request for the story."""

    request: str
    drawings: tuple[Drawing, Drawing]
    sentences: tuple[str, str]


def _is_held_out(drawing: Drawing) -> bool:
    return (drawing.color, drawing.shape, drawing.place) in HELD_OUT_DRAWINGS


def _random_drawing(choice: random.Random, held_out: bool) -> Drawing:
    """Chooses a drawing among the combinations held out from training, or among all others."""
    while True:
        drawing = Drawing(*(choice.choice(list(words)) for words in (COLORS, SHAPES, SIZES, PLACES, BACKGROUNDS)))
        if _is_held_out(drawing) == held_out:
            return drawing


def make_edit(kind: str, split: str, choice: random.Random) -> Edit:
    """
    Makes a random edit whose first drawing is not held out from training.

    Args:
        kind (`str`): `"recolor"`, `"move"` or `"add"`.
        split (`str`): `"test"` makes the drawing after the edit a combination held out from training; `"train"` makes
            it another one.
        choice (`random.Random`): source of random numbers.

    Raises:
        ValueError: if the split is unknown.
    """
    check_split(split)
    while True:
        after = _random_drawing(choice, held_out=split == "test")
        if kind == "add":
            return Edit(kind, None, f"add {after.caption.removesuffix(f' on a {after.background} background')}", after)
        if kind == "recolor":
            color = choice.choice([name for name in COLORS if name != after.color])
            before = replace(after, color=color)
            instruction = f"turn it {after.color}"
        else:
            place = choice.choice([name for name in PLACES if name != after.place])
            before = replace(after, place=place)
            instruction = f"move it to the {after.place}"
        if not _is_held_out(before):
            return Edit(kind, before, instruction, after)


def make_story(split: str, choice: random.Random) -> Story:
    """Makes a random story of a shape that moves or changes its colour; arguments as for [`make_edit`]."""
    edit = make_edit(choice.choice(["recolor", "move"]), split, choice)
    before = edit.before
    if before is None:
        raise ValueError(f"a story needs an edit with a drawing before it, got the kind {edit.kind!r}.")
    event = edit.instruction.replace("turn it", "it turns").replace("move it", "it moves")
    return Story(
        request=f"tell a story of {before.short_caption}",
        drawings=(before, edit.after),
        sentences=(before.caption, event),
    )


def read_event(drawing: Drawing, sentence: str) -> Drawing | None:
    """Returns `drawing` after the event of a story's second sentence; `None` if the sentence names no known event."""
    for color in COLORS:
        if sentence == f"it turns {color}":
            return replace(drawing, color=color)
    for place in PLACES:
        if sentence == f"it moves to the {place}":
            return replace(drawing, place=place)
    return None


def edit_images(edit: Edit, image_size: int, seed: int) -> torch.Tensor:
    """
    Draws the images before and after an edit.

    Args:
        edit (`Edit`): the edit.
        image_size (`int`): side of the images in pixels.
        seed (`int`): seed of the jitter of position and size.

    Returns:
        `torch.Tensor` of shape `(2, 3, image_size, image_size)`, uint8.
    """
    # One seed for both images: the jitter is the same, so only what the instruction names changes.
    after = draw([edit.after], image_size, torch.Generator().manual_seed(seed))
    if edit.before is None:
        background = torch.tensor(BACKGROUNDS[edit.after.background], dtype=torch.uint8)
        return torch.cat([background[None, :, None, None].expand_as(after), after])
    return torch.cat([draw([edit.before], image_size, torch.Generator().manual_seed(seed)), after])


def story_images(story: Story, image_size: int, seed: int) -> torch.Tensor:
    """Draws the two images of a story; arguments and result as for [`edit_images`]."""
    return torch.cat([draw([each], image_size, torch.Generator().manual_seed(seed)) for each in story.drawings])


__all__ = [
    "EDITS",
    "Edit",
    "Story",
    "edit_images",
    "make_edit",
    "make_story",
    "read_event",
    "story_images",
]

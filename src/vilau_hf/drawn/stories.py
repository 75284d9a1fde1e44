"""Drawn shapes that change: instructions to edit a picture, and short stories in words and pictures."""

import random
from dataclasses import dataclass, replace

import torch

from .shapes import BACKGROUNDS, COLORS, HELD_OUT_DRAWINGS, PLACES, SHAPES, SIZES, Drawing, check_split, draw


EDITS = ("recolor", "move", "add")


@dataclass(frozen=True)
class Edit:
    """A picture, empty but for its background if `before` is `None`; what is to be done; and what it shows then."""

    kind: str
    before: Drawing | None
    instruction: str
    after: Drawing


@dataclass(frozen=True)
class Story:
    """Two drawings, the sentence before each, and what was asked for."""

    request: str
    drawings: tuple[Drawing, Drawing]
    sentences: tuple[str, str]


def _is_held_out(drawing: Drawing) -> bool:
    return (drawing.color, drawing.shape, drawing.place) in HELD_OUT_DRAWINGS


def _any_drawing(choice: random.Random, held_out: bool) -> Drawing:
    """A drawing of the combinations that training lacks, or of the others."""
    while True:
        drawing = Drawing(*(choice.choice(list(words)) for words in (COLORS, SHAPES, SIZES, PLACES, BACKGROUNDS)))
        if _is_held_out(drawing) == held_out:
            return drawing


def make_edit(kind: str, split: str, choice: random.Random) -> Edit:
    """
    An edit of a `kind`, `"recolor"`, `"move"` or `"add"`. The picture before is one that training has; the one after
    is so in split `"train"`, and in `"test"` it is one that training lacks.
    """
    check_split(split)
    while True:
        after = _any_drawing(choice, held_out=split == "test")
        if kind == "add":
            return Edit(kind, None, f"add {after.caption.removesuffix(f' on a {after.background} background')}", after)
        if kind == "recolor":
            color = choice.choice([name for name in COLORS if name != after.color])
            before, instruction = replace(after, color=color), f"turn it {after.color}"
        else:
            place = choice.choice([name for name in PLACES if name != after.place])
            before, instruction = replace(after, place=place), f"move it to the {after.place}"
        if not _is_held_out(before):
            return Edit(kind, before, instruction, after)


def make_story(split: str, choice: random.Random) -> Story:
    """A story of a shape that is moved or turns another colour; `split` as for [`make_edit`]."""
    edit = make_edit(choice.choice(["recolor", "move"]), split, choice)
    event = edit.instruction.replace("turn it", "it turns").replace("move it", "it moves")
    return Story(
        request=f"tell a story of {edit.before.short_caption}",
        drawings=(edit.before, edit.after),
        sentences=(edit.before.caption, event),
    )


def read_event(drawing: Drawing, sentence: str) -> Drawing | None:
    """What `drawing` becomes by the second sentence of a story; `None` if that is no such sentence."""
    for color in COLORS:
        if sentence == f"it turns {color}":
            return replace(drawing, color=color)
    for place in PLACES:
        if sentence == f"it moves to the {place}":
            return replace(drawing, place=place)
    return None


def edit_pictures(edit: Edit, image_size: int, seed: int) -> torch.Tensor:
    """Pictures before and after, uint8 `(2, 3, image_size, image_size)`; place and size vary a little by `seed`."""
    after = draw([edit.after], image_size, torch.Generator().manual_seed(seed))
    if edit.before is None:
        background = torch.tensor(BACKGROUNDS[edit.after.background], dtype=torch.uint8)
        return torch.cat([background[None, :, None, None].expand_as(after), after])
    return torch.cat([draw([edit.before], image_size, torch.Generator().manual_seed(seed)), after])


def story_pictures(story: Story, image_size: int, seed: int) -> torch.Tensor:
    """The pictures of a story, uint8 `(2, 3, image_size, image_size)`; as [`edit_pictures`]."""
    return torch.cat([draw([each], image_size, torch.Generator().manual_seed(seed)) for each in story.drawings])


__all__ = ["EDITS", "Edit", "Story", "edit_pictures", "make_edit", "make_story", "read_event", "story_pictures"]

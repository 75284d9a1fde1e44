"""The dataset of drawn shapes: records made on the fly from a seed."""

import random

import torch
from datasets import Dataset

from ..evaluation.sheets import to_pil
from .shapes import Motion, animate, check_split, draw, drawings, motions
from .stories import EDITS, edit_pictures, make_edit, make_story, story_pictures


BASIC_TASKS = ("text_to_image", "image_to_text", "text_to_video", "video_to_text")
TASKS = (*BASIC_TASKS, "edit", "story", "continue_video")


def drawn_shapes(
    split: str = "train",
    num_samples: int = 1000,
    image_size: int = 32,
    num_frames: int = 4,
    tasks: dict[str, float] | None = None,
    seed: int = 0,
    short_captions: float = 0.0,
) -> Dataset:
    """
    A dataset of drawn shapes in the message schema of [`VilaUDataCollator`]. Nothing is stored: a record is drawn when
    it is read, and is the same for the same arguments and index.

    Args:
        split (`str`, *optional*, defaults to `"train"`): `"train"`, or `"test"` with combinations not in training.
        num_samples (`int`, *optional*, defaults to 1000): number of records.
        image_size (`int`, *optional*, defaults to 32): side of the pictures in pixels.
        num_frames (`int`, *optional*, defaults to 4): frames of a video.
        tasks (`dict[str, float]`, *optional*): share of `"text_to_image"`, `"image_to_text"`, `"text_to_video"`,
            `"video_to_text"`, by default equal; and of `"edit"`, `"story"` and `"continue_video"`, by default 0. Half
            of the questions ask for the caption, half for one attribute.
        seed (`int`, *optional*, defaults to 0): seed of choice and jitter.
        short_captions (`float`, *optional*, defaults to 0.0): share of text-to-image records whose caption names
            colour and shape alone.

    Returns:
        `datasets.Dataset` of records with `messages`, `images`, `videos`, `caption`, `task` and `drawing` (the
        attributes by name; of the last picture, where there are several).

    Raises:
        ValueError: for an unknown split or task, or a number that is too small.
    """
    tasks = dict.fromkeys(BASIC_TASKS, 1.0) if tasks is None else tasks
    check_split(split)
    for name, value, least in (
        ("num_samples", num_samples, 1),
        ("image_size", image_size, 8),
        ("num_frames", num_frames, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if not tasks or not set(tasks) <= set(TASKS) or min(tasks.values()) < 0 or sum(tasks.values()) <= 0:
        raise ValueError(f"`tasks` must give positive shares of {', '.join(TASKS)}, got {tasks}.")
    if not 0 <= short_captions <= 1:
        raise ValueError(f"`short_captions` must be a share between 0 and 1, got {short_captions}.")
    choice = random.Random(f"{split} {seed}")
    names = choice.choices(list(tasks), weights=list(tasks.values()), k=num_samples)
    pools = {"image": drawings(split), "video": motions(split)}
    kinds = ["video" if "video" in name else "image" for name in names]
    pictures = {"video": num_frames, "image": 1}
    columns = {
        "task": names,
        "item": [choice.randrange(len(pools[kind])) for kind in kinds],
        "question": [choice.randrange(10) for _ in range(num_samples)],
        # pictures, to group batches by
        "length": [2 if name in ("edit", "story") else pictures[k] for name, k in zip(names, kinds, strict=True)],
        "jitter": [choice.randrange(2**31) for _ in range(num_samples)],
        "short": [name == "text_to_image" and choice.random() < short_captions for name in names],
    }

    def read(batch):
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        records = [
            _changing_record(split, row, image_size)
            if row["task"] in ("edit", "story")
            else _record(pools, row, image_size, num_frames)
            for row in rows
        ]
        return {name: [record[name] for record in records] for name in records[0]}

    return Dataset.from_dict(columns).with_transform(read)


def _record(pools: dict[str, list], row: dict, image_size: int, num_frames: int) -> dict:
    """The record of one row of the dataset's columns."""
    generator = torch.Generator().manual_seed(row["jitter"])
    task, question, images, videos = row["task"], row["question"], [], []
    item = pools["video" if "video" in task else "image"][row["item"]]
    caption = item.short_caption if row["short"] else item.caption
    if isinstance(item, Motion):
        videos = [[to_pil(frame) for frame in animate([item], num_frames, image_size, generator)[0]]]
        media = {"type": "video"}
    else:
        images = [to_pil(draw([item], image_size, generator)[0])]
        media = {"type": "image"}
    if task == "continue_video":
        caption = "continue the video"
    if task in ("text_to_image", "text_to_video", "continue_video"):
        user, assistant = [{"type": "text", "text": caption}], [media]
    else:
        pairs = list(item.answers.items())
        asked, answer = pairs[question % len(pairs)] if question < 5 else (item.description_request, item.caption)
        user, assistant = [media, {"type": "text", "text": asked}], [{"type": "text", "text": answer}]
    return {
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
        "images": images,
        "videos": videos,
        "caption": caption,
        "task": task,
        "drawing": dict(vars(item)),  # a copy: the item is shared by all records
    }


def _changing_record(split: str, row: dict, image_size: int) -> dict:
    """A record of an edit or a story; the jitter's seed chooses what changes, too."""
    choice = random.Random(row["jitter"])
    if row["task"] == "edit":
        edit = make_edit(choice.choice(EDITS), split, choice)
        pictures, target, caption = edit_pictures(edit, image_size, row["jitter"]), edit.after, edit.instruction
        user, assistant = [{"type": "image"}, {"type": "text", "text": edit.instruction}], [{"type": "image"}]
    else:
        story = make_story(split, choice)
        pictures = story_pictures(story, image_size, row["jitter"])
        target, caption = story.drawings[-1], story.request
        user = [{"type": "text", "text": story.request}]
        assistant = [part for text in story.sentences for part in ({"type": "text", "text": text}, {"type": "image"})]
    return {
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
        "images": [to_pil(picture) for picture in pictures],
        "videos": [],
        "caption": caption,
        "task": row["task"],
        "drawing": dict(vars(target)),
    }


__all__ = ["BASIC_TASKS", "TASKS", "drawn_shapes"]

"""The dataset of drawn shapes: each record is drawn from a seed when it is read."""

import random

import torch
from datasets import Dataset

from ..evaluation.sheets import to_pil
from .shapes import Drawing, Motion, animate, check_split, draw, drawings, motions
from .stories import EDITS, edit_images, make_edit, make_story, story_images


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
    Creates a dataset of drawn shapes in the message schema of [`VilaUDataCollator`].

    No image is stored: a record is drawn when it is read. The same arguments and index give the same record.

    Args:
        split (`str`, *optional*, defaults to `"train"`): `"train"`, or `"test"` with combinations not in training.
        num_samples (`int`, *optional*, defaults to 1000): number of records.
        image_size (`int`, *optional*, defaults to 32): side of the images in pixels.
        num_frames (`int`, *optional*, defaults to 4): frames of a video.
        tasks (`dict[str, float]`, *optional*): relative frequency of each task. The tasks are `"text_to_image"`,
            `"image_to_text"`, `"text_to_video"`, `"video_to_text"`, `"edit"`, `"story"` and `"continue_video"`.
            By default the first four are equally frequent. Half of the questions ask for the caption, half for one
            attribute.
        seed (`int`, *optional*, defaults to 0): seed of the choices and of the jitter.
        short_captions (`float`, *optional*, defaults to 0.0): share of the text-to-image records whose caption names
            only colour and shape.

    Returns:
        `datasets.Dataset` of records with `messages`, `images`, `videos`, `caption`, `task` and `drawing`. `drawing`
        holds the attributes by name, those of the last image if there are several.

    Raises:
        ValueError: if a split or task is unknown, or a number is out of range.
    """
    tasks = dict.fromkeys(BASIC_TASKS, 1.0) if tasks is None else tasks
    _check_arguments(split, num_samples, image_size, num_frames, tasks, short_captions)
    # The order of the draws defines the dataset: every recorded score depends on it.
    choice = random.Random(f"{split} {seed}")
    names = choice.choices(list(tasks), weights=list(tasks.values()), k=num_samples)
    pools: dict[str, list] = {"image": drawings(split), "video": motions(split)}
    media = ["video" if "video" in name else "image" for name in names]
    columns = {
        "task": names,
        "item": [choice.randrange(len(pools[kind])) for kind in media],
        "question": [choice.randrange(10) for _ in range(num_samples)],
        # number of images and frames, by which a sampler can group batches
        "length": [_num_images(name, num_frames) for name in names],
        "jitter": [choice.randrange(2**31) for _ in range(num_samples)],
        "short": [name == "text_to_image" and choice.random() < short_captions for name in names],
    }

    def draw_records(batch: dict[str, list]) -> dict[str, list]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        records = [
            _changing_record(split, row, image_size)
            if row["task"] in ("edit", "story")
            else _record(pools, row, image_size, num_frames)
            for row in rows
        ]
        return {name: [record[name] for record in records] for name in records[0]}

    return Dataset.from_dict(columns).with_transform(draw_records)


def _check_arguments(
    split: str, num_samples: int, image_size: int, num_frames: int, tasks: dict[str, float], short_captions: float
) -> None:
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


def _num_images(task: str, num_frames: int) -> int:
    """Returns how many images and frames a record of the task has."""
    if task in ("edit", "story"):
        return 2
    return num_frames if "video" in task else 1


def _record(pools: dict[str, list], row: dict, image_size: int, num_frames: int) -> dict:
    """Draws the record of one row of the stored columns, for the tasks with one image or video."""
    generator = torch.Generator().manual_seed(row["jitter"])
    task = row["task"]
    item: Drawing | Motion = pools["video" if "video" in task else "image"][row["item"]]
    images = []
    videos = []
    if isinstance(item, Motion):
        caption = item.caption
        videos = [[to_pil(frame) for frame in animate([item], num_frames, image_size, generator)[0]]]
        medium = {"type": "video"}
    else:
        caption = item.short_caption if row["short"] else item.caption
        images = [to_pil(draw([item], image_size, generator)[0])]
        medium = {"type": "image"}
    if task == "continue_video":
        caption = "continue the video"
    if task in ("text_to_image", "text_to_video", "continue_video"):
        user = [{"type": "text", "text": caption}]
        assistant = [medium]
    else:
        question, answer = _question_and_answer(item, row["question"])
        user = [medium, {"type": "text", "text": question}]
        assistant = [{"type": "text", "text": answer}]
    return {
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
        "images": images,
        "videos": videos,
        "caption": caption,
        "task": task,
        "drawing": dict(vars(item)),  # a copy, because all records share the item
    }


def _question_and_answer(item: Drawing | Motion, number: int) -> tuple[str, str]:
    """Returns a question about one attribute for the numbers 0 to 4, and the request for the caption for 5 to 9."""
    if number >= 5:
        return item.description_request, item.caption
    pairs = list(item.answers.items())
    return pairs[number % len(pairs)]


def _changing_record(split: str, row: dict, image_size: int) -> dict:
    """Draws the record of an edit or a story. The seed of the jitter also chooses what changes."""
    choice = random.Random(row["jitter"])
    if row["task"] == "edit":
        edit = make_edit(choice.choice(EDITS), split, choice)
        images = edit_images(edit, image_size, row["jitter"])
        target = edit.after
        caption = edit.instruction
        user = [{"type": "image"}, {"type": "text", "text": edit.instruction}]
        assistant = [{"type": "image"}]
    else:
        story = make_story(split, choice)
        images = story_images(story, image_size, row["jitter"])
        target = story.drawings[-1]
        caption = story.request
        user = [{"type": "text", "text": story.request}]
        assistant = []
        for sentence in story.sentences:
            assistant += [{"type": "text", "text": sentence}, {"type": "image"}]
    return {
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
        "images": [to_pil(image) for image in images],
        "videos": [],
        "caption": caption,
        "task": row["task"],
        "drawing": dict(vars(target)),
    }


__all__ = ["BASIC_TASKS", "TASKS", "drawn_shapes"]

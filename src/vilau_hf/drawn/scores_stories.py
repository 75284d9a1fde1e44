"""Scores of edited images, continued videos and stories of held-out drawn shapes, as the drawing oracle reads them."""

import random
from typing import Any

import torch

from ..evaluation.model_outputs import chat_prompts
from ..evaluation.sheets import to_pil, to_uint8
from ..modeling import VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .oracle import Reading, read_drawing
from .scores import ATTRIBUTES, motion_hits
from .shapes import Drawing, animate, drawings, motions
from .stories import EDITS, Edit, edit_images, make_edit, read_event


def is_shown(reading: Reading, drawing: Drawing) -> bool:
    """Returns whether all five attributes of `reading` equal those of `drawing`."""
    return all(getattr(reading, name) == getattr(drawing, name) for name in ATTRIBUTES)


@torch.no_grad()
def generate_edits(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    edits: list[Edit],
    seed: int,
    batch_size: int = 50,
    **settings: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Draws the image before each edit, and generates the edited image with the model.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        edits (`list[Edit]` of length N): the edits.
        seed (`int`): seed of the images before the edits and of sampling.
        batch_size (`int`, *optional*, defaults to 50): edits in a batch.
        settings: arguments of `generate` that replace the saved generation settings of the model.

    Returns:
        The images before the edits and the generated images, both uint8 of shape `(N, 3, S, S)`.
    """
    side = model.config.vision_config.image_size
    befores = []
    afters = []
    for begin in range(0, len(edits), batch_size):
        batch = edits[begin : begin + batch_size]
        before = torch.stack([edit_images(edit, side, seed + begin + n)[0] for n, edit in enumerate(batch)])
        content = [[{"type": "image"}, {"type": "text", "text": edit.instruction}] for edit in batch]
        messages = [[{"role": "user", "content": each}] for each in content]
        inputs = chat_prompts(processor, messages, images=[to_pil(each) for each in before]).to(model.device)
        codes = model.generate(**inputs, generation_mode="image", seed=seed + begin, **settings)
        befores.append(before)
        afters.append(to_uint8(model.decode_image_tokens(codes)).cpu())
    return torch.cat(befores), torch.cat(afters)


def evaluate_edits(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    num_samples: int = 50,
    seed: int = 0,
    **settings: Any,
) -> dict[str, float]:
    """
    Scores edits whose results are held-out drawings.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        num_samples (`int`, *optional*, defaults to 50): edits of each kind.
        seed (`int`, *optional*, defaults to 0): seed of the edits and of sampling.
        settings: as for [`generate_edits`].

    Returns:
        `edit_recolor`, `edit_move` and `edit_add`, the share of generated images with all five attributes right.
    """
    scores = {}
    for kind in EDITS:
        choice = random.Random(seed)
        edits = [make_edit(kind, "test", choice) for _ in range(num_samples)]
        _, images = generate_edits(model, processor, edits, seed, **settings)
        right = [is_shown(reading, edit.after) for reading, edit in zip(read_drawing(images), edits, strict=True)]
        scores[f"edit_{kind}"] = sum(right) / len(right)
    return scores


@torch.no_grad()
def continue_videos(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    videos: torch.Tensor,
    num_given: int,
    seed: int,
    **settings: Any,
) -> torch.Tensor:
    """
    Lets the model continue videos from their first frames, without a caption.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        videos (`torch.Tensor` of shape `(N, F, 3, S, S)`): videos, uint8.
        num_given (`int`): number of first frames that the model sees.
        seed (`int`): seed of sampling.
        settings: arguments of `generate` that replace the saved generation settings of the model.

    Returns:
        `torch.Tensor` of shape `(N, F, 3, S, S)`, uint8.
    """
    messages = [[{"role": "user", "content": [{"type": "text", "text": "continue the video"}]}]] * len(videos)
    frames = [to_pil(frame) for video in videos[:, :num_given] for frame in video]
    pixels = processor.image_processor(frames, return_tensors="pt")["pixel_values"].to(model.device)
    codes = model.generate(
        **chat_prompts(processor, messages).to(model.device),
        generation_mode="video",
        num_frames=videos.shape[1],
        first_frames=pixels.unflatten(0, (len(videos), num_given)),
        seed=seed,
        **settings,
    )
    return to_uint8(model.decode_video_tokens(codes)).cpu()


def evaluate_continuations(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    num_samples: int = 50,
    seed: int = 0,
    **settings: Any,
) -> dict[str, float]:
    """
    Scores videos of held-out motions that the model continues from their first half.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        num_samples (`int`, *optional*, defaults to 50): number of videos.
        seed (`int`, *optional*, defaults to 0): seed of the videos and of sampling.
        settings: as for [`continue_videos`].

    Returns:
        `continued_direction`, `continued_color` and `continued_shape`, the shares of videos that keep the
        direction, the colour and the shape.
    """
    choice = random.Random(seed)
    targets = [choice.choice(motions("test")) for _ in range(num_samples)]
    side = model.config.vision_config.image_size
    # a setting of this package, which `GenerationConfig` stores but does not declare
    num_frames = model.generation_config.num_frames  # type: ignore[attr-defined]
    videos = animate(targets, num_frames, side, torch.Generator().manual_seed(seed))
    continued = continue_videos(model, processor, videos, num_frames // 2, seed, **settings)
    return {f"continued_{name}": sum(hits) / len(hits) for name, hits in motion_hits(continued, targets).items()}


@torch.no_grad()
def tell_stories(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    requests: list[str],
    seed: int | list[int],
    **settings: Any,
) -> list[list[dict]]:
    """
    Lets the model tell a story for each request.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        requests (`list[str]` of length N): requests such as "tell a story of a red cross".
        seed (`int` or `list[int]` of length N): seed of sampling; one for all, or one for each story.
        settings: arguments of `generate` that replace the saved generation settings of the model.

    Returns:
        N lists of content items of the message schema, in which texts and images alternate.
    """
    messages = [[{"role": "user", "content": [{"type": "text", "text": request}]}] for request in requests]
    # Two images and at most 240 tokens are more than a story of the dataset needs.
    output = model.generate(
        **chat_prompts(processor, messages).to(model.device),
        generation_mode="interleaved",
        do_sample=True,
        seed=seed,
        **{"max_visual_spans": 2, "max_new_tokens": 240, **settings},
    )
    model.decode_visual_spans(output.spans)
    return processor.post_process_multimodal_output(output, generation_mode="interleaved")


def read_story(items: list[dict], request: str) -> dict[str, bool]:
    """
    Checks a story against its request and its sentences.

    Args:
        items (`list[dict]`): content items of the story, as [`tell_stories`] returns them.
        request (`str`): the request for the story.

    Returns:
        Name of each check -> whether it holds: `form` (sentence, image, sentence, image), `request` (the story begins
        with the requested shape), `first` and `second` (the image shows what its sentence says).
    """
    checks = dict.fromkeys(("form", "request", "first", "second"), False)
    if [item["type"] for item in items] != ["text", "image", "text", "image"] or items[3]["image"] is None:
        return checks
    known = {drawing.caption: drawing for split in ("train", "test") for drawing in drawings(split)}
    first = known.get(items[0]["text"])
    second = None if first is None else read_event(first, items[2]["text"])
    if first is None or second is None:
        return checks
    pixels = torch.stack([torch.frombuffer(bytearray(items[n]["image"].tobytes()), dtype=torch.uint8) for n in (1, 3)])
    side = items[1]["image"].width
    readings = read_drawing(pixels.view(2, side, side, 3).permute(0, 3, 1, 2))
    return {
        "form": True,
        "request": request == f"tell a story of {first.short_caption}",
        "first": is_shown(readings[0], first),
        "second": is_shown(readings[1], second),
    }


def evaluate_stories(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    num_samples: int = 48,
    seed: int = 0,
    **settings: Any,
) -> dict[str, float]:
    """
    Scores stories of all pairs of colour and shape.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        num_samples (`int`, *optional*, defaults to 48): number of stories.
        seed (`int`, *optional*, defaults to 0): seed of sampling.
        settings: as for [`tell_stories`].

    Returns:
        `story_form`, `story_request`, `story_first` and `story_second`, the share of stories for which the check of
        [`read_story`] holds.
    """
    pairs = sorted({drawing.short_caption for drawing in drawings("train")})
    requests = [f"tell a story of {pairs[index % len(pairs)]}" for index in range(num_samples)]
    stories = tell_stories(model, processor, requests, seed, **settings)
    checks = [read_story(items, request) for items, request in zip(stories, requests, strict=True)]
    return {f"story_{name}": sum(check[name] for check in checks) / len(checks) for name in checks[0]}


__all__ = [
    "ATTRIBUTES",
    "continue_videos",
    "evaluate_continuations",
    "evaluate_edits",
    "evaluate_stories",
    "generate_edits",
    "is_shown",
    "read_story",
    "tell_stories",
]

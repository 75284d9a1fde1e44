"""Scores of edited pictures, continued videos and stories on held-out drawn shapes, judged by the drawing oracle."""

import random

import torch

from ..evaluation.sheets import to_pil, to_uint8
from .oracle import read_drawing, read_motion
from .scores import chat_prompts
from .shapes import Drawing, animate, drawings, motions
from .stories import EDITS, Edit, edit_pictures, make_edit, read_event


ATTRIBUTES = ("color", "shape", "size", "place", "background")


def is_shown(reading, drawing: Drawing) -> bool:
    """Whether the oracle read all five attributes of `drawing`."""
    return all(getattr(reading, name) == getattr(drawing, name) for name in ATTRIBUTES)


@torch.no_grad()
def draw_edits(model, processor, edits: list[Edit], seed: int, batch_size: int = 50, **settings):
    """Pictures before the edits and what the model makes of them, both uint8 `(N, 3, S, S)`."""
    side, befores, afters = model.config.vision_config.image_size, [], []
    for begin in range(0, len(edits), batch_size):
        part = edits[begin : begin + batch_size]
        before = torch.stack([edit_pictures(edit, side, seed + begin + n)[0] for n, edit in enumerate(part)])
        content = [[{"type": "image"}, {"type": "text", "text": edit.instruction}] for edit in part]
        messages = [[{"role": "user", "content": each}] for each in content]
        inputs = chat_prompts(processor, messages, images=[to_pil(each) for each in before]).to(model.device)
        codes = model.generate(**inputs, generation_mode="image", seed=seed + begin, **settings)
        befores.append(before)
        afters.append(to_uint8(model.decode_image_tokens(codes)).cpu())
    return torch.cat(befores), torch.cat(afters)


def evaluate_edits(model, processor, num_samples: int = 50, seed: int = 0, **settings) -> dict[str, float]:
    """Share of edits of each kind after which all five attributes are right, on held-out results."""
    scores = {}
    for kind in EDITS:
        choice = random.Random(seed)
        edits = [make_edit(kind, "test", choice) for _ in range(num_samples)]
        _, pictures = draw_edits(model, processor, edits, seed, **settings)
        right = [is_shown(r, edit.after) for r, edit in zip(read_drawing(pictures), edits, strict=True)]
        scores[f"edit_{kind}"] = sum(right) / len(right)
    return scores


@torch.no_grad()
def continue_videos(model, processor, videos: torch.Tensor, num_given: int, seed: int, **settings) -> torch.Tensor:
    """Videos uint8 `(N, F, 3, S, S)` that go on from the first `num_given` frames of `videos`, without a caption."""
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


def evaluate_continuations(model, processor, num_samples: int = 50, seed: int = 0, **settings) -> dict[str, float]:
    """Share of videos, continued from their first half, that keep direction, colour and shape; held-out motions."""
    choice = random.Random(seed)
    targets = [choice.choice(motions("test")) for _ in range(num_samples)]
    side, frames = model.config.vision_config.image_size, model.generation_config.num_frames
    videos = animate(targets, frames, side, torch.Generator().manual_seed(seed))
    readings = read_motion(continue_videos(model, processor, videos, frames // 2, seed, **settings))
    pairs = list(zip(readings, targets, strict=True))
    return {
        f"continued_{name}": sum(getattr(a, name) == getattr(b, name) for a, b in pairs) / len(pairs)
        for name in ("direction", "color", "shape")
    }


@torch.no_grad()
def tell_stories(model, processor, requests: list[str], seed: int, **settings) -> list[list[dict]]:
    """The parts of the story that the model tells for each request."""
    messages = [[{"role": "user", "content": [{"type": "text", "text": request}]}] for request in requests]
    output = model.generate(
        **chat_prompts(processor, messages).to(model.device),
        generation_mode="interleaved",
        do_sample=True,
        seed=seed,
        **{"max_visual_spans": 2, "max_new_tokens": 240, **settings},
    )
    model.decode_visual_spans(output.spans)
    return processor.post_process_multimodal_output(output, generation_mode="interleaved")


def read_story(parts: list[dict], request: str) -> dict[str, bool]:
    """
    Whether a story has its form (sentence, picture, sentence, picture), begins with what was asked for, and whether
    each picture shows what its sentence says.
    """
    verdict = dict.fromkeys(("form", "request", "first", "second"), False)
    if [part["type"] for part in parts] != ["text", "image", "text", "image"] or parts[3]["image"] is None:
        return verdict
    known = {drawing.caption: drawing for split in ("train", "test") for drawing in drawings(split)}
    first = known.get(parts[0]["text"])
    second = None if first is None else read_event(first, parts[2]["text"])
    if second is None:
        return verdict
    pixels = torch.stack([torch.frombuffer(bytearray(parts[n]["image"].tobytes()), dtype=torch.uint8) for n in (1, 3)])
    side = parts[1]["image"].width
    readings = read_drawing(pixels.view(2, side, side, 3).permute(0, 3, 1, 2))
    return {
        "form": True,
        "request": request == f"tell a story of {first.short_caption}",
        "first": is_shown(readings[0], first),
        "second": is_shown(readings[1], second),
    }


def evaluate_stories(model, processor, num_samples: int = 48, seed: int = 0, **settings) -> dict[str, float]:
    """Shares of stories with the right form, beginning, first and second picture."""
    pairs = sorted({drawing.short_caption for drawing in drawings("train")})
    requests = [f"tell a story of {pairs[index % len(pairs)]}" for index in range(num_samples)]
    stories = tell_stories(model, processor, requests, seed, **settings)
    verdicts = [read_story(parts, request) for parts, request in zip(stories, requests, strict=True)]
    return {f"story_{name}": sum(v[name] for v in verdicts) / len(verdicts) for name in verdicts[0]}


__all__ = [
    "ATTRIBUTES",
    "continue_videos",
    "draw_edits",
    "evaluate_continuations",
    "evaluate_edits",
    "evaluate_stories",
    "is_shown",
    "read_story",
    "tell_stories",
]

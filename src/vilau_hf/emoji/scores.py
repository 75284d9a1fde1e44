"""Scores of a model of emoji: what its tower keeps, what it answers, and what the judge says of its drawings."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedTokenizerBase

from ..evaluation.intervals import Score, mean, ratio, share
from ..evaluation.metrics import psnr
from ..evaluation.model_outputs import (
    answer_questions,
    generate_from_captions,
    generate_from_messages,
    user_message,
)
from ..evaluation.reconstruction import rebuild
from ..evaluation.sheets import to_pil
from ..evaluation.zero_shot import ZeroShotClassifier
from ..modeling import VilaUForConditionalGeneration, VilaUVisionTowerForPreTraining
from ..pipelines.candidate_ranking_vilau import TowerRanker
from ..processing import VilaUProcessor
from .dataset import Emoji, compose
from .judge import EmojiJudge
from .packages import STYLES
from .records import ANIMATED
from .tasks import Clip, EmojiTasks, restyle_instruction


# Background of all images that are scored. Captions do not name it.
BACKGROUND = "white"
# A clip moves as much as the true one if its motion energy is within this factor of the true clip's.
MOTION_FACTOR = 2.0


def drawing_prompt(one: Emoji) -> str:
    """Returns the prompt that asks for an image by its name and style."""
    return f"{one.concept.name}, {one.style} style"


def clip_prompt(clip: Clip) -> str:
    """Returns the prompt that asks for a clip by its name."""
    return f"{clip.concept.name}, {ANIMATED} style"


def draw(
    model: VilaUForConditionalGeneration, processor: VilaUProcessor, emoji: list[Emoji], seed: int, **settings: Any
) -> torch.Tensor:
    """
    Draws each emoji of a list by its name and style.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        emoji (`list[Emoji]` of length N): what to draw.
        seed (`int`): seed of sampling.
        settings: arguments of `generate` that replace the saved generation settings of the model.

    Returns:
        `torch.Tensor` of shape `(N, 3, S, S)`, uint8.
    """
    return generate_from_captions(model, processor, [drawing_prompt(one) for one in emoji], "image", seed, **settings)


def restyle(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    before: list[Emoji],
    styles: list[str],
    seed: int,
    **settings: Any,
) -> torch.Tensor:
    """
    Changes the style of images.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        before (`list[Emoji]` of length N): the images to change.
        styles (`list[str]` of length N): the wanted styles.
        seed (`int`): seed of sampling.
        settings: arguments of `generate` that replace the saved generation settings of the model.

    Returns:
        `torch.Tensor` of shape `(N, 3, S, S)`, uint8.
    """
    messages = [restyle_message(style) for style in styles]
    images = [[one.on(BACKGROUND)] for one in before]
    return generate_from_messages(model, processor, messages, "image", seed, images, **settings)


def restyle_message(style: str) -> list[dict]:
    """Returns the conversation that asks for an image in another style."""
    return user_message([{"type": "image"}, {"type": "text", "text": restyle_instruction(style)}])


def judged(
    judge: EmojiJudge, images: Sequence[Image.Image], names: Sequence[str], styles: Sequence[str]
) -> dict[str, list[bool]]:
    """
    Asks the judge what images show.

    Args:
        judge ([`EmojiJudge`]): the judge.
        images (`Sequence[PIL.Image.Image]` of length N): the images.
        names (`Sequence[str]` of length N): names of the concepts that they should show.
        styles (`Sequence[str]` of length N): styles that they should have.

    Returns:
        For each image, whether the judge names its concept first (`top_1`), among five (`top_5`), and its `style`.
    """
    judgement = judge.judge(list(images))
    best = [[judge.concepts[index] for index in row] for row in judgement.concepts.tolist()]
    return {
        "top_1": [name == row[0] for name, row in zip(names, best, strict=True)],
        "top_5": [name in row for name, row in zip(names, best, strict=True)],
        "style": [
            style == judge.styles[index] for style, index in zip(styles, judgement.styles.tolist(), strict=True)
        ],
    }


def compare_with_real(
    judge: EmojiJudge, drawn: torch.Tensor, real: list[Emoji], prefix: str, seed: int = 0
) -> dict[str, Score]:
    """
    Scores drawings, and the judge on the real images of the same pairs, which is the ceiling.

    Args:
        judge ([`EmojiJudge`]): the judge.
        drawn (`torch.Tensor` of shape `(N, 3, S, S)`): drawings, uint8.
        real (`list[Emoji]` of length N): what they should show.
        prefix (`str`): beginning of the names of the scores.
        seed (`int`, *optional*, defaults to 0): seed of the intervals.

    Returns:
        For top 1, top 5 and style: the share of the drawings (`prefix_top_1`), that of the real images
        (`prefix_top_1_real`), and their ratio (`prefix_top_1_ratio`).
    """
    hits = drawing_hits(judge, drawn, real)
    scores = {}
    for name in ("top_1", "top_5", "style"):
        scores[f"{prefix}_{name}"] = share(hits[name])
        scores[f"{prefix}_{name}_real"] = share(hits[f"{name}_real"])
        scores[f"{prefix}_{name}_ratio"] = ratio(hits[name], hits[f"{name}_real"], seed)
    return scores


def drawing_hits(judge: EmojiJudge, drawn: torch.Tensor, real: Sequence[Emoji]) -> dict[str, list[bool]]:
    """
    Asks the judge what drawings show, and what the real images of the same pairs show.

    Args:
        judge ([`EmojiJudge`]): the judge.
        drawn (`torch.Tensor` of shape `(N, 3, S, S)`): drawings, uint8.
        real (`Sequence[Emoji]` of length N): what they should show.

    Returns:
        The lists of [`judged`] for the drawings, and those for the real images with names that end with `_real`.
    """
    names = [one.concept.name for one in real]
    styles = [one.style for one in real]
    hits = judged(judge, [to_pil(image) for image in drawn], names, styles)
    ceiling = judged(judge, [one.on(BACKGROUND) for one in real], names, styles)
    return {**hits, **{f"{name}_real": values for name, values in ceiling.items()}}


@torch.no_grad()
def score_tower(
    tower: VilaUVisionTowerForPreTraining, processor: VilaUProcessor, emoji: list[Emoji], names: list[str]
) -> dict[str, Score]:
    """
    Scores reconstructions of images on white, and the choice among all names without training.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): the tower with its text encoder.
        processor ([`VilaUProcessor`]): its processor.
        emoji (`list[Emoji]`): the images.
        names (`list[str]`): names to choose from, as for [`emoji_classifier`].

    Returns:
        `reconstruction_psnr` in dB, the mean over images, and `zero_shot_top_1` and `zero_shot_top_5`.
    """
    classifier = emoji_classifier(tower, processor.tokenizer, processor.image_processor, names)
    values = []
    ranks = []
    for begin in range(0, len(emoji), 64):
        images = [one.on(BACKGROUND) for one in emoji[begin : begin + 64]]
        original, rebuilt = rebuild(tower.vision_tower, processor.image_processor, images)
        values += [psnr(a, b, data_range=255) for a, b in zip(rebuilt, original, strict=True)]
        ranks += classifier.classify(images, count=5)
    expected = [one.concept.name for one in emoji]
    return {
        "reconstruction_psnr": mean(values),
        "zero_shot_top_1": share([name == row[0] for name, row in zip(expected, ranks, strict=True)]),
        "zero_shot_top_5": share([name in row for name, row in zip(expected, ranks, strict=True)]),
    }


def emoji_classifier(
    tower: VilaUVisionTowerForPreTraining,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: BaseImageProcessor,
    names: Sequence[str],
) -> ZeroShotClassifier:
    """
    Makes a classifier of concepts. The name in each style stands for a concept.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): the tower with its text encoder.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the text encoder.
        image_processor (`BaseImageProcessor`): image processor of the tower.
        names (`Sequence[str]`): names to choose from.
    """
    return ZeroShotClassifier(tower, tokenizer, image_processor, names, [f"{{}}, {style} style" for style in STYLES])


def score_answers(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    emoji: list[Emoji],
    tasks: EmojiTasks,
    seed: int = 0,
) -> dict[str, Score]:
    """
    Scores answers to the questions about images on white.

    The yes/no question asks half of the images for their concept, and half for one that looks alike. So a model that
    always says yes gets one half, as in POPE (Li et al., 2023).

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        emoji (`list[Emoji]`): the images.
        tasks ([`EmojiTasks`]): the training tasks, whose questions are asked.
        seed (`int`, *optional*, defaults to 0): seed of the yes/no questions.

    Returns:
        `answer_name`, `answer_style`, `answer_group` and `answer_is_it`, shares of answers that are exactly right.
    """
    scores = {}
    for kind in ("name", "style", "group", "is_it"):
        choice = random.Random(seed)
        pairs = [tasks.question(one, BACKGROUND, kind, choice) for one in emoji]
        records = [
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
                    {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                ],
                "images": [one.on(BACKGROUND)],
            }
            for one, (question, answer) in zip(emoji, pairs, strict=True)
        ]
        replies = answer_questions(model, processor, records)
        scores[f"answer_{kind}"] = share([reply == answer for reply, (_, answer) in zip(replies, pairs, strict=True)])
    return scores


def motion_energy(frames: torch.Tensor) -> torch.Tensor:
    """
    Computes how much clips move: the mean squared difference of each pixel to the frame before.

    Args:
        frames (`torch.Tensor` of shape `(N, F, 3, S, S)`): clips, uint8.

    Returns:
        `torch.Tensor` of shape `(N,)`, float32, in squared levels of [0, 255].
    """
    return frames.float().diff(dim=1).square().flatten(1).mean(-1)


def clip_pixels(clip: Clip) -> torch.Tensor:
    """Returns the frames of a clip on white, `(F, 3, S, S)` in uint8."""
    return torch.from_numpy(compose(clip.rgba, BACKGROUND)).permute(0, 3, 1, 2)


def score_clips(judge: EmojiJudge, videos: torch.Tensor, clips: list[Clip]) -> dict[str, Score]:
    """
    Scores generated clips against the true clips of the same names.

    Args:
        judge ([`EmojiJudge`]): the judge. It names the concept of the first and of the last frame.
        videos (`torch.Tensor` of shape `(N, F, 3, S, S)`): generated clips, uint8.
        clips (`list[Clip]` of length N): the true clips.

    Returns:
        - `clip_named`: the judge names the concept in both frames,
        - `clip_moves`: the motion energy is within a factor of `MOTION_FACTOR` of the true clip's,
        - `clip_all`: both together,
        - `clip_named_real`: the judge names the concept in both frames of the true clip.
    """
    return {name: share(hits) for name, hits in clip_hits(judge, videos, clips).items()}


def clip_hits(judge: EmojiJudge, videos: torch.Tensor, clips: Sequence[Clip]) -> dict[str, list[bool]]:
    """Compares generated clips with the true ones; arguments and names as for [`score_clips`], a list for each."""
    true = torch.stack([clip_pixels(clip) for clip in clips])
    named = _first_and_last(judge, videos, clips)
    factors = motion_energy(videos) / motion_energy(true).clamp(min=1e-3)
    moves = [1 / MOTION_FACTOR <= factor <= MOTION_FACTOR for factor in factors.tolist()]
    return {
        "clip_named": named,
        "clip_moves": moves,
        "clip_all": [a and b for a, b in zip(named, moves, strict=True)],
        "clip_named_real": _first_and_last(judge, true, clips),
    }


def _first_and_last(judge: EmojiJudge, videos: torch.Tensor, clips: Sequence[Clip]) -> list[bool]:
    """Returns whether the judge names the concept in the first and in the last frame of each clip."""
    names = [clip.concept.name for clip in clips]
    hits = [
        judged(judge, [to_pil(video[frame]) for video in videos], names, ["3d"] * len(names))["top_1"]
        for frame in (0, -1)
    ]
    return [first and last for first, last in zip(*hits, strict=True)]


@torch.no_grad()
def score_best_of(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    tower: VilaUVisionTowerForPreTraining,
    judge: EmojiJudge,
    emoji: list[Emoji],
    seed: int,
    candidates: int = 4,
) -> dict[str, Score]:
    """
    Scores the best of several drawings, as the tower ranks them, against one drawing.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        tower ([`VilaUVisionTowerForPreTraining`]): the tower that ranks.
        judge ([`EmojiJudge`]): the judge.
        emoji (`list[Emoji]` of length N): what to draw.
        seed (`int`): seed of sampling.
        candidates (`int`, *optional*, defaults to 4): drawings of each emoji.

    Returns:
        `one_drawing_top_1`, the mean over all candidates, `best_of_4_top_1`, and their difference `best_of_4_gain`.
    """
    repeated = [one for one in emoji for _ in range(candidates)]
    drawings = draw(model, processor, repeated, seed)
    ranker = TowerRanker(tower, processor.tokenizer)
    prompts = [drawing_prompt(one) for one in repeated]
    unused = torch.LongTensor()  # this ranker reads pixels, not codes
    values = [
        ranker(prompts[row : row + 64], drawings[row : row + 64].float() / 127.5 - 1, unused)
        for row in range(0, len(prompts), 64)
    ]
    best = torch.cat(values).view(-1, candidates).argmax(-1).tolist()
    names = [one.concept.name for one in repeated]
    styles = [one.style for one in repeated]
    hits = judged(judge, [to_pil(image) for image in drawings], names, styles)["top_1"]
    rows = [hits[row : row + candidates] for row in range(0, len(hits), candidates)]
    chosen = [row[index] for row, index in zip(rows, best, strict=True)]
    single = [sum(row) / candidates for row in rows]
    return {
        "one_drawing_top_1": mean(single),
        f"best_of_{candidates}_top_1": share(chosen),
        f"best_of_{candidates}_gain": mean([a - b for a, b in zip(chosen, single, strict=True)]),
    }


__all__ = [
    "BACKGROUND",
    "MOTION_FACTOR",
    "clip_hits",
    "clip_pixels",
    "clip_prompt",
    "compare_with_real",
    "draw",
    "drawing_hits",
    "drawing_prompt",
    "emoji_classifier",
    "judged",
    "motion_energy",
    "restyle",
    "restyle_message",
    "score_answers",
    "score_best_of",
    "score_clips",
    "score_tower",
]

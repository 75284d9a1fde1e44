"""`VilaUPipeline`, and the tasks `text-to-image` and `text-to-video` of transformers' `pipeline`."""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from vilau_hf import VilaUTextToImagePipeline, VilaUTextToVideoPipeline

from .classification import Case, Given, Wrong
from .models import GRID, model, pipeline, processor
from .values import array, number, odd, tensor, text


SETTINGS = ("temperature", "top_k", "top_p", "min_p")
NAMES = ("images", "prompts", "image", "frames", "seed", "codes", *(f"visual_{name}" for name in SETTINGS))


def image_given(mode: str = "RGB") -> Given:
    """Returns an open image."""
    return Given(f"PIL({mode}, 9x7)", lambda folder: Image.new(mode, (9, 7)))


def options() -> st.SearchStrategy[dict[str, Any]]:
    """Draws a few arguments of `VilaUPipeline`."""
    images = st.sampled_from(
        [
            image_given(), [image_given()], [[image_given("L")]], array("uint8", (7, 9, 3), 0, 255),
            tensor("float32", (3, 7, 9), 0, 1), tensor("float32", (1, 3, 7, 9), -1, 1),
            array("float32", (1, 7, 9, 3), 0, 1), array("uint16", (7, 9), 0, 65535),
            array("float32", (7, 9, 3), 0, 300),
        ]
    )  # fmt: skip
    few = st.sampled_from([1, 2])
    named = {
        "image": images | odd(),
        "negative_prompt": text() | st.lists(text(), max_size=2) | odd(),
        "guidance_scale": number() | st.sampled_from([1.0, 2.0, [1.0], [2.0, 1.0]]) | odd(),
        "image_guidance_scale": number() | odd(),
        "num_frames": few | number() | odd(),
        "first_frames": images | st.builds(lambda: [image_given(), image_given()]) | odd(),
        "num_images_per_prompt": few | st.sampled_from([0, -1, 1.5, True]) | odd(),
        "num_candidates": few | st.sampled_from([0, -1, 1.5, True]) | odd(),
        "rank_by": st.sampled_from(["likelihood", "answer", "x", 3, None, lambda *arguments, **keywords: 3]) | odd(),
        "do_sample": st.sampled_from([True, False, None, "x", 1]),
        "generator": st.just(Given("Generator(3)", lambda folder: torch.Generator().manual_seed(3)))
        | st.just([Given("Generator(3)", lambda folder: torch.Generator().manual_seed(3))])
        | odd(),
        "output_type": st.sampled_from(["pil", "np", "pt", "codes", "latent", "x", 3, None]),
        "return_dict": st.sampled_from([True, False, "x", None]),
        "callback_on_step_end": odd() | st.just(lambda pipe, step, timestep, values: values),
        "callback_on_step_end_tensor_inputs": odd() | st.sampled_from([["codes"], ["latents"], ["x"], "codes"]),
        "temperature": number() | odd(),
        "top_k": number() | odd(),
        "top_p": number() | odd(),
        "min_p": number() | odd(),
        "nonsense": odd(),
    }  # fmt: skip
    return st.lists(st.sampled_from(sorted(named)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: named[name] for name in names})
    )


def _check_image(image: Any, side: int) -> None:
    pixels = np.asarray(image)
    if pixels.shape != (side, side, 3) or pixels.dtype != np.uint8:
        raise Wrong(f"an image of shape {pixels.shape} and {pixels.dtype}")


@st.composite
def diffusers_cases(draw: Any) -> Case:
    """Draws a call of `VilaUPipeline`."""
    prompt = draw(text() | st.lists(text(), min_size=1, max_size=2) | odd())
    given = draw(options())
    side = model().config.vision_config.output_image_size

    def check(result: Any) -> None:
        values = result[0] if isinstance(result, tuple) else next(iter(result.values()))
        count = (1 if isinstance(prompt, str) else len(prompt)) * given.get("num_images_per_prompt", 1)
        if values is None or given.get("callback_on_step_end") is not None:
            return
        if len(values) != count:
            raise Wrong(f"{len(values)} results, not {count}")
        kind = given.get("output_type", "pil")
        frames = given.get("num_frames")
        lead = (count,) if frames is None else (count, frames)
        if kind == "pil":
            for item in values:
                for image in [item] if frames is None else item:
                    _check_image(image, side)
        elif kind in ("np", "pt"):
            shape = (*lead, side, side, 3) if kind == "np" else (*lead, 3, side, side)
            pixels = np.asarray(values, np.float64)
            if pixels.shape != shape or not (pixels.min() >= 0 and pixels.max() <= 1):
                raise Wrong(f"pixels of shape {pixels.shape}, not {shape}, or outside of [0, 1]")
        elif tuple(values.shape[: len(lead) + 2]) != (*lead, GRID, GRID) or values.min() < 0:
            raise Wrong(f"codes of shape {tuple(values.shape)}")

    is_plain = isinstance(prompt, str) and bool(prompt.strip()) and not given
    return Case("VilaUPipeline", pipeline(), {"prompt": prompt, **given}, NAMES, True if is_plain else None, check)


@st.composite
def task_cases(draw: Any) -> Case:
    """Draws a call of a task of transformers."""
    is_video = draw(st.booleans())
    task = VilaUTextToVideoPipeline if is_video else VilaUTextToImagePipeline
    pipe = task(model=model(), processor=processor(), device=-1)
    chat = [{"role": "user", "content": draw(text())}]
    prompt = draw(text() | st.lists(text(), min_size=1, max_size=2) | st.just(chat) | odd())
    named = {
        "negative_prompt": text() | odd(),
        "num_images_per_prompt": st.sampled_from([1, 2, 0, -1, True]) | odd(),
        "seed": number() | odd(),
        "generator": odd(),
        "guidance_scale": number() | odd(),
        "num_frames": st.sampled_from([1, 2, 0, -1]) | odd(),
        "batch_size": st.sampled_from([1, 2, 0, -1]) | odd(),
        "visual_top_k": number() | odd(),
        "nonsense": odd(),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(named)), max_size=2, unique=True))
    given = {name: draw(named[name]) for name in chosen}
    if is_video:
        given.setdefault("num_frames", 2)
    key = "generated_video" if is_video else "generated_image"

    def check(result: Any) -> None:
        rows = result if isinstance(result[0], list) else [result]
        if isinstance(prompt, list) and prompt is not chat and len(rows) != len(prompt):
            raise Wrong(f"{len(rows)} results for {len(prompt)} prompts")
        for row in rows:
            if len(row) != given.get("num_images_per_prompt", 1) or any(key not in item for item in row):
                raise Wrong(f"a prompt has {len(row)} results")

    return Case("pipeline", pipe, {"prompt": prompt, **given}, NAMES, None, check)


def cases() -> st.SearchStrategy[Case]:
    """Draws a call of a pipeline."""
    return st.one_of(diffusers_cases(), diffusers_cases(), task_cases())

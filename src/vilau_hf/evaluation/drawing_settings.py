"""Settings of a run that draws prompts: all that its images depend on, with the values that a checkpoint saves."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..environment import describe_environment
from ..modeling.argument_checks_vilau import PositiveInt, check_value
from ..modeling.generation_checks_vilau import check_context
from ..modeling.generation_settings_vilau import VisualArguments, VisualGenerationSettings
from ..pipelines import VilaUPipeline
from ..pipelines.prompt_encoding_vilau import encode_prompts
from .benchmark_layouts import Layout
from .prompt_files import Prompt, check_text


PACKAGES = ("torch", "transformers", "diffusers")
# Arguments of the pipeline that `generate` has under the same name. There, all others have the prefix `visual_`.
_SHARED = ("do_sample", "visual_decoding", "parallel_window")


@dataclass(frozen=True)
class DrawingOptions:
    """
    What a run draws for each prompt.

    Image n of the prompt with index i has the seed `seed + i * num_images + n`. So it does not depend on the other
    images of its batch, on the number of processes, and on interruptions.

    Args:
        seed (`int`, *optional*, defaults to 0): seed of the first image.
        num_images (`int`, *optional*): images or videos of each prompt. By default the number of the layout.
        is_video (`bool`, *optional*, defaults to `False`): whether videos are drawn.
        num_frames (`int`, *optional*): frames of a video. By default as the checkpoint saves.
        negative_prompt (`str`, *optional*): prompt of the unconditional branch of guidance. By default that of the
            checkpoint.
        num_candidates (`int`, *optional*, defaults to 1): images that are drawn for each image of the result, which is
            the best of them.
        rank_by (`str` or `Callable`, *optional*, defaults to `"likelihood"`): how candidates are ranked, see
            [`VilaUPipeline`].
        sampling (`Mapping[str, Any]`, *optional*): further arguments of [`VilaUPipeline`], for example
            `guidance_scale`, `temperature`, `top_k`, `top_p` and `visual_decoding`.
    """

    seed: int = 0
    num_images: int | None = None
    is_video: bool = False
    num_frames: int | None = None
    negative_prompt: str | None = None
    num_candidates: int = 1
    rank_by: Any = "likelihood"
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def generation_settings(self, pipe: VilaUPipeline) -> VisualGenerationSettings:
        """
        Returns the settings of generation, each as it is given here or as the checkpoint saves it.

        Args:
            pipe ([`VilaUPipeline`]): the pipeline that draws.

        Raises:
            ValueError: if a setting is unknown or out of range.
        """
        check_value("num_candidates", self.num_candidates, PositiveInt)
        if self.is_video and self.num_candidates > 1:
            raise ValueError(f"`num_candidates` must be 1 for videos, got {self.num_candidates}.")
        if not self.is_video and self.num_frames is not None:
            raise ValueError(f"`num_frames` is for videos, got {self.num_frames} for images.")
        if self.negative_prompt is not None:
            check_text(self.negative_prompt, "`negative_prompt`")
        given = {name: value for name, value in self.sampling.items() if value is not None}
        guidance_scale = given.pop("guidance_scale", None)
        unknown = sorted(given.keys() - set(pipe.model.sampling_settings) - set(_SHARED))
        if unknown:
            raise ValueError(f"`sampling` has the unknown setting {unknown[0]!r}.")
        do_sample = given.pop("do_sample", None)
        by_name = {name if name in _SHARED else f"visual_{name}": value for name, value in given.items()}
        return VisualGenerationSettings.collect(
            "video" if self.is_video else "image",
            VisualArguments(guidance_scale=guidance_scale, num_frames=self.num_frames, by_name=by_name),
            {"do_sample": do_sample},
            None,
            pipe.model.generation_config,
        )

    def pipeline_arguments(self, pipe: VilaUPipeline) -> dict[str, Any]:
        """
        Returns the arguments of the pipeline that are the same for all prompts.

        Args:
            pipe ([`VilaUPipeline`]): the pipeline that draws.
        """
        settings = self.generation_settings(pipe)
        return {
            **{name: value for name, value in self.sampling.items() if value is not None},
            "num_frames": settings.num_frames if self.is_video else None,
            "negative_prompt": self.negative_prompt,
            "num_candidates": self.num_candidates,
            "rank_by": self.rank_by,
        }


def describe_drawing(
    pipe: VilaUPipeline,
    prompts: Sequence[Prompt],
    layout: Layout,
    options: DrawingOptions,
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """
    Describes everything that the files of a run depend on.

    Args:
        pipe ([`VilaUPipeline`]): the pipeline that draws.
        prompts (`Sequence[Prompt]`): the prompts that the layout selected.
        layout ([`Layout`]): the layout.
        options ([`DrawingOptions`]): the options.
        model (`Mapping[str, Any]`): name and identity of the model, from `describe_checkpoint`.

    Returns:
        A dictionary that JSON can hold.
    """
    settings = options.generation_settings(pipe)
    num_images = options.num_images or layout.num_samples
    content = json.dumps([[prompt.text, dict(prompt.fields)] for prompt in prompts], sort_keys=True)
    description: dict[str, Any] = {
        "layout": layout.name,
        "mode": settings.mode,
        "prompts": {"number": len(prompts), "sha256": hashlib.sha256(content.encode()).hexdigest()},
        "num_images": num_images,
        "seed": options.seed,
        "seeds": f"image n of prompt i, both counted from 0: {options.seed} + i * {num_images} + n",
        "guidance_scale": settings.guidance.scale.tolist(),
        "negative_prompt": options.negative_prompt,
        "unconditional_prompt_ids": settings.unconditional_prompt_ids,
        **asdict(settings.sampling),
        "num_frames": settings.num_frames,
        "visual_decoding": settings.visual_decoding,
        "parallel_window": settings.parallel_window,
        "num_candidates": options.num_candidates,
        "rank_by": options.rank_by if isinstance(options.rank_by, str) else type(options.rank_by).__name__,
    }
    if options.num_candidates == 1:
        description["rank_by"] = None
    elif options.rank_by == "answer":
        saved = pipe.model.generation_config.to_dict()
        description["ranking"] = {name: saved.get(name) for name in ("ranking_question", "ranking_answer")}
    environment = describe_environment()
    versions = {name: environment["packages"][name] for name in PACKAGES}
    description |= {
        "model": {**model, "dtype": str(pipe.model.dtype).removeprefix("torch.")},
        "device": pipe.model.device.type,  # its type has its random numbers
        "versions": {"vilau_hf": environment["vilau_hf"], **versions},
    }
    return json.loads(json.dumps(description))  # as it is read back: tuples are lists


def check_prompt_lengths(pipe: VilaUPipeline, prompts: Sequence[Prompt], options: DrawingOptions) -> None:
    """
    Checks that the language model has enough positions for all prompts and their images.

    Args:
        pipe ([`VilaUPipeline`]): the pipeline that draws.
        prompts (`Sequence[Prompt]`): the prompts.
        options ([`DrawingOptions`]): the options.

    Raises:
        ValueError: for a prompt that is too long. The message has its file and line.
    """
    config = pipe.model.config
    num_positions = config.vision_config.num_visual_tokens * options.generation_settings(pipe).num_frames
    num_markers = len(config.start_marker_prefix_ids) + 1
    texts = [(prompt.source, prompt.text) for prompt in prompts]
    if options.negative_prompt is not None:
        texts.append(("`negative_prompt`", options.negative_prompt))
    for source, text in texts:
        length = encode_prompts(pipe.processor, [text])["input_ids"].shape[1] + num_markers
        try:
            check_context(config.text_config.max_position_embeddings, length, num_positions)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


__all__ = ["DrawingOptions", "check_prompt_lengths", "describe_drawing"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Text to image and text to video with VILA-U, used like any pipeline of diffusers."""

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils import BaseOutput
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin, StoppingCriteriaList

from .candidate_ranking_vilau import AnswerRanker, LikelihoodRanker
from .prompt_encoding_vilau import encode_prompts, render_prompt


OUTPUT_TYPES = ("pil", "np", "pt", "codes", "latent")  # the last two are the same: codes, by diffusers' word


@dataclass
class VilaUVideoPipelineOutput(BaseOutput):
    r"""
    frames (`list[list[PIL.Image.Image]]`, `np.ndarray` of shape `(V, F, H, W, 3)` or `torch.Tensor`): V videos; a
        tensor is `(V, F, 3, H, W)`, or `(V, F, h, w, D)` if codes were asked for. Arrays and pixels are in [0, 1].
        `None` if a callback interrupted the call.
    """

    frames: list[list[Image.Image]] | np.ndarray | torch.Tensor


class _StepReporter:
    """Stands where `generate` puts the codes of each visual position, and tells progress bar and callback."""

    def __init__(self, pipeline, progress, callback, tensor_inputs):
        self.pipeline, self.progress = pipeline, progress
        self.callback, self.tensor_inputs = callback, tensor_inputs
        self.position = 0
        self.codes = None  # (rows, n, D), those so far, kept for a callback
        self.is_changed = False

    def put(self, value):
        """Text: nothing to report."""

    def put_visual(self, codes: torch.LongTensor) -> torch.LongTensor | None:
        """Takes the codes `(rows, D)` of the next position; gives those that a callback wants in their place."""
        position, self.position = self.position, self.position + 1
        self.progress.update()
        if self.callback is None:
            return None
        self.codes = codes[:, None] if self.codes is None else torch.cat([self.codes, codes[:, None]], 1)
        given = self.codes
        values = self.callback(self.pipeline, position, position, dict.fromkeys(self.tensor_inputs, given)) or {}
        for value in values.values():
            if value is not given:
                self.codes, self.is_changed = value.to(given), True
        return self.codes[:, -1]

    def end(self):
        """All positions were reported."""


class VilaUPipeline(DiffusionPipeline):
    r"""
    Draws images, or videos if `num_frames` is given, for text prompts.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.

    Example:

    ```python
    >>> from vilau_hf import TINY_CHECKPOINT, VilaUPipeline

    >>> pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    >>> image = pipe("a small red cross at the bottom on a white background").images[0]
    >>> frames = pipe("a large blue circle moving left on a gray background", num_frames=4).frames[0]
    ```
    """

    model_cpu_offload_seq = "model"
    _callback_tensor_inputs = ["codes", "latents"]  # the same, the latter by diffusers' word

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        super().__init__()
        self.register_modules(model=model, processor=processor)
        self._guidance_scale, self._num_timesteps, self._interrupt = None, 0, False

    @property
    def guidance_scale(self) -> float | None:
        """Guidance of the last call."""
        return self._guidance_scale

    @property
    def interrupt(self) -> bool:
        """Whether the running call is to stop; a callback sets `_interrupt`."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Visual positions of the last call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Image.Image | list | None = None,
        negative_prompt: str | list[str] | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        num_frames: int | None = None,
        first_frames: list | None = None,
        num_images_per_prompt: int = 1,
        num_candidates: int = 1,
        rank_by: str | Callable = "likelihood",
        do_sample: bool | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("codes",),
        **sampling_settings: float | Sequence[float] | None,
    ) -> ImagePipelineOutput | VilaUVideoPipelineOutput | tuple:
        """
        Args:
            prompt (`str` or `list[str]`): what to draw.
            image (`PIL.Image.Image`, or a list with one, or a list of some, for each prompt, *optional*): images that
                stand before the prompt, for a model that was trained to edit them.
            negative_prompt (`str` or `list[str]`, *optional*): in place of the unconditional prompt.
            guidance_scale (`float`, *optional*): strength of classifier-free guidance, at least 1, which turns it off;
                by default as in the checkpoint's generation config, like `do_sample` and `sampling_settings`.
            image_guidance_scale (`float`, *optional*): strength of guidance against `image` alone, for editing.
            num_frames (`int`, *optional*): frames of a video; without it an image is drawn.
            first_frames (`list[PIL.Image.Image]` or a list of such lists, one for each prompt, *optional*): what a
                video begins with.
            num_images_per_prompt (`int`, *optional*, defaults to 1): images or videos for each prompt.
            num_candidates (`int`, *optional*, defaults to 1): so many images are drawn for each that is returned, the
                best of them.
            rank_by (`str` or `Callable`, *optional*, defaults to `"likelihood"`): what is best: `"likelihood"`,
                `"answer"` (whether the model itself says that a picture shows the prompt, see [`AnswerRanker`]), or a
                function of N prompts, pixels `(N, 3, S, S)` in [-1, 1] and codes `(N, h, w, D)` that gives scores
                `(N,)`, such as a [`TowerRanker`]. Where `image` is given it has to take `images` too, a list of those
                before each prompt; of the package's own rankers only `"likelihood"` does.
            generator (`torch.Generator` or a list with one for each image that is returned, *optional*): source of the
                samples. With a list an image does not hang on the others of its batch, as with `seed` in `generate`.
                The candidates for an image are drawn with its generator.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"`, `"pt"` or `"codes"` (or `"latent"`,
                which is the same).
            return_dict (`bool`, *optional*, defaults to `True`): return an output class, or else a tuple.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep, kwargs)` after
                each visual position; both numbers are the position. Codes that it returns take the place of those it
                was given: the model goes on from those of the last position, while changes to earlier ones, which it
                has read, show in the result alone. If it sets `pipeline._interrupt = True`, the call ends and its
                result is `None`.
            callback_on_step_end_tensor_inputs (`Sequence[str]`, *optional*): what `kwargs` holds: `"codes"` (or
                `"latents"`), the n codes so far, `(rows, n, D)`.
            **sampling_settings: settings of `generate` for sampling codes, without their prefix `visual_`; for
                example `temperature`, `top_k` and `top_p`.

        Returns:
            [`ImagePipelineOutput`] with `images`, or [`VilaUVideoPipelineOutput`] with `frames`: lists of PIL images,
            arrays `(N, H, W, 3)` and tensors `(N, 3, H, W)` in [0, 1], or codes `(N, h, w, D)`; with
            `return_dict=False` a tuple with that.

        Raises:
            ValueError: for arguments of the wrong type, number or range.
            TypeError: for unknown arguments.
        """
        unknown = sorted(sampling_settings.keys() - set(self.model.sampling_settings))
        if unknown:
            raise TypeError(f"unexpected keyword argument `{unknown[0]}`.")
        prompts = [prompt] if isinstance(prompt, str) else prompt
        self._check(prompts, negative_prompt, num_images_per_prompt, output_type)
        self._check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        ranker = self._ranker(num_candidates, rank_by, num_frames, image)
        generator = self._generators(generator, len(prompts) * num_images_per_prompt, num_candidates)
        mode = "image" if num_frames is None else "video"
        device = self._execution_device
        self._bring_model()
        image_rows = None if image is None else self._image_rows(prompts, image)
        inputs = encode_prompts(self.processor, prompts, image_rows).to(device)
        settings = {
            "guidance_scale": guidance_scale,
            "image_guidance_scale": image_guidance_scale,
            "num_frames": num_frames,
            "do_sample": do_sample,
            **{f"visual_{name}": value for name, value in sampling_settings.items()},
        }
        saved = self.model.generation_config.to_dict().get("unconditional_prompt_ids")
        if negative_prompt is not None or saved is None:
            negative = negative_prompt or ""
            settings.update(self._encode_negative([negative] if isinstance(negative, str) else negative, device))
        self._interrupt = False
        if image_guidance_scale is not None:
            settings.update(self._encode_images_alone(image_rows, device))
        if first_frames is not None:
            settings["first_frames"] = self._encode_frames(first_frames).to(device)
        if callback_on_step_end is not None:
            settings["stopping_criteria"] = StoppingCriteriaList([self._stop_if_interrupted])
        self._guidance_scale = guidance_scale
        given_frames = settings["first_frames"].shape[1] if first_frames is not None else 0
        self._num_timesteps = self.model.config.vision_config.num_visual_tokens * ((num_frames or 1) - given_frames)
        with self.progress_bar(total=self._num_timesteps) as progress:
            reporter = _StepReporter(self, progress, callback_on_step_end, callback_on_step_end_tensor_inputs)
            codes = self.model.generate(
                **inputs,
                generation_mode=mode,
                generator=generator,
                num_return_sequences=num_images_per_prompt * num_candidates,
                streamer=reporter,
                **{name: value for name, value in settings.items() if value is not None},
            )
        if reporter.is_changed and not self._interrupt:
            given = codes.flatten(1, -2)[:, : -self._num_timesteps]  # frames that were not drawn
            codes = torch.cat([given, reporter.codes], 1).view_as(codes)
        if num_candidates > 1 and not self._interrupt:
            codes = self._best(ranker, prompts, image_rows, codes, num_candidates)
        if self._interrupt:
            result = None
        else:
            result = codes if output_type in ("codes", "latent") else self._decode(codes, mode, output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (result,)
        return ImagePipelineOutput(images=result) if mode == "image" else VilaUVideoPipelineOutput(frames=result)

    def save_pretrained(self, save_directory: str | os.PathLike, flat: bool = False, **kwargs):
        """
        Saves the pipeline.

        Args:
            save_directory (`str` or `os.PathLike`): folder.
            flat (`bool`, *optional*, defaults to `False`): model and processor at the top of the folder, so that
                transformers' `from_pretrained` loads them from there too; otherwise in folders of their own.
            kwargs: as for any pipeline of diffusers; with `flat` as for the model's `save_pretrained`.
        """
        if flat and kwargs.get("variant") is not None:
            raise ValueError("`variant` needs `flat=False`: diffusers looks for variants in folders of the parts.")
        if not flat:
            super().save_pretrained(save_directory, **kwargs)
            return
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)
        self.save_config(save_directory)

    def _check(self, prompts, negative_prompt, num_images_per_prompt, output_type):
        for name, value in (("prompt", prompts), ("negative_prompt", negative_prompt)):
            values = [] if value is None else [value] if isinstance(value, str) else value
            if not isinstance(values, (list, tuple)) or not all(isinstance(text, str) for text in values):
                raise ValueError(f"`{name}` must be a string or a list of strings, got {type(value).__name__}.")
        if not prompts:
            raise ValueError("`prompt` must be a string or a list with at least one string.")
        if isinstance(negative_prompt, (list, tuple)) and len(negative_prompt) not in (1, len(prompts)):
            raise ValueError(
                f"`negative_prompt` must be one string or one for each of the {len(prompts)} prompts, got "
                f"{len(negative_prompt)}."
            )
        if not isinstance(num_images_per_prompt, int) or num_images_per_prompt < 1:
            raise ValueError(
                f"`num_images_per_prompt` must be an integer of at least 1, got {num_images_per_prompt!r}."
            )
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}.")

    @staticmethod
    def _generators(generator, rows: int, num_candidates: int):
        """The one for all, or that of each of the `rows` images for each of its candidates."""
        if not isinstance(generator, list):
            return generator
        if len(generator) != rows:
            raise ValueError(
                f"`generator` has {len(generator)} entries for {rows} rows: give one, or one for each image."
            )
        return [each for each in generator for _ in range(num_candidates)]

    def _check_callback(self, callback, tensor_inputs):
        if callback is not None and not callable(callback):
            raise ValueError(f"`callback_on_step_end` must be callable, got {type(callback).__name__}.")
        is_list = isinstance(tensor_inputs, (list, tuple))
        unknown = set(tensor_inputs) - set(self._callback_tensor_inputs) if is_list else {repr(tensor_inputs)}
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` must be among {self._callback_tensor_inputs}, got "
                f"{sorted(unknown)}."
            )

    def _ranker(self, num_candidates: int, rank_by, num_frames: int | None, image) -> Callable:
        """What scores candidates."""
        if not isinstance(num_candidates, int) or num_candidates < 1:
            raise ValueError(f"`num_candidates` must be an integer of at least 1, got {num_candidates!r}.")
        if num_candidates > 1 and num_frames is not None:
            raise ValueError("`num_candidates` above 1 is for images; leave out `num_frames`.")
        rankers = {"likelihood": LikelihoodRanker, "answer": AnswerRanker}
        if callable(rank_by):
            ranker = rank_by
        elif rank_by in rankers:
            ranker = rankers[rank_by](self.model, self.processor)
        else:
            raise ValueError(f"`rank_by` must be 'likelihood', 'answer' or a function, got {rank_by!r}.")
        if num_candidates > 1 and image is not None and "images" not in inspect.signature(ranker).parameters:
            name = getattr(ranker, "__name__", type(ranker).__name__)
            raise ValueError(
                f"`rank_by`: {name} does not take `images`, those before the prompts, but `image` is given with "
                "`num_candidates` above 1: rank by 'likelihood' or a function of prompts, pixels, codes and images."
            )
        return ranker

    def _best(self, ranker: Callable, prompts: list[str], image_rows, codes: torch.LongTensor, num_candidates: int):
        """Of `codes` `(rows, h, w, D)` the best of each `num_candidates` that follow each other."""
        times = len(codes) // len(prompts)
        drawn_for = [text for text in prompts for _ in range(times)]
        before = {} if image_rows is None else {"images": [row for row in image_rows for _ in range(times)]}
        scores = ranker(drawn_for, self.model.decode_image_tokens(codes), codes, **before).view(-1, num_candidates)
        best = scores.argmax(-1).to(codes.device)
        return codes.unflatten(0, scores.shape)[torch.arange(len(best), device=codes.device), best]

    def _stop_if_interrupted(self, input_ids: torch.LongTensor, scores, **kwargs) -> torch.BoolTensor:
        return torch.full((len(input_ids),), self._interrupt, device=input_ids.device)

    def _bring_model(self):
        """Offloading moves a model when its forward is called; `generate` calls that of its parts."""
        hook = getattr(self.model, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self.model)

    @staticmethod
    def _image_rows(prompts: list[str], image) -> list[list]:
        """The images of each prompt."""
        images = image if isinstance(image, (list, tuple)) else [image]
        if len(images) != len(prompts):
            raise ValueError(f"`image` must hold images for each of the {len(prompts)} prompts, got {len(images)}.")
        return [list(row) if isinstance(row, (list, tuple)) else [row] for row in images]

    def _encode_images_alone(self, image_rows: list[list] | None, device: torch.device) -> dict[str, torch.Tensor]:
        """The prompts without their text."""
        if image_rows is None:
            raise ValueError("`image_guidance_scale` needs `image`, got None.")
        texts = [render_prompt(self.processor, [{"type": "image"} for _ in row]) for row in image_rows]
        encoded = self.processor(text=texts, images=image_rows, return_tensors="pt").to(device)
        return {"image_prompt_ids": encoded["input_ids"], "image_prompt_attention_mask": encoded["attention_mask"]}

    def _encode_frames(self, frames: list) -> torch.Tensor:
        """Pixels `(rows, f, 3, S, S)`."""
        if not isinstance(frames, (list, tuple)):
            raise ValueError(
                f"`first_frames` must be a list of images, or a list of such lists, got {type(frames).__name__}."
            )
        rows = frames if frames and isinstance(frames[0], (list, tuple)) else [frames]
        if not all(rows):
            raise ValueError(f"`first_frames` must hold at least one image for each prompt, got {frames}.")
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise ValueError(f"`first_frames` must be as many for each prompt, got {lengths}.")
        flat = [frame for row in rows for frame in row]
        pixels = self.processor.image_processor(flat, return_tensors="pt")["pixel_values"]
        return pixels.unflatten(0, (len(rows), -1))

    def _encode_negative(self, texts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
        encoded = encode_prompts(self.processor, texts).to(device)
        return {
            "negative_prompt_ids": encoded["input_ids"],
            "negative_prompt_attention_mask": encoded["attention_mask"],
        }

    def _decode(self, codes: torch.LongTensor, mode: str, output_type: str):
        postprocess = self.processor.image_processor.postprocess
        if mode == "image":
            return postprocess(self.model.decode_image_tokens(codes), output_type)
        videos = [postprocess(video, output_type) for video in self.model.decode_video_tokens(codes)]
        if output_type == "pil":
            return videos
        return torch.stack(videos) if output_type == "pt" else np.stack(videos)


__all__ = ["VilaUPipeline", "VilaUVideoPipelineOutput"]

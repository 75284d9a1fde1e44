# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Pipeline of diffusers for text to image and text to video with VILA-U."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin, StoppingCriteriaList

from .candidate_ranking_vilau import check_ranks_edits, check_scores, get_ranker
from .lora_loading_vilau import VilaULoraLoading
from .pipeline_outputs_vilau import VilaUImagePipelineOutput, VilaUVideoPipelineOutput
from .prompt_encoding_vilau import encode_prompts, render_prompt
from .step_reporter_vilau import StepReporter


# "latent" is the name that pipelines of diffusers use for codes.
OUTPUT_TYPES = ("pil", "np", "pt", "codes", "latent")


class VilaUPipeline(VilaULoraLoading, DiffusionPipeline):
    r"""
    Pipeline of diffusers that generates images for text prompts, or videos if `num_frames` is given.

    Args:
        model ([`VilaUForConditionalGeneration`] or `peft.PeftModel`): the model, with or without adapters.
        processor ([`VilaUProcessor`]): the processor of the model.

    Example:
    ```python
    >>> from vilau_hf import TINY_CHECKPOINT, VilaUPipeline

    >>> pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    >>> image = pipe("a small red cross at the bottom on a white background").images[0]
    >>> frames = pipe("a large blue circle moving left on a gray background", num_frames=4).frames[0]
    ```
    """

    model_cpu_offload_seq = "model"
    _callback_tensor_inputs = ["codes", "latents"]  # two names of the same tensor; diffusers says "latents"

    # `VilaUForConditionalGeneration` and `VilaUProcessor`, whose classes this island cannot import
    model: Any
    processor: Any
    # Members of the base class that are used here. For type checkers, diffusers exports a placeholder instead of it.
    register_modules: Callable[..., None]
    progress_bar: Callable[..., Any]
    save_config: Callable[..., None]
    maybe_free_model_hooks: Callable[[], None]
    _execution_device: torch.device

    # diffusers checks loaded components by the types of these arguments.
    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__()
        self.register_modules(model=model, processor=processor)
        self._guidance_scale: float | list | tuple | torch.Tensor | None = None
        self._num_timesteps = 0
        self._interrupt = False

    @property
    def guidance_scale(self) -> float | list | tuple | torch.Tensor | None:
        """Returns the argument `guidance_scale` of the last call."""
        return self._guidance_scale

    @property
    def interrupt(self) -> bool:
        """Returns whether the current call will stop, since a callback set `_interrupt`."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Returns the number of visual positions of the last call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | tuple[str, ...],
        image: Image.Image | np.ndarray | torch.Tensor | list | tuple | None = None,
        negative_prompt: str | list[str] | tuple[str, ...] | None = None,
        guidance_scale: float | list | tuple | torch.Tensor | None = None,
        image_guidance_scale: float | None = None,
        num_frames: int | None = None,
        first_frames: list | tuple | np.ndarray | torch.Tensor | None = None,
        num_images_per_prompt: int = 1,
        num_candidates: int = 1,
        rank_by: str | Callable = "likelihood",
        do_sample: bool | None = None,
        visual_decoding: str | None = None,
        parallel_window: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("codes",),
        adapter_names: list[str] | tuple[str, ...] | None = None,
        **sampling_settings: float | Sequence[float] | None,
    ) -> VilaUImagePipelineOutput | VilaUVideoPipelineOutput | tuple:
        """
        Generates images or videos.

        Args:
            prompt (`str` or `list[str]`): prompt or prompts.
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list, *optional*): images that precede the
                prompt, for a model that was trained to edit images. A list has an image or a list of images for each
                prompt. The images of all output types are accepted.
            negative_prompt (`str` or `list[str]`, *optional*): prompt of the unconditional branch of guidance. By
                default it is the unconditional prompt of the checkpoint.
            guidance_scale (`float`, or a list or tensor with one for each row, *optional*): scale of classifier-free
                guidance, at least 1. 1 means no guidance.
                By default it is `visual_guidance_scale` of the checkpoint's generation config.
            image_guidance_scale (`float`, *optional*): scale of guidance by `image`, at least 1, for editing.
            num_frames (`int`, *optional*): number of frames of a video. Without it, an image is generated.
            first_frames (`list`, `np.ndarray` or `torch.Tensor` of images, *optional*): given first frames of the
                video, or a list of such frames for each prompt. The frames of all output types are accepted.
            num_images_per_prompt (`int`, *optional*, defaults to 1): number of images or videos for each prompt.
            num_candidates (`int`, *optional*, defaults to 1): number of images that are generated for each returned
                image, which is the best of them.
            rank_by (`str` or `Callable`, *optional*, defaults to `"likelihood"`): how candidates are ranked.
                `"likelihood"` is [`LikelihoodRanker`], `"answer"` is [`AnswerRanker`]. A function, for example a
                [`TowerRanker`], takes N prompts, pixels `(N, 3, S, S)` in [-1, 1] and codes `(N, h, w, D)`. It returns
                scores `(N,)`. With `image` it must also take `images`, a list of the images that precede each prompt.
                `"likelihood"` does.
            do_sample (`bool`, *optional*): whether codes are drawn at random. Otherwise the most probable codes are
                taken. By default it is as in the checkpoint's generation config, like the `sampling_settings`.
            visual_decoding (`str`, *optional*): `"sequential"` or `"parallel"`, as for `generate`. By default it is as
                in the checkpoint's generation config.
            parallel_window (`int`, *optional*): positions of a pass of parallel decoding.
            generator (`torch.Generator` or a list with one for each returned image, *optional*): random number
                generator. With a list, an image does not depend on the other images of its batch. The candidates for
                an image share its generator.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"`, `"pt"`, or `"codes"` (also called
                `"latent"`).
            return_dict (`bool`, *optional*, defaults to `True`): whether to return an output class instead of a tuple.
            callback_on_step_end (`Callable`, *optional*): function that is called as
                `callback(pipeline, step, timestep, kwargs)` after each visual position. `step` and `timestep` are both
                the position. It can return a dictionary with changed codes. The model continues with the codes of the
                last position. Changes at earlier positions affect only the result. If it sets
                `pipeline._interrupt = True`, the call ends and its result is `None`.
            callback_on_step_end_tensor_inputs (`Sequence[str]`, *optional*, defaults to `("codes",)`): names in
                `kwargs` of the callback: `"codes"`, also called `"latents"`. Their value has shape `(rows, n, D)`.
            adapter_names (`list[str]`, *optional*): a loaded LoRA adapter for each prompt, or `"__base__"` for none.
                By default all prompts use the active adapters.
            **sampling_settings: settings of `generate` for sampling codes, without their prefix `visual_`; for
                example `temperature`, `top_k` and `top_p`.

        Returns:
            [`VilaUImagePipelineOutput`] with `images`, or [`VilaUVideoPipelineOutput`] with `frames`. N images are a
            list of PIL images, an array `(N, S, S, 3)` or a tensor `(N, 3, S, S)`, both in [0, 1]. Codes have shape
            `(N, h, w, D)`. With `return_dict=False` it is a tuple with this value.

        Raises:
            ValueError: for arguments of the wrong type, number or range.
            TypeError: for unknown arguments.
        """
        self.model.check_arguments(VilaUPipeline.__call__, locals())
        unknown = sorted(sampling_settings.keys() - set(self.model.sampling_settings))
        if unknown:
            raise TypeError(f"unexpected keyword argument `{unknown[0]}`.")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        self._check(prompts, negative_prompt, num_images_per_prompt, output_type)
        self._check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        ranker = self._ranker(num_candidates, rank_by, num_frames, image, adapter_names)
        generator = self._repeat_generators(generator, len(prompts) * num_images_per_prompt, num_candidates)
        device = self._execution_device
        self._load_offloaded_model()
        image_rows = None if image is None else self._images_by_prompt(prompts, image)
        inputs = encode_prompts(self.processor, prompts, image_rows).to(device)
        settings: dict[str, Any] = {
            "guidance_scale": guidance_scale,
            "image_guidance_scale": image_guidance_scale,
            "num_frames": num_frames,
            "do_sample": do_sample,
            "adapter_names": adapter_names,
            "visual_decoding": visual_decoding,
            "parallel_window": parallel_window,
            **{f"visual_{name}": value for name, value in sampling_settings.items()},
        }
        # Without an argument, `generate` takes the setting of the checkpoint.
        settings = {name: value for name, value in settings.items() if value is not None}
        settings.update(self._encode_negative_prompts(negative_prompt, device))
        if image_guidance_scale is not None:
            settings.update(self._encode_images_without_text(image_rows, device))
        num_given_frames = 0
        if first_frames is not None:
            settings["first_frames"] = self._encode_frames(first_frames).to(device)
            num_given_frames = settings["first_frames"].shape[1]
        self._interrupt = False
        if callback_on_step_end is not None:
            settings["stopping_criteria"] = StoppingCriteriaList([self._stop_if_interrupted])
        self._guidance_scale = guidance_scale
        self._num_timesteps = self.model.config.vision_config.num_visual_tokens * (
            (num_frames or 1) - num_given_frames
        )
        with self.progress_bar(total=self._num_timesteps) as progress:
            reporter = StepReporter(self, progress, callback_on_step_end, callback_on_step_end_tensor_inputs)
            codes = self.model.generate(
                **inputs,
                generation_mode="image" if num_frames is None else "video",
                generator=generator,
                num_return_sequences=num_images_per_prompt * num_candidates,
                streamer=reporter,
                **settings,
            )
        result: Any = None
        if not self._interrupt:
            if reporter.codes is not None and reporter.is_changed:
                given_codes = codes.flatten(1, -2)[:, : -self._num_timesteps]  # of `first_frames`
                codes = torch.cat([given_codes, reporter.codes], 1).view_as(codes)
            if num_candidates > 1:
                codes = self._best_candidates(ranker, prompts, image_rows, codes, num_candidates)
            result = codes if output_type in ("codes", "latent") else self._decode(codes, output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (result,)
        if num_frames is None:
            return VilaUImagePipelineOutput(images=result)
        return VilaUVideoPipelineOutput(frames=result)

    def save_pretrained(self, save_directory: str | os.PathLike, flat: bool = False, **kwargs: Any) -> None:
        """
        Saves the pipeline.

        The active adapters of the model are merged into the saved weights. So the folder is complete without peft and
        without another checkpoint. The model in memory keeps its adapters. Merged weights have the dtype of the
        model, so outputs differ by its rounding. `PeftModel.save_pretrained` saves an adapter alone.

        Args:
            save_directory (`str` or `os.PathLike`): the folder.
            flat (`bool`, *optional*, defaults to `False`): whether model and processor are saved at the top of the
                folder, from where `from_pretrained` of transformers can load them as well. Otherwise each of them has
                a sub-folder.
            kwargs: further arguments of `DiffusionPipeline.save_pretrained`. With `flat`, of the model's
                `save_pretrained`.

        Raises:
            ValueError: if both `flat` and `variant` are given, or if an adapter cannot be merged into the weights.
        """
        if flat and kwargs.get("variant") is not None:
            raise ValueError("`variant` needs `flat=False`: diffusers looks for variants in sub-folders.")
        model = self.model.merge_adapters(self.model)
        if model is not self.model:
            # diffusers would save the names of the adapted weights, or no weights of a `PeftModel`.
            type(self)(model=model, processor=self.processor).save_pretrained(save_directory, flat, **kwargs)
            return
        if not flat:
            super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]  # see `register_modules`
            return
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)
        self.save_config(save_directory)

    def _check(self, prompts: Any, negative_prompt: Any, num_images_per_prompt: Any, output_type: Any) -> None:
        """Checks the prompts, their number of images and the output type."""
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
        if num_images_per_prompt < 1:
            raise ValueError(
                f"`num_images_per_prompt` must be an integer of at least 1, got {num_images_per_prompt!r}."
            )
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}.")

    def _check_callback(self, callback: Any, tensor_inputs: Any) -> None:
        """Checks the callback and the names of its tensors."""
        if callback is not None and not callable(callback):
            raise ValueError(f"`callback_on_step_end` must be callable, got {type(callback).__name__}.")
        is_list = isinstance(tensor_inputs, (list, tuple))
        unknown = set(tensor_inputs) - set(self._callback_tensor_inputs) if is_list else {repr(tensor_inputs)}
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` must be among {self._callback_tensor_inputs}, got "
                f"{sorted(unknown)}."
            )

    @staticmethod
    def _repeat_generators(
        generator: torch.Generator | list[torch.Generator] | None, rows: int, num_candidates: int
    ) -> torch.Generator | list[torch.Generator] | None:
        """Repeats a list with a generator for each of the `rows` images for all of their candidates."""
        if not isinstance(generator, list):
            return generator
        if len(generator) != rows:
            raise ValueError(
                f"`generator` has {len(generator)} entries for {rows} rows: give one, or one for each image."
            )
        return [each for each in generator for _ in range(num_candidates)]

    def _ranker(
        self, num_candidates: int, rank_by: str | Callable, num_frames: int | None, image: Any, adapter_names: Any
    ) -> Callable[..., torch.Tensor]:
        """Returns the function that scores candidates."""
        if num_candidates < 1:
            raise ValueError(f"`num_candidates` must be an integer of at least 1, got {num_candidates!r}.")
        if num_candidates > 1 and num_frames is not None:
            raise ValueError("`num_candidates` above 1 is for images; leave out `num_frames`.")
        if num_candidates > 1 and adapter_names is not None and not callable(rank_by):
            raise ValueError(
                f"`rank_by` must be a function if `adapter_names` is given, got {rank_by!r}, which would rank with "
                "the active adapters."
            )
        ranker = get_ranker(rank_by, self.model, self.processor)
        if num_candidates > 1 and image is not None:
            check_ranks_edits(ranker)
        return ranker

    def _best_candidates(
        self,
        ranker: Callable[..., torch.Tensor],
        prompts: list[str],
        image_rows: list[list] | None,
        codes: torch.Tensor,
        num_candidates: int,
    ) -> torch.Tensor:
        """Returns the best of each `num_candidates` successive rows of `codes` `(rows, h, w, D)`."""
        times = len(codes) // len(prompts)
        repeated_prompts = [text for text in prompts for _ in range(times)]
        images = {} if image_rows is None else {"images": [row for row in image_rows for _ in range(times)]}
        pixels = self.model.decode_image_tokens(codes)
        scores = ranker(repeated_prompts, pixels, codes, **images)
        check_scores(scores, len(codes))
        scores = scores.view(-1, num_candidates)
        best = scores.argmax(-1).to(codes.device)
        return codes.unflatten(0, scores.shape)[torch.arange(len(best), device=codes.device), best]

    def _stop_if_interrupted(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Ends all rows after a callback sets `_interrupt`, as a stopping criterion of `generate`."""
        return torch.full((len(input_ids),), self._interrupt, device=input_ids.device)

    def _load_offloaded_model(self) -> None:
        """Moves an offloaded model to the device of execution."""
        # accelerate's hook moves a model when its `forward` is called. `generate` calls `forward` of sub-models only.
        hook = getattr(self.model, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self.model)

    @staticmethod
    def _images_by_prompt(prompts: list[str], image: Any) -> list[list]:
        """Returns the list of images of each prompt. In an array of four dimensions, the first is a list."""
        images = list(image) if _ndim(image) == 4 or isinstance(image, (list, tuple)) else [image]
        if len(images) != len(prompts):
            raise ValueError(f"`image` must hold images for each of the {len(prompts)} prompts, got {len(images)}.")
        return [list(row) if _ndim(row) == 4 or isinstance(row, (list, tuple)) else [row] for row in images]

    def _encode_images_without_text(
        self, image_rows: list[list] | None, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Encodes the prompts of the image-only branch of guidance."""
        if image_rows is None:
            raise ValueError("`image_guidance_scale` needs `image`, got None.")
        texts = [render_prompt(self.processor, [{"type": "image"} for _ in row]) for row in image_rows]
        encoded = self.processor(text=texts, images=image_rows, return_tensors="pt").to(device)
        return {"image_prompt_ids": encoded["input_ids"], "image_prompt_attention_mask": encoded["attention_mask"]}

    def _encode_frames(self, frames: Any) -> torch.Tensor:
        """Preprocesses the first frames of videos to pixels `(rows, f, 3, S, S)`."""
        if _ndim(frames) in (4, 5):
            frames = list(frames)
        if not isinstance(frames, (list, tuple)):
            raise ValueError(
                f"`first_frames` must be a list of images, or a list of such lists, got {type(frames).__name__}."
            )
        rows = frames if len(frames) and (_ndim(frames[0]) == 4 or isinstance(frames[0], (list, tuple))) else [frames]
        rows = [list(row) if _ndim(row) == 4 or isinstance(row, (list, tuple)) else [row] for row in rows]
        if not all(rows):
            raise ValueError(f"`first_frames` must hold at least one image for each prompt, got {frames}.")
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise ValueError(f"`first_frames` must have the same number of images for each prompt, got {lengths}.")
        flat = [frame for row in rows for frame in row]
        pixels = self.processor.image_processor(flat, return_tensors="pt")["pixel_values"]
        return pixels.unflatten(0, (len(rows), -1))

    def _encode_negative_prompts(
        self, negative_prompt: str | list[str] | tuple[str, ...] | None, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Encodes the negative prompts. Without any, the checkpoint's unconditional prompt is used, if it has one."""
        if negative_prompt is None:
            if self.model.generation_config.to_dict().get("unconditional_prompt_ids") is not None:
                return {}
            negative_prompt = ""
        texts = [negative_prompt] if isinstance(negative_prompt, str) else list(negative_prompt)
        encoded = encode_prompts(self.processor, texts).to(device)
        return {
            "negative_prompt_ids": encoded["input_ids"],
            "negative_prompt_attention_mask": encoded["attention_mask"],
        }

    def _decode(
        self, codes: torch.Tensor, output_type: str
    ) -> list[Image.Image] | list[list[Image.Image]] | np.ndarray | torch.Tensor:
        """Decodes codes of images `(N, h, w, D)` or of videos `(V, F, h, w, D)`."""
        postprocess = self.processor.image_processor.postprocess
        if codes.ndim == 4:
            return postprocess(self.model.decode_image_tokens(codes), output_type)
        pixels = self.model.decode_video_tokens(codes)
        if output_type == "pil":
            return self.processor.post_process_multimodal_output(pixels, generation_mode="video")
        videos = [postprocess(video, output_type) for video in pixels]
        return torch.stack(videos) if output_type == "pt" else np.stack(videos)


def _ndim(images: Any) -> int:
    """Returns the number of dimensions of an array or a tensor, and 0 for everything else."""
    return getattr(images, "ndim", 0)


__all__ = ["VilaUPipeline"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Text to image and text to video with VILA-U, used like any pipeline of diffusers."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils import BaseOutput
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin


OUTPUT_TYPES = ("pil", "np", "pt", "codes")


@dataclass
class VilaUVideoPipelineOutput(BaseOutput):
    r"""
    frames (`list[list[PIL.Image.Image]]`, `np.ndarray` of shape `(V, F, H, W, 3)` or `torch.Tensor`): V videos; a
        tensor is `(V, F, 3, H, W)`, or `(V, F, h, w, D)` if codes were asked for. Arrays and pixels are in [0, 1].
    """

    frames: list[list[Image.Image]] | np.ndarray | torch.Tensor


class _StepReporter:
    """Stands where `generate` puts the codes of each visual position, and tells progress bar and callback."""

    def __init__(self, pipeline, progress, callback, tensor_inputs):
        self.pipeline, self.progress = pipeline, progress
        self.callback, self.tensor_inputs = callback, tensor_inputs
        self.position = 0

    def put(self, value):
        """Text: nothing to report."""

    def put_visual(self, codes: torch.LongTensor):
        if self.callback is not None:
            values = {name: value for name, value in {"codes": codes}.items() if name in self.tensor_inputs}
            self.callback(self.pipeline, self.position, self.position, values)
        self.position += 1
        self.progress.update()

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
    _callback_tensor_inputs = ["codes"]

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        super().__init__()
        self.register_modules(model=model, processor=processor)

    @property
    def guidance_scale(self) -> float | None:
        """Guidance of the last call."""
        return self._guidance_scale

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
        num_frames: int | None = None,
        num_images_per_prompt: int = 1,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("codes",),
    ) -> ImagePipelineOutput | VilaUVideoPipelineOutput | tuple:
        """
        Args:
            prompt (`str` or `list[str]`): what to draw.
            image (`PIL.Image.Image`, or a list with one, or a list of some, for each prompt, *optional*): images that
                stand before the prompt, for a model that was trained to edit them.
            negative_prompt (`str` or `list[str]`, *optional*): in place of the unconditional prompt.
            guidance_scale (`float`, *optional*): strength of classifier-free guidance, at least 1, which turns it off;
                by default as in the checkpoint's generation config, like `do_sample`, `temperature`, `top_k`, `top_p`.
            num_frames (`int`, *optional*): frames of a video; without it an image is drawn.
            num_images_per_prompt (`int`, *optional*, defaults to 1): images or videos for each prompt.
            generator (`torch.Generator` or a list with one for each image, *optional*): source of the samples.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"`, `"pt"` or `"codes"`.
            return_dict (`bool`, *optional*, defaults to `True`): return an output class, or else a tuple.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep, kwargs)` after
                each visual position; both numbers are the position.
            callback_on_step_end_tensor_inputs (`Sequence[str]`, *optional*): what `kwargs` holds: `"codes"`, those of
                this position, `(rows, D)`.

        Returns:
            [`ImagePipelineOutput`] with `images`, or [`VilaUVideoPipelineOutput`] with `frames`: lists of PIL images,
            arrays `(N, H, W, 3)` and tensors `(N, 3, H, W)` in [0, 1], or codes `(N, h, w, D)`; with
            `return_dict=False` a tuple with that.

        Raises:
            ValueError: for arguments of the wrong type, number or range.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        self._check(prompts, negative_prompt, num_images_per_prompt, output_type, callback_on_step_end_tensor_inputs)
        mode = "image" if num_frames is None else "video"
        device = self._execution_device
        self._bring_model()
        inputs = self._encode(prompts, image).to(device)
        settings = {
            "guidance_scale": guidance_scale,
            "num_frames": num_frames,
            "do_sample": do_sample,
            "visual_temperature": temperature,
            "visual_top_k": top_k,
            "visual_top_p": top_p,
        }
        if negative_prompt is not None:
            negative = [negative_prompt] if isinstance(negative_prompt, str) else negative_prompt
            settings.update(self._encode_negative(negative, device))
        self._guidance_scale = guidance_scale
        self._num_timesteps = self.model.config.vision_config.num_visual_tokens * (num_frames or 1)
        with self.progress_bar(total=self._num_timesteps) as progress:
            codes = self.model.generate(
                **inputs,
                generation_mode=mode,
                generator=generator,
                num_return_sequences=num_images_per_prompt,
                streamer=_StepReporter(self, progress, callback_on_step_end, callback_on_step_end_tensor_inputs),
                **{name: value for name, value in settings.items() if value is not None},
            )
        result = codes if output_type == "codes" else self._decode(codes, mode, output_type)
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
        if not flat:
            super().save_pretrained(save_directory, **kwargs)
            return
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)
        self.save_config(save_directory)

    def _check(self, prompts, negative_prompt, num_images_per_prompt, output_type, tensor_inputs):
        for name, value in (("prompt", prompts), ("negative_prompt", negative_prompt)):
            values = [value] if isinstance(value, str) or value is None else value
            if not isinstance(values, (list, tuple)) or not all(
                isinstance(text, (str, type(None))) for text in values
            ):
                raise ValueError(f"`{name}` must be a string or a list of strings, got {type(value).__name__}.")
        if not prompts or None in prompts:
            raise ValueError("`prompt` must be a string or a list with at least one string.")
        if isinstance(negative_prompt, (list, tuple)) and len(negative_prompt) not in (1, len(prompts)):
            raise ValueError(
                f"`negative_prompt` must be one string or one for each of the {len(prompts)} prompts, got "
                f"{len(negative_prompt)}."
            )
        if num_images_per_prompt < 1:
            raise ValueError(f"`num_images_per_prompt` must be at least 1, got {num_images_per_prompt}.")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}.")
        unknown = set(tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` must be among {self._callback_tensor_inputs}, got "
                f"{sorted(unknown)}."
            )

    def _bring_model(self):
        """Offloading moves a model when its forward is called; `generate` calls that of its parts."""
        hook = getattr(self.model, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self.model)

    def _encode(self, prompts: list[str], image):
        rows = [[] for _ in prompts]
        if image is not None:
            images = image if isinstance(image, (list, tuple)) else [image]
            if len(images) != len(prompts):
                raise ValueError(
                    f"`image` must hold images for each of the {len(prompts)} prompts, got {len(images)}."
                )
            rows = [list(row) if isinstance(row, (list, tuple)) else [row] for row in images]
        texts = [
            self._render([*({"type": "image"} for _ in row), {"type": "text", "text": text}])
            for text, row in zip(prompts, rows, strict=True)
        ]
        return self.processor(text=texts, images=rows if image is not None else None, return_tensors="pt")

    def _render(self, content: list[dict]) -> str:
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def _encode_negative(self, texts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
        encoded = self.processor(
            text=[self._render([{"type": "text", "text": text}]) for text in texts], return_tensors="pt"
        ).to(device)
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

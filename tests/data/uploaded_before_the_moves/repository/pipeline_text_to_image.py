# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks "text-to-image" and "text-to-video" of transformers' `pipeline`."""

import os
from typing import Any

import torch
from PIL import Image
from transformers import Pipeline


class VilaUTextToImagePipeline(Pipeline):
    r"""
    Draws images for prompts.

    Example:

    ```python
    >>> import vilau_hf  # registers the task
    >>> from transformers import pipeline

    >>> draw = pipeline("text-to-image")
    >>> image = draw("a small red cross at the bottom on a white background", seed=0)[0]["generated_image"]
    ```
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    _pipeline_calls_generate = True
    generation_mode = "image"

    def __call__(self, prompt: str | list, **kwargs) -> list[dict] | list[list[dict]]:
        """
        Args:
            prompt (`str`, a chat, or a list or dataset of them): what to draw.
            negative_prompt (`str`, *optional*): in place of the unconditional prompt.
            num_images_per_prompt (`int`, *optional*, defaults to 1): results for each prompt.
            seed (`int`, *optional*): the first result of each prompt is drawn with this seed, the n-th after it with
                `seed + n`, whatever else is drawn in its batch; or `generator`, one for all.
            kwargs: further settings of `generate`, for example `guidance_scale`, `num_frames`; `batch_size`.

        Returns:
            A list of `{"generated_image": PIL.Image.Image}` for one prompt, a list of such lists for several; of
            videos `{"generated_video": list[PIL.Image.Image]}`.

        Raises:
            ValueError: for a prompt or a seed of another type, and as `generate`.
        """
        return super().__call__(prompt, **kwargs)

    def _sanitize_parameters(self, num_workers=None, batch_size=None, **kwargs):
        return {}, kwargs, {}

    def preprocess(self, prompt: Any):
        # the library wraps a list of messages into an object with the attribute `messages`
        messages = getattr(prompt, "messages", None)
        if messages is None:
            if not isinstance(prompt, str):
                raise ValueError(f"`prompt` must be a string or a chat, got {type(prompt).__name__}.")
            messages = [{"role": "user", "content": prompt}]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return self.processor(text=text, return_tensors="pt")

    def _forward(
        self,
        model_inputs,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        **generate_kwargs,
    ) -> dict[str, torch.Tensor]:
        if seed is not None:
            if not isinstance(seed, int):
                raise ValueError(f"`seed` must be an integer, got {seed!r}.")
            prompts = len(model_inputs["input_ids"])
            generate_kwargs["seed"] = [seed + index for index in range(num_images_per_prompt)] * prompts
        saved = self.model.generation_config.to_dict().get("unconditional_prompt_ids")
        if negative_prompt is not None or saved is None:
            ids = self.processor.unconditional_prompt_ids(negative_prompt or "")
            generate_kwargs["negative_prompt_ids"] = torch.tensor([ids], device=self.device)
        codes = self.model.generate(
            **model_inputs,
            generation_mode=self.generation_mode,
            num_return_sequences=num_images_per_prompt,
            **generate_kwargs,
        )
        decode = self.model.decode_image_tokens if self.generation_mode == "image" else self.model.decode_video_tokens
        return {"pixels": decode(codes).unflatten(0, (-1, num_images_per_prompt))}

    def postprocess(self, model_outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        results: list[Image.Image] | list[list[Image.Image]] = self.processor.post_process_multimodal_output(
            model_outputs["pixels"].flatten(0, 1), generation_mode=self.generation_mode
        )
        return [{f"generated_{self.generation_mode}": result} for result in results]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Saves model and processor into one folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


class VilaUTextToVideoPipeline(VilaUTextToImagePipeline):
    """Draws videos for prompts; as [`VilaUTextToImagePipeline`]."""

    generation_mode = "video"


__all__ = ["VilaUTextToImagePipeline", "VilaUTextToVideoPipeline"]

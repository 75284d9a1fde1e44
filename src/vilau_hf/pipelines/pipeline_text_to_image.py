# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks "text-to-image" and "text-to-video" of transformers' `pipeline`."""

# An upload with code copies this file alone, so it imports no other file of the package.
import os
from typing import Any

import torch
from transformers import BatchFeature, Pipeline


class VilaUTextToImagePipeline(Pipeline):
    r"""
    Pipeline of transformers for the task `"text-to-image"`: generates images for prompts.

    Example:
    ```python
    >>> import vilau_hf  # registers the task
    >>> from transformers import pipeline

    >>> draw = pipeline("text-to-image")
    >>> image = draw("a small red cross at the bottom on a white background", seed=0)[0]["generated_image"]
    ```
    """

    # Which files `pipeline()` loads: the processor contains the tokenizer and the image processor. In the base class
    # these attributes are `None`, which means "load if available". Read in transformers 5.20.2, 5.23.0 and 5.24.0.
    _load_processor = True  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]
    # `pipeline()` then accepts settings of generation and prepares a generation config.
    _pipeline_calls_generate = True
    generation_mode = "image"

    # `VilaUForConditionalGeneration` and `VilaUProcessor`, whose classes this file cannot import
    model: Any
    processor: Any

    def __call__(self, prompt: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # no further positional arguments
        """
        Generates images or videos for one prompt or several.

        Args:
            prompt (`str`, a chat as `list[dict]`, or a list, generator or dataset of them): description of the image.
            negative_prompt (`str`, *optional*): prompt of the unconditional branch of classifier-free guidance. By
                default it is the unconditional prompt of the checkpoint.
            num_images_per_prompt (`int`, *optional*, defaults to 1): number of results for each prompt.
            seed (`int`, *optional*): seed of the first result of each prompt. The n-th result after it has the seed
                `seed + n`. Results do not depend on the other prompts of a batch. Not together with `generator`.
            generator (`torch.Generator`, *optional*): random number generator of all results.
            batch_size (`int`, *optional*, defaults to 1): number of prompts in a batch.
            kwargs: further settings of `generate`, for example `guidance_scale` and `num_frames`.

        Returns:
            A list of `{"generated_image": PIL.Image.Image}` for one prompt, or a list of such lists for several. The
            task `"text-to-video"` returns `{"generated_video": list[PIL.Image.Image]}`.

        Raises:
            ValueError: for a prompt or a seed of another type, and for settings that `generate` rejects.
        """
        if isinstance(prompt, (list, tuple)) and not prompt:
            raise ValueError("`prompt` must have at least one prompt, got an empty list.")
        batch_size = kwargs.get("batch_size")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"`batch_size` must be an integer of at least 1, got {str(batch_size)[:80]}.")
        return super().__call__(prompt, **kwargs)

    # Abstract in the base class. It sorts the keyword arguments into those of `preprocess`, `_forward` and
    # `postprocess`. All of ours are arguments of `_forward`. The documentation asks for it (add_new_pipeline).
    def _sanitize_parameters(
        self, num_workers: int | None = None, batch_size: int | None = None, **kwargs: Any
    ) -> tuple[dict, dict, dict]:
        return {}, kwargs, {}

    def preprocess(self, prompt: Any) -> BatchFeature:  # type: ignore[override]  # other name
        """Renders and tokenises one prompt."""
        messages = getattr(prompt, "messages", None)  # the base class wraps a chat into an object with this attribute
        if messages is None:
            if not isinstance(prompt, str):
                raise ValueError(f"`prompt` must be a string or a chat, got {type(prompt).__name__}.")
            messages = [{"role": "user", "content": prompt}]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return self.processor(text=text, return_tensors="pt")

    # Abstract in the base class, which calls it without gradients for a batch on the device of the model. The
    # documentation asks for it (add_new_pipeline).
    def _forward(  # type: ignore[override]  # returns a dictionary, which the base class accepts as well
        self,
        model_inputs: Any,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        **generate_kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        self.model.check_arguments(VilaUTextToImagePipeline._forward, locals())
        if num_images_per_prompt < 1:
            raise ValueError(f"`num_images_per_prompt` must be at least 1, got {num_images_per_prompt}.")
        if seed is not None:
            # A list has a seed for each row. A single number would give each prompt of a batch other seeds.
            prompts = len(model_inputs["input_ids"])
            generate_kwargs["seed"] = [seed + index for index in range(num_images_per_prompt)] * prompts
        saved_ids = self.model.generation_config.to_dict().get("unconditional_prompt_ids")
        if negative_prompt is not None or saved_ids is None:
            ids = self.processor.unconditional_prompt_ids(negative_prompt or "")
            generate_kwargs["negative_prompt_ids"] = torch.tensor([ids], device=self.device)
        codes = self.model.generate(
            **model_inputs,
            generation_mode=self.generation_mode,
            num_return_sequences=num_images_per_prompt,
            **generate_kwargs,
        )
        decode = self.model.decode_image_tokens if self.generation_mode == "image" else self.model.decode_video_tokens
        # One entry a prompt: the base class splits a batch along the first dimension.
        return {"pixels": decode(codes).unflatten(0, (-1, num_images_per_prompt))}

    def postprocess(self, model_outputs: Any) -> list[dict[str, Any]]:  # type: ignore[override]  # no parameters
        """Converts the pixels of one prompt to PIL images or lists of frames."""
        results = self.processor.post_process_multimodal_output(
            model_outputs["pixels"].flatten(0, 1), generation_mode=self.generation_mode
        )
        return [{f"generated_{self.generation_mode}": result} for result in results]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves model and processor into one folder.

        The active adapters of the model are merged into the saved weights. So the folder is complete without peft and
        without another checkpoint.

        Args:
            save_directory (`str` or `os.PathLike`): the folder.
            kwargs: further arguments of the model's `save_pretrained`.

        Raises:
            ValueError: if an adapter cannot be merged into the weights.
        """
        # The base method saves the model, tokenizer and image processor, but not a processor.
        self.model.merge_adapters(self.model).save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


class VilaUTextToVideoPipeline(VilaUTextToImagePipeline):
    """Pipeline of transformers for the task `"text-to-video"`: like [`VilaUTextToImagePipeline`], but for videos."""

    generation_mode = "video"


__all__ = ["VilaUTextToImagePipeline", "VilaUTextToVideoPipeline"]

"""Batches for stage 1: images with their captions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import torch

from ..modeling.argument_checks_vilau import PositiveInt, Rule, check_value
from ..processing.image_functions_vilau import reading_settings
from .media import open_image


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..processing import VilaUImageProcessor, VilaUImageProcessorPil


class VisionTowerDataCollator:
    """
    Turns records with one image and its caption into a batch for [`VisionTowerTrainer`].

    Args:
        image_processor ([`VilaUImageProcessor`]): resizes and normalises the images.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): tokenizer of the text encoder. Without it captions are left
            out, for a tower whose contrastive loss has weight 0.
        max_length (`int`, *optional*): tokens of a caption, required with a tokenizer.

    Raises:
        ValueError: for a tokenizer without `max_length`.
    """

    def __init__(
        self,
        image_processor: "VilaUImageProcessor | VilaUImageProcessorPil",
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        max_length: PositiveInt | None = None,
    ) -> None:
        check_value("max_length", max_length, PositiveInt | None)
        if tokenizer is not None and max_length is None:
            raise ValueError("`max_length` must be given with a `tokenizer`, got None.")
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, records: list[dict]) -> dict[str, torch.Tensor | bool]:
        """
        Makes a batch.

        Args:
            records (`list[dict]`): records with `images` (a list of one image) and, with a tokenizer, `caption`
                (`str`).

        Returns:
            `pixel_values` `(N, 3, S, S)`, `input_ids` `(N, max_length)` with a tokenizer, and `return_loss=True`.

        Raises:
            ValueError: if a record does not have exactly one image.
        """
        check_value("records", records, Annotated[Sequence[Mapping], Rule("of at least one record", bool)])
        for record in records:
            images = record.get("images")
            if not isinstance(images, (list, tuple)) or len(images) != 1:
                given = len(images) if isinstance(images, (list, tuple)) else type(images).__name__
                raise ValueError(f"a record needs exactly one image in `images`, a list, got {given}.")
            if self.tokenizer is not None:
                check_value("caption", record.get("caption"), str)
        # The processor would also download URLs.
        settings = reading_settings(self.image_processor, {})
        images = [open_image(record["images"][0], **settings) for record in records]
        pixels = self.image_processor(images, return_tensors="pt")
        batch = {"pixel_values": pixels["pixel_values"], "return_loss": True}
        if self.tokenizer is not None and self.max_length is not None:
            captions = [record["caption"] for record in records]
            batch["input_ids"] = tokenize_captions(self.tokenizer, captions, self.max_length)
        return batch


def tokenize_captions(tokenizer: "PreTrainedTokenizerBase", captions: list[str], max_length: int) -> torch.LongTensor:
    """Returns token ids `(N, max_length)` of captions for a SigLIP text encoder, padded on the right."""
    # SigLIP reads the text embedding from the last position, which is padding for a short caption.
    return tokenizer(
        captions,
        padding="max_length",
        padding_side="right",
        truncation=True,
        max_length=max_length,
        split_special_tokens=True,  # a `</s>` in a caption is text
        return_tensors="pt",
    )["input_ids"]

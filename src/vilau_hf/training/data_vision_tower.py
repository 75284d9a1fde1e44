"""Batches for stage 1: images with their captions."""

import torch


class VisionTowerDataCollator:
    """
    Turns records with one image and its caption into a batch for [`VisionTowerTrainer`].

    Args:
        image_processor ([`VilaUImageProcessor`]): resizes and normalises.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the text encoder.
        max_length (`int`): tokens of a caption; SigLIP reads its text embedding from the last, padded place.
    """

    def __init__(self, image_processor, tokenizer, max_length: int):
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, records: list[dict]) -> dict[str, torch.Tensor | bool]:
        """
        Args:
            records (`list[dict]`): each with `images` (a list of one picture) and `caption` (`str`).

        Returns:
            `pixel_values` `(N, 3, S, S)`, `input_ids` `(N, max_length)` and `return_loss=True`.

        Raises:
            ValueError: if a record has not exactly one image.
        """
        for record in records:
            if len(record["images"]) != 1:
                raise ValueError(f"a record needs exactly one image in `images`, got {len(record['images'])}.")
        pixels = self.image_processor([record["images"][0] for record in records], return_tensors="pt")
        return {
            "pixel_values": pixels["pixel_values"],
            "input_ids": tokenize_captions(self.tokenizer, [record["caption"] for record in records], self.max_length),
            "return_loss": True,
        }


def tokenize_captions(tokenizer, captions: list[str], max_length: int) -> torch.LongTensor:
    """Ids `(N, max_length)` of captions for a SigLIP text encoder: no special tokens, padded on the right."""
    return tokenizer(
        captions,
        padding="max_length",
        padding_side="right",
        truncation=True,
        max_length=max_length,
        add_special_tokens=False,
        return_tensors="pt",
    )["input_ids"]

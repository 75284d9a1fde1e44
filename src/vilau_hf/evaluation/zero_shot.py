"""Zero-shot classification by a vision tower with its text encoder."""

import torch

from ..data.collator_vision_tower import tokenize_captions


@torch.no_grad()
def embed_classes(tower, tokenizer, classes: list[str], max_length: int) -> torch.Tensor:
    """
    Embeds the captions of classes. The class of an image is the one with the largest product of embeddings.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a vision tower with its text encoder.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the text encoder.
        classes (`list[str]`): one caption a class, as in "a red cross".
        max_length (`int`): tokens of a caption.

    Returns:
        Embeddings of length 1, float32, one row a class, on the device of `tower`.
    """
    ids = tokenize_captions(tokenizer, classes, max_length)
    texts = tower.get_text_features(ids.to(tower.device)).float()
    return torch.nn.functional.normalize(texts, dim=-1)


__all__ = ["embed_classes"]

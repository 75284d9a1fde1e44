"""Zero-shot classification by a vision tower with its text encoder."""

import torch
from transformers import PreTrainedTokenizerBase

from ..data.collator_vision_tower import tokenize_captions
from ..modeling import VilaUVisionTowerForPreTraining


@torch.no_grad()
def embed_classes(
    tower: VilaUVisionTowerForPreTraining, tokenizer: PreTrainedTokenizerBase, classes: list[str], max_length: int
) -> torch.Tensor:
    """
    Embeds the caption of each class, to classify images without training.

    The class of an image is the one whose embedding has the largest dot product with the embedding of the image.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a vision tower with its text encoder.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the text encoder.
        classes (`list[str]` of length N): one caption for each class, such as "a red cross".
        max_length (`int`): length in tokens that captions are padded to.

    Returns:
        `torch.Tensor`, float32, one row of norm 1 for each class, on the device of `tower`.
    """
    ids = tokenize_captions(tokenizer, classes, max_length)
    texts = tower.get_text_features(ids.to(tower.device)).float()
    return torch.nn.functional.normalize(texts, dim=-1)


__all__ = ["embed_classes"]

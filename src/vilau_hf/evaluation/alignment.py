"""How close images and texts are in the layers of a language model (VILA, arXiv 2312.07533, section 3.1)."""

from collections.abc import Sequence
from typing import Any

import torch

from ..modeling import VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .intervals import Score, mean
from .model_outputs import chat_prompts


def chamfer_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """
    Computes the Chamfer distance of two sets of vectors under the cosine distance.

    The distance of two vectors is one minus their cosine, so lengths do not count. Each vector is compared with the
    nearest one of the other set. The result is the mean over both directions (VILA, arXiv 2312.07533, figure 3, plots
    the cosines themselves).

    Args:
        first (`torch.Tensor` of shape `(M, H)`): vectors of one set; at least one.
        second (`torch.Tensor` of shape `(N, H)`): vectors of the other set; at least one.

    Returns:
        The distance, from 0 for sets of equal directions to 2 for opposite ones.

    Raises:
        ValueError: if a set is empty, or the widths differ.
    """
    if len(first) == 0 or len(second) == 0 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            "`first` and `second` must contain vectors of one width, got shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
    # float32, because in bfloat16 cosines near 1 would all be equal
    left, right = (torch.nn.functional.normalize(each.float(), dim=-1) for each in (first, second))
    distances = 1 - left @ right.T  # (M, N)
    both = distances.amin(1).mean() + distances.amin(0).mean()
    return both.item() / 2


@torch.no_grad()
def alignment_curve(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    records: Sequence[dict[str, Any]],
    batch_size: int = 16,
) -> list[Score]:
    """
    Computes the Chamfer distance between the visual and the text positions of records, layer by layer.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        records (`Sequence[dict]`): records with `messages` that have text, and `images`, of which each needs one.
        batch_size (`int`, *optional*, defaults to 16): records in a batch.

    Returns:
        Mean over the records for the embeddings, then for the output of each layer, with 95 % intervals.

    Raises:
        ValueError: if there are no records, or one has no image.
    """
    if not records:
        raise ValueError("`records` must contain at least one record, got none.")
    distances: list[list[float]] = []  # by record, then by layer
    for begin in range(0, len(records), batch_size):
        batch = records[begin : begin + batch_size]
        missing = [begin + row for row, record in enumerate(batch) if not record["images"]]
        if missing:
            raise ValueError(f"record {missing[0]} of `records` has no image; each needs at least one.")
        images = [image for record in batch for image in record["images"]]
        inputs = chat_prompts(processor, [record["messages"] for record in batch], images=images).to(model.device)
        states = model(**inputs, output_hidden_states=True).hidden_states  # layers + 1 times (B, T, H)
        ids = inputs["input_ids"]
        is_visual = model.config.is_visual(ids)
        markers = torch.tensor(processor.tokenizer.all_special_ids, device=ids.device)
        is_text = inputs["attention_mask"].bool() & ~is_visual & ~torch.isin(ids, markers)
        for row in range(len(batch)):
            distances.append(
                [chamfer_distance(layer[row, is_visual[row]], layer[row, is_text[row]]) for layer in states]
            )
    return [mean(list(of_layer)) for of_layer in zip(*distances, strict=True)]


__all__ = ["alignment_curve", "chamfer_distance"]

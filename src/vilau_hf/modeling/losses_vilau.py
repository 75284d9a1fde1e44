# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses over codes, computed in chunks of logits, and over pairs of images and texts."""

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .distributed_vilau import is_distributed, is_sharded, largest_of_ranks
from .modeling_depth_transformer import VilaUDepthTransformer
from .modeling_residual_quantizer import VilaUResidualQuantizer


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients together with the loss, so logits are neither kept nor computed twice."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor, *chunks: torch.Tensor
    ) -> torch.Tensor:
        device = weight.device.type
        # The dtype in which autocast would compute the head. It is off below, where each dtype is chosen explicitly.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        # The gradients of all chunks are summed in float32.
        weight_grad, bias_grad = (
            torch.zeros_like(parameter, dtype=torch.float32) if needed else None
            for parameter, needed in zip((weight, bias), ctx.needs_input_grad, strict=False)
        )
        chunk_grads = []
        loss = weight.new_zeros((), dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            head = weight.to(dtype)
            offset = bias.to(dtype)
            for chunk, target in zip(chunks, targets.split([len(chunk) for chunk in chunks]), strict=True):
                states = chunk.to(dtype)
                # from here on changed in place: the scores are the largest tensor
                scores = nn.functional.linear(states, head, offset).float()  # (m, K)
                counts = (target != -100)[:, None]
                target = target.clamp(min=0)[:, None]
                largest = scores.amax(-1, keepdim=True)
                truth = scores.gather(1, target)
                total = scores.sub_(largest).exp_().sum(-1, keepdim=True)
                loss += ((total.log() + largest - truth) * counts).sum()
                # the derivative of -log softmax: probabilities, minus one at the target
                scores.div_(total).scatter_add_(1, target, torch.full_like(truth, -1))
                grad = scores.mul_(counts).to(dtype)
                chunk_grads.append((grad @ head).to(chunk.dtype))
                if bias_grad is not None:
                    bias_grad += grad.sum(0, dtype=torch.float32)
                if weight_grad is not None and dtype == torch.float32:
                    # adds the product in place, which needs equal dtypes
                    weight_grad.addmm_(grad.T, states)
                elif weight_grad is not None:
                    weight_grad += grad.T @ states
                # frees the memory before the next chunk allocates
                del scores, grad
        ctx.parameter_dtypes = (weight.dtype, bias.dtype)
        ctx.save_for_backward(weight_grad, bias_grad, *chunk_grads)
        return loss

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight_grad, bias_grad, *chunk_grads = ctx.saved_tensors
        weight_grad, bias_grad = (
            None if grad is None else (grad * scale).to(dtype)
            for grad, dtype in zip((weight_grad, bias_grad), ctx.parameter_dtypes, strict=True)
        )
        return weight_grad, bias_grad, None, *((grad * scale).to(grad.dtype) for grad in chunk_grads)


def linear_cross_entropy(
    chunks: list[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """
    Computes the summed cross-entropy of `inputs @ weight.T + bias` in chunks.

    The logits of one chunk exist at a time. They are computed once, because the gradients are computed with the loss.

    Args:
        chunks (`list[torch.Tensor]` of shapes `(m, W)`): inputs of the head, in order.
        weight (`torch.Tensor` of shape `(K, W)`): weight of the head.
        bias (`torch.Tensor` of shape `(K,)`): bias of the head.
        targets (`torch.LongTensor` of shape `(M,)`): in `[0, K)`, or -100 for rows that do not count. M is the sum of
            all m.

    Returns:
        `torch.Tensor` of shape `()`, float32. Under autocast the head computes in the dtype of autocast.
    """
    return _LinearCrossEntropy.apply(weight, bias, targets, *chunks)


def code_loss(
    depth_transformer: VilaUDepthTransformer,
    quantizer: VilaUResidualQuantizer,
    visual_hidden: torch.Tensor,
    target_codes: torch.Tensor,
    max_logits: int,
    output_logits: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Computes the summed cross-entropy over codes (VILA-U, eq. 7).

    For more than `max_logits` logits, the depth transformer runs on chunks of the visual tokens. So only the logits of
    one chunk exist at a time. With gradient checkpointing, it keeps only the inputs of its head, and runs again
    on each chunk in the backward pass. Without, it keeps its activations, which is faster.

    Args:
        depth_transformer ([`VilaUDepthTransformer`]): predicts the codes.
        quantizer ([`VilaUResidualQuantizer`]): gives the embeddings of the codes.
        visual_hidden (`torch.Tensor` of shape `(M, H)`): hidden state before each visual token. M may be 0.
        target_codes (`torch.LongTensor` of shape `(M, D)`): codes of each visual token.
        max_logits (`int`): number of logits that may exist at once.
        output_logits (`bool`, *optional*, defaults to `False`): return all logits, which then exist at once.

    Returns:
        The loss, `()`, and the logits `(M, D, K)` or `None`.
    """
    num_tokens, depth = target_codes.shape
    rows = max(1, max_logits // (depth_transformer.config.codebook_size * depth))
    # One row is added that does not count. Every rank must enter the depth transformer in every step: distributed
    # training waits for its gradients.
    num_chunks = 1
    if not (output_logits or torch.compiler.is_compiling()):
        num_chunks = largest_of_ranks(-(-(num_tokens + 1) // rows), depth_transformer)
    missing = max(num_tokens + 1, num_chunks) - num_tokens
    visual_hidden = nn.functional.pad(visual_hidden, (0, 0, 0, missing))
    target_codes = nn.functional.pad(target_codes, (0, 0, 0, missing), value=-100)

    def run(hidden: torch.Tensor, codes: torch.Tensor, apply_head: bool = True) -> torch.Tensor:
        # rows that do not count have the code -100, which has no embedding
        embeddings = quantizer.code_embeddings(codes.clamp(min=0))  # (m, D, C)
        return depth_transformer(hidden, embeddings, apply_head=apply_head)  # (m, D, K or W)

    def sum_of_losses(logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        codes = codes.to(logits.device).flatten()
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), codes, reduction="sum")

    if num_chunks == 1:
        logits = run(visual_hidden, target_codes)
        return sum_of_losses(logits, target_codes), logits[:num_tokens] if output_logits else None
    # Chunks of nearly equal size, none of them empty: sharded ranks need the same number of chunks.
    size, larger = divmod(len(target_codes), num_chunks)
    sizes = [size + 1] * larger + [size] * (num_chunks - larger)
    chunks = list(zip(visual_hidden.split(sizes), target_codes.split(sizes), strict=True))
    head = depth_transformer.code_head
    # quantized weights are tensor subclasses, which have this method
    is_plain = type(head) is nn.Linear and not (hasattr(head.weight, "__tensor_flatten__") or is_sharded(head))
    if torch.is_grad_enabled() and is_plain:
        recompute = depth_transformer.gradient_checkpointing and depth_transformer.training
        run_chunk = functools.partial(checkpoint, run, use_reentrant=False) if recompute else run
        states = [run_chunk(*chunk, apply_head=False).flatten(0, 1) for chunk in chunks]
        codes = target_codes.to(head.weight.device).flatten()
        return linear_cross_entropy(states, head.weight, head.bias, codes), None

    # Without gradients, or with a head that must be called because it has an adapter or is quantized or sharded. The
    # chunks always run again here: otherwise autograd would keep the logits of all of them.
    def run_and_sum(hidden: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return sum_of_losses(run(hidden, codes), codes)

    losses = [checkpoint(run_and_sum, *chunk, use_reentrant=False) for chunk in chunks]
    return functools.reduce(torch.add, losses), None


def contrastive_loss(
    loss_type: str,
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    across_ranks: bool,
) -> torch.Tensor:
    """
    Computes the loss over all image-text pairs; the n-th image and the n-th text are the true pairs.

    Args:
        loss_type (`str`): `"sigmoid"` (Zhai et al., 2023, eq. 1) or `"softmax"`, without bias (Radford et al., 2021,
            figure 3).
        image_embeds (`torch.Tensor` of shape `(N, C)`): normalised embeddings of the images.
        text_embeds (`torch.Tensor` of shape `(N, C)`): normalised embeddings of the texts.
        logit_scale (`torch.Tensor` of shape `(1,)`): logarithm of the scale of the similarities.
        logit_bias (`torch.Tensor` of shape `(1,)`): bias of the similarities.
        across_ranks (`bool`): pair the images and texts of all ranks. Then all ranks must call together, with the same
            number of images. The mean of the ranks' losses and gradients is that of the whole batch.

    Returns:
        The loss, `()`, in float32.

    Raises:
        ValueError: if the numbers of texts and images differ.
    """
    if len(image_embeds) != len(text_embeds):
        raise ValueError(
            f"every image needs one text for the contrastive loss, got {len(image_embeds)} images and "
            f"{len(text_embeds)} texts."
        )
    first = 0
    texts = text_embeds
    images = image_embeds
    if across_ranks and is_distributed():
        # imported here, because a build of torch without distributed packages lacks it; unlike
        # `torch.distributed.all_gather`, it passes gradients back to the rank of each embedding
        from torch.distributed.nn.functional import all_gather

        first = torch.distributed.get_rank() * len(image_embeds)
        texts = torch.cat(all_gather(text_embeds))
        # the sigmoid loss reads rows of images only, and each rank has those of its images
        images = torch.cat(all_gather(image_embeds)) if loss_type == "softmax" else images
    logits_per_image = image_embeds @ texts.T * logit_scale.exp()  # (N, all texts)
    true_pairs = torch.arange(len(image_embeds), device=image_embeds.device) + first
    if loss_type == "sigmoid":
        logits = (logits_per_image + logit_bias).float()
        signs = torch.full_like(logits, -1).scatter(1, true_pairs[:, None], 1)
        return -nn.functional.logsigmoid(signs * logits).sum() / len(image_embeds)
    logits_per_text = text_embeds @ images.T * logit_scale.exp()
    image_loss = nn.functional.cross_entropy(logits_per_image.float(), true_pairs)
    text_loss = nn.functional.cross_entropy(logits_per_text.float(), true_pairs)
    return (image_loss + text_loss) / 2


__all__ = ["code_loss", "contrastive_loss", "linear_cross_entropy"]

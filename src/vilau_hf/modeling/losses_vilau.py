# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses: over codes, whose logits never exist all at once, and over pairs of images and texts."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .distributed_vilau import is_distributed, is_sharded, largest_of_ranks


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are worked out beside the loss: no logits are kept, and none computed a second time."""

    @staticmethod
    def forward(ctx, weight, bias, targets, *parts):
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        weight_grad, bias_grad = (
            torch.zeros_like(parameter, dtype=torch.float32) if needed else None
            for parameter, needed in zip((weight, bias), ctx.needs_input_grad, strict=False)
        )
        part_grads, loss = [], weight.new_zeros((), dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            head, offset = weight.to(dtype), bias.to(dtype)
            for part, target in zip(parts, targets.split([len(part) for part in parts]), strict=True):
                states = part.to(dtype)
                scores = nn.functional.linear(states, head, offset).float()  # (m, K), from here on changed in place
                counts, target = (target != -100)[:, None], target.clamp(min=0)[:, None]
                largest, truth = scores.amax(-1, keepdim=True), scores.gather(1, target)
                total = scores.sub_(largest).exp_().sum(-1, keepdim=True)
                loss += ((total.log() + largest - truth) * counts).sum()
                # the derivative of -log softmax: probabilities, minus one at the target
                scores.div_(total).scatter_add_(1, target, torch.full_like(truth, -1))
                grad = scores.mul_(counts).to(dtype)
                part_grads.append((grad @ head).to(part.dtype))
                if bias_grad is not None:
                    bias_grad += grad.sum(0, dtype=torch.float32)
                if weight_grad is not None and dtype == torch.float32:
                    weight_grad.addmm_(grad.T, states)
                elif weight_grad is not None:
                    weight_grad += grad.T @ states
                del scores, grad  # before the next part's are there
        ctx.parameter_dtypes = weight.dtype, bias.dtype
        ctx.save_for_backward(weight_grad, bias_grad, *part_grads)
        return loss

    @staticmethod
    def backward(ctx, scale):
        weight_grad, bias_grad, *part_grads = ctx.saved_tensors
        weight_grad, bias_grad = (
            None if grad is None else (grad * scale).to(dtype)
            for grad, dtype in zip((weight_grad, bias_grad), ctx.parameter_dtypes, strict=True)
        )
        return weight_grad, bias_grad, None, *((grad * scale).to(grad.dtype) for grad in part_grads)


def linear_cross_entropy(
    parts: list[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor, targets: torch.LongTensor
) -> torch.Tensor:
    """
    Summed cross-entropy of `parts @ weight.T + bias`. The logits of one part exist at a time, and not twice: the
    gradients are computed with the loss.

    Args:
        parts (`list[torch.Tensor]` of shapes `(m, W)`): inputs of the head, in order.
        weight (`torch.Tensor` of shape `(K, W)`), bias (`torch.Tensor` of shape `(K,)`): of the head.
        targets (`torch.LongTensor` of shape `(M,)`): in `[0, K)`, or -100 where nothing counts; M is the sum of all m.

    Returns:
        `torch.Tensor` of shape `()`, float32; under autocast the head computes in its dtype.
    """
    return _LinearCrossEntropy.apply(weight, bias, targets, *parts)


def code_loss(
    depth_transformer,
    quantizer,
    visual_hidden: torch.Tensor,
    target_codes: torch.LongTensor,
    max_logits: int,
    output_logits: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Summed cross-entropy over codes (VILA-U, eq. 7). Where there are more than `max_logits` logits, the depth
    transformer runs over one part of the visual tokens after the other, keeps nothing but what its head reads, and
    runs over each part again in the backward pass.

    Args:
        depth_transformer ([`VilaUDepthTransformer`]).
        quantizer ([`VilaUResidualQuantizer`]): gives the embeddings of the codes.
        visual_hidden (`torch.Tensor` of shape `(M, H)`): hidden state before each visual token; M may be 0.
        target_codes (`torch.LongTensor` of shape `(M, D)`): its codes.
        max_logits (`int`): logits that may exist at once.
        output_logits (`bool`, *optional*, defaults to `False`): return all of them nevertheless.

    Returns:
        The loss, `()`, and the logits `(M, D, K)` or `None`.
    """
    num_tokens, depth = target_codes.shape
    rows = max(1, max_logits // (depth_transformer.config.codebook_size * depth))
    # one row more, which does not count: every rank and step must enter the depth transformer, or distributed
    # training waits for ever
    count = 1
    if not (output_logits or torch.compiler.is_compiling()):
        count = largest_of_ranks(-(-(num_tokens + 1) // rows), depth_transformer)
    missing = max(num_tokens + 1, count) - num_tokens
    visual_hidden = nn.functional.pad(visual_hidden, (0, 0, 0, missing))
    target_codes = nn.functional.pad(target_codes, (0, 0, 0, missing), value=-100)

    def run(hidden, codes, apply_head=True):
        embeddings = quantizer.code_embeddings(codes.clamp(min=0))  # (m, D, C)
        return depth_transformer(hidden, embeddings, apply_head=apply_head)  # (m, D, K or W)

    def loss_of(logits, codes):
        codes = codes.to(logits.device).flatten()
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), codes, reduction="sum")

    if count == 1:
        logits = run(visual_hidden, target_codes)
        return loss_of(logits, target_codes), logits[:num_tokens] if output_logits else None
    size, larger = divmod(len(target_codes), count)
    sizes = [size + 1] * larger + [size] * (count - larger)
    parts = list(zip(visual_hidden.split(sizes), target_codes.split(sizes), strict=True))
    head = depth_transformer.code_head
    is_plain = type(head) is nn.Linear and not (hasattr(head.weight, "__tensor_flatten__") or is_sharded(head))
    if torch.is_grad_enabled() and is_plain:
        states = [checkpoint(run, *part, False, use_reentrant=False).flatten(0, 1) for part in parts]
        codes = target_codes.to(head.weight.device).flatten()
        return linear_cross_entropy(states, head.weight, head.bias, codes), None
    # without gradients, or the head's weight is not at hand as such: an adapter, quantized, sharded
    losses = [checkpoint(lambda *part: loss_of(run(*part), part[1]), *part, use_reentrant=False) for part in parts]
    return sum(losses), None


def contrastive_loss(
    loss_type: str,
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    across_ranks: bool,
) -> torch.Tensor:
    """
    Loss over all image-text pairs, of which the n-th image with the n-th text are the true ones.

    Args:
        loss_type (`str`): `"sigmoid"` (Zhai et al., 2023, eq. 1) or `"softmax"`, without bias (Radford et al., 2021,
            figure 3).
        image_embeds, text_embeds (`torch.Tensor` of shape `(N, C)`): normalised embeddings.
        logit_scale, logit_bias (`torch.Tensor` of shape `(1,)`): logarithm of the similarities' scale, and their bias.
        across_ranks (`bool`): whether images and texts of all ranks make up the pairs. Every rank has to call then,
            with as many images; the mean of the ranks' losses, and of their gradients, is that of the whole batch.

    Returns:
        The loss, `()`, in float32.

    Raises:
        ValueError: if there are not as many texts as images.
    """
    if len(image_embeds) != len(text_embeds):
        raise ValueError(
            f"every image needs one text for the contrastive loss, got {len(image_embeds)} images and "
            f"{len(text_embeds)} texts."
        )
    first, texts, images = 0, text_embeds, image_embeds
    if across_ranks and is_distributed():
        from torch.distributed.nn.functional import all_gather  # not there in every build of torch

        first = torch.distributed.get_rank() * len(image_embeds)
        texts = torch.cat(all_gather(text_embeds))
        images = torch.cat(all_gather(image_embeds)) if loss_type == "softmax" else images
    logits_per_image = image_embeds @ texts.T * logit_scale.exp()  # (N, all pairs)
    own = torch.arange(len(image_embeds), device=image_embeds.device) + first
    if loss_type == "sigmoid":
        logits = (logits_per_image + logit_bias).float()
        signs = torch.full_like(logits, -1).scatter(1, own[:, None], 1)
        return -nn.functional.logsigmoid(signs * logits).sum() / len(image_embeds)
    logits_per_text = text_embeds @ images.T * logit_scale.exp()
    losses = [nn.functional.cross_entropy(logits.float(), own) for logits in (logits_per_image, logits_per_text)]
    return sum(losses) / 2


__all__ = ["code_loss", "contrastive_loss", "linear_cross_entropy"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Log-probabilities of given text and codes, in one teacher-forced pass."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from .argument_checks_vilau import AttentionMask, FilledTensor, IntegerTensor, TokenIds, check_arguments
from .configuration_vilau import VilaUConfig
from .generation_branches_vilau import BranchPrompt
from .generation_checks_vilau import check_alone, check_context
from .generation_prompts_vilau import check_image_inputs, check_vocabulary, unconditional_ids
from .generation_sampling_vilau import Guidance
from .generation_settings_vilau import VISUAL_GENERATION_DEFAULTS


@dataclass
class VilaUScoreOutput(ModelOutput):
    r"""
    Log-probabilities that `score` returns, in float32.

    Args:
        log_probs (`torch.Tensor` of shape `(B,)`): sum over all labelled positions of a row.
        text_log_probs (`torch.Tensor` of shape `(B, T)`): log-probabilities of text tokens, 0 at other
            positions.
        code_log_probs (`torch.Tensor` of shape `(B, T, D)`): log-probabilities of codes, 0 at positions
            without a labelled visual token.
    """

    log_probs: torch.Tensor | None = None
    text_log_probs: torch.Tensor | None = None
    code_log_probs: torch.Tensor | None = None


class _LabelledSpans:
    """
    Finds the spans of labelled visual tokens.

    The attributes `token_rows`, `positions` and `indices` have shape `(M,)`. They hold the row of each token, its
    position in its span, and the index of that span. `rows` and `firsts` have one entry for each span: its row, and
    the column of its first visual token. `markers` are the ids of start markers.

    Args:
        config ([`VilaUConfig`]): configuration of the model.
        input_ids (`torch.Tensor` of shape `(B, T)`): ids.
        is_labelled (`torch.Tensor` of shape `(B, T)`, bool): where visual tokens are labelled.

    Raises:
        ValueError: if a span does not follow a start marker.
    """

    def __init__(self, config: VilaUConfig, input_ids: torch.Tensor, is_labelled: torch.Tensor) -> None:
        is_visual = config.is_visual(input_ids)
        before = torch.nn.functional.pad(input_ids[:, :-1], (1, 0), value=-1)  # ids are never negative
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        # A span begins where the id differs from the one before; `cummax` carries its column to all its tokens.
        firsts = columns.where(is_visual & (input_ids != before), 0).cummax(1).values  # (B, T)
        self.token_rows, token_columns = is_labelled.nonzero(as_tuple=True)
        firsts = firsts[self.token_rows, token_columns]
        self.positions = token_columns - firsts
        spans, self.indices = torch.stack([self.token_rows, firsts], 1).unique(dim=0, return_inverse=True)
        self.rows, self.firsts = spans.unbind(1)
        self.num_positions = int(self.positions.max()) + 1
        self.markers = input_ids.new_tensor([config.image_start_token_id, config.video_start_token_id])
        is_marked = torch.isin(before[self.rows, self.firsts], self.markers)
        if not bool(is_marked.all()):
            raise ValueError(
                f"{int((~is_marked).sum())} of {len(is_marked)} visual spans in `labels` begin without a start "
                "marker: guidance needs one in `input_ids` before each."
            )


class VilaUScoringMixin:
    """Adds `score` to a model class."""

    # Attributes of the class that has this mixin: a `VilaUConfig`, whose nested configurations are annotated as
    # dictionaries too, and a `VilaUModel` with its heads, whose module imports this one.
    config: Any
    generation_config: GenerationConfig
    max_code_logits: int
    model: Any
    lm_head: Any
    depth_transformer: Any

    def score(
        self,
        input_ids: TokenIds,
        labels: TokenIds,
        attention_mask: AttentionMask | None = None,
        pixel_values: FilledTensor | None = None,
        pixel_values_videos: FilledTensor | None = None,
        codes: IntegerTensor | None = None,
        visual_codes: IntegerTensor | None = None,
        guidance_scale: float | list | tuple | torch.Tensor = 1.0,
        image_guidance_scale: float | None = None,
        negative_prompt_ids: TokenIds | None = None,
        negative_prompt_attention_mask: AttentionMask | None = None,
        image_prompt_ids: TokenIds | None = None,
        image_prompt_attention_mask: AttentionMask | None = None,
    ) -> VilaUScoreOutput:
        """
        Computes log-probabilities of labelled text and codes, with gradients.

        They are the log-probabilities with which `generate` samples at temperature 1 and without truncation.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): prompts and answers, as for `forward`; padded on either
                side.
            labels (`torch.LongTensor` of shape `(B, T)`): -100 at positions that are not scored, elsewhere
                equal to `input_ids`. All or only some visual tokens of a span may be labelled.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for positions to attend to.
            pixel_values (`torch.Tensor`, *optional*): as for `forward`.
            pixel_values_videos (`torch.Tensor`, *optional*): as for `forward`.
            codes (`torch.LongTensor`, *optional*): as for `forward`.
            visual_codes (`torch.LongTensor` of shape `(B, T, D)`, *optional*): as for `forward`.
            guidance_scale (`float`, or a list or tensor of shape `(B,)` or `(1 or B, P)`, *optional*): strength of the
                guidance of codes, at least 1. The default 1 turns it off. One for each row, or one for each of the P
                positions of a span. Each additional branch needs one more pass.
            image_guidance_scale (`float`, *optional*): strength of the guidance by the images of the prompt,
                at least 1. It needs `image_prompt_ids`.
            negative_prompt_ids (`torch.LongTensor` of shape `(1 or B, Tn)`, *optional*): prompt of the unconditional
                branch; by default as for `generate`.
            negative_prompt_attention_mask (`torch.Tensor` of shape `(1 or B, Tn)`, *optional*): its mask.
            image_prompt_ids (`torch.LongTensor` of shape `(B, Ti)`, *optional*): for `image_guidance_scale`, the
                prompts without their text. Their placeholders are the first visual tokens of their row.
            image_prompt_attention_mask (`torch.Tensor` of shape `(B, Ti)`, *optional*): its mask.

        Raises:
            ValueError: for an argument of another type, ids outside of the vocabulary, or more positions than those of
                the language model. Also if visual tokens are labelled and not given, or a scale is out of range. Under
                guidance also
                if they follow no start marker, there is no unconditional prompt, or a shape does not fit.
        """
        check_arguments(VilaUScoringMixin.score, locals())
        if labels.shape != input_ids.shape:
            raise ValueError(
                f"`labels` must have the shape of `input_ids`, {tuple(input_ids.shape)}, got {tuple(labels.shape)}."
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` must have the shape of `input_ids`, {tuple(input_ids.shape)}, got "
                f"{tuple(attention_mask.shape)}."
            )
        check_vocabulary(
            self.config,
            input_ids=input_ids,
            labels=labels.masked_fill(labels == -100, 0),
            negative_prompt_ids=negative_prompt_ids,
            image_prompt_ids=image_prompt_ids,
        )
        check_context(self.config.text_config.max_position_embeddings, input_ids.shape[1], 0)
        guidance = Guidance(guidance_scale, image_guidance_scale)
        if visual_codes is not None:
            images = {"pixel_values": pixel_values, "pixel_values_videos": pixel_values_videos, "codes": codes}
            check_alone("visual_codes", images)
            check_image_inputs(self.model, input_ids, {"visual_codes": visual_codes})
            visual_codes = visual_codes.to(input_ids.device, torch.long)
        if visual_codes is None and not (pixel_values is None and pixel_values_videos is None and codes is None):
            visual_codes = self.model.get_visual_codes(input_ids, pixel_values, pixel_values_videos, codes)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self._hidden_states(input_ids, mask, visual_codes)[:, :-1]  # each predicts the position after it
        targets = labels[:, 1:]
        is_visual = self.config.is_visual(targets)
        text_log_probs = self._text_log_probs(hidden, targets, (targets != -100) & ~is_visual)

        code_depth = self.config.depth_config.code_depth
        code_log_probs = hidden.new_zeros(*targets.shape, code_depth, dtype=torch.float32)
        if bool(is_visual.any()):
            given_codes = self._check_codes_given(is_visual, visual_codes)
            branches = [hidden[is_visual]]  # (M, H)
            scale = None
            if guidance.num_branches > 1:
                spans = _LabelledSpans(self.config, input_ids, torch.nn.functional.pad(is_visual, (1, 0)))
                scale = self._scales(guidance, spans, len(input_ids))
                prompts = [self._negative_prompt(negative_prompt_ids, negative_prompt_attention_mask, input_ids)]
                if image_guidance_scale is not None:
                    image_prompt = self._image_prompt(
                        image_prompt_ids, image_prompt_attention_mask, spans, given_codes
                    )
                    prompts.insert(0, image_prompt)  # the order of branches in `Guidance.mix`
                branches += [self._branch_states(prompt, spans, input_ids, given_codes) for prompt in prompts]
            log_probs = self._code_log_probs(branches, given_codes[:, 1:][is_visual], guidance, scale)
            code_log_probs = code_log_probs.masked_scatter(is_visual[..., None], log_probs)
        code_log_probs = torch.nn.functional.pad(code_log_probs, (0, 0, 1, 0))  # nothing predicts the first position
        return VilaUScoreOutput(
            log_probs=text_log_probs.sum(-1) + code_log_probs.sum((-1, -2)),
            text_log_probs=text_log_probs,
            code_log_probs=code_log_probs,
        )

    def _hidden_states(
        self, input_ids: torch.Tensor, mask: torch.Tensor, visual_codes: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns the hidden states `(B, T, H)` of one pass."""
        return self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0),  # as in generation, where padding is on the left
            visual_codes=visual_codes,
            use_cache=False,
        ).last_hidden_state

    def _text_log_probs(self, hidden: torch.Tensor, targets: torch.Tensor, is_text: torch.Tensor) -> torch.Tensor:
        """Returns log-probabilities `(B, T)` of the `targets` `(B, T - 1)` that are text."""
        logits = self.lm_head(hidden[is_text]).float()  # only at labelled positions, since the vocabulary is large
        found = logits.log_softmax(-1).gather(-1, targets[is_text][:, None])[:, 0]
        log_probs = hidden.new_zeros(targets.shape, dtype=torch.float32).masked_scatter(is_text, found)
        return torch.nn.functional.pad(log_probs, (1, 0))

    @staticmethod
    def _check_codes_given(is_visual: torch.Tensor, visual_codes: torch.Tensor | None) -> torch.Tensor:
        """Returns `visual_codes` `(B, T, D)`, which must have codes at the labels `is_visual` `(B, T - 1)`."""
        is_missing = is_visual if visual_codes is None else is_visual & (visual_codes[:, 1:, 0] < 0)
        if visual_codes is None or bool(is_missing.any()):
            raise ValueError(
                f"`labels` name {int(is_missing.sum())} visual tokens for which no pixels or codes are given."
            )
        return visual_codes

    @staticmethod
    def _scales(guidance: Guidance, spans: _LabelledSpans, rows: int) -> torch.Tensor:
        """Returns the scales `(M, 1, 1)` of the labelled tokens."""
        num_scales = guidance.scale.shape[1] if guidance.scale.ndim == 2 else 1
        if 1 < num_scales < spans.num_positions:
            raise ValueError(
                f"`guidance_scale` must have 1 position, or at least the {spans.num_positions} positions of a "
                f"labelled span, got {num_scales}."
            )
        scale = guidance.expand(rows, rows, num_scales, spans.positions.device).scale
        return scale[spans.token_rows, spans.positions.clamp(max=num_scales - 1)][:, None, None]

    def _negative_prompt(
        self, ids: torch.Tensor | None, mask: torch.Tensor | None, input_ids: torch.Tensor
    ) -> BranchPrompt:
        """Makes the prompts of the unconditional branch, one for each row."""
        saved = {**VISUAL_GENERATION_DEFAULTS, **self.generation_config.to_dict()}
        ids = unconditional_ids(self.config, ids, saved["unconditional_prompt_ids"], input_ids)
        mask = self._prompt_mask("negative_prompt_attention_mask", mask, ids)
        return BranchPrompt(ids, mask).repeat(len(input_ids))

    def _image_prompt(
        self, ids: torch.Tensor | None, mask: torch.Tensor | None, spans: _LabelledSpans, visual_codes: torch.Tensor
    ) -> BranchPrompt:
        """Makes the prompts of the image-only branch, with the codes of the first visual tokens of their rows."""
        rows = len(visual_codes)
        if ids is None or ids.ndim != 2 or len(ids) != rows:
            raise ValueError(
                f"`image_guidance_scale` needs `image_prompt_ids` of shape ({rows}, T): each prompt with its images "
                f"and without its text, got {None if ids is None else tuple(ids.shape)}."
            )
        ids = ids.to(visual_codes.device)
        mask = self._prompt_mask("image_prompt_attention_mask", mask, ids)
        is_visual = self.config.is_visual(ids)
        is_given = visual_codes[..., 0] >= 0
        columns = torch.arange(visual_codes.shape[1], device=ids.device)
        # (B,), the column at which the first labelled span of a row begins, or T
        begins = columns.new_full((rows,), len(columns)).scatter_reduce(0, spans.rows, spans.firsts, "amin")
        most = (is_given & (columns < begins[:, None])).sum(1)  # (B,), visual tokens before that column
        if bool((is_visual.sum(1) > most).any()):
            raise ValueError(
                "`image_prompt_ids` may hold placeholders only for images before the first labelled span, at most "
                f"{most.tolist()} in each row, got {is_visual.sum(1).tolist()}."
            )
        is_first = is_given & (is_given.cumsum(1) <= is_visual.sum(1, keepdim=True))
        codes = visual_codes.new_full((*ids.shape, visual_codes.shape[-1]), -1)
        return BranchPrompt(ids, mask, codes.masked_scatter(is_visual[..., None], visual_codes[is_first]))

    @staticmethod
    def _prompt_mask(name: str, mask: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor:
        """Returns the mask of prompts `ids`, by default all ones. Errors mention the argument `name`."""
        if mask is None:
            return torch.ones_like(ids)
        if mask.shape != ids.shape:
            raise ValueError(
                f"`{name}` must have the shape of its prompts, {tuple(ids.shape)}, got {tuple(mask.shape)}."
            )
        return mask.to(ids.device)

    def _branch_states(
        self, prompt: BranchPrompt, spans: _LabelledSpans, input_ids: torch.Tensor, visual_codes: torch.Tensor
    ) -> torch.Tensor:
        """
        Returns the hidden states `(M, H)` before the labelled visual tokens in another branch.

        Each span is read alone after the `prompt` of its row, with its start marker, as in generation.
        """
        steps = torch.arange(spans.num_positions, device=input_ids.device)
        # Columns of the start marker and the visual tokens after it. Shorter spans read on, which is not used.
        columns = (spans.firsts[:, None] - 1 + steps).clamp(max=input_ids.shape[1] - 1)
        rows = spans.rows[:, None]
        prefix = input_ids.new_tensor(self.config.start_marker_prefix_ids).repeat(len(rows), 1)
        blank = visual_codes.new_full((*prefix.shape, visual_codes.shape[-1]), -1)
        prompt_codes = prompt.codes_or_empty(visual_codes.shape[-1]).to(visual_codes)
        ids = torch.cat([prompt.ids[spans.rows], prefix, input_ids[rows, columns]], 1)
        codes = torch.cat([prompt_codes[spans.rows], blank, visual_codes[rows, columns]], 1)
        check_context(self.config.text_config.max_position_embeddings, ids.shape[1], 0)
        seen = torch.ones_like(ids)
        length = prompt.mask.shape[1]
        seen[:, :length] = prompt.mask[spans.rows]
        # A prompt that ends with a start marker has prefix and marker already, so these are masked once.
        is_open = torch.isin(ids[:, length - 1], spans.markers)
        seen[:, length - 1 : length + prefix.shape[1]] *= ~is_open[:, None]
        hidden = self._hidden_states(ids, seen, codes)[:, -spans.num_positions :]
        return hidden[spans.indices, spans.positions]

    def _code_log_probs(
        self, branches: list[torch.Tensor], codes: torch.Tensor, guidance: Guidance, scale: torch.Tensor | None
    ) -> torch.Tensor:
        """
        Returns log-probabilities `(M, D)` of codes.

        The logits are computed in chunks of at most `max_code_logits` numbers. For a long video they would not fit
        into memory at once.

        Args:
            branches (`list[torch.Tensor]`): hidden states `(M, H)` of each branch.
            codes (`torch.Tensor` of shape `(M, D)`): the codes.
            guidance ([`Guidance`]): guidance that mixes the branches.
            scale (`torch.Tensor` of shape `(M, 1, 1)`, *optional*): scales of the guidance, `None` if there is one
                branch.
        """
        count = len(branches)
        found = []
        rows = max(1, self.max_code_logits // (count * self.config.depth_config.codebook_size * codes.shape[-1]))
        for begin in range(0, len(codes), rows):
            chunk = slice(begin, begin + rows)
            embeddings = self.model.vision_tower.quantizer.code_embeddings(codes[chunk]).repeat(count, 1, 1)
            states = torch.cat([states[chunk] for states in branches])
            logits = self.depth_transformer(states, embeddings).float()  # (count * m, D, K)
            if scale is not None:
                logits = guidance.mix(logits, scale[chunk])
            found.append(logits.log_softmax(-1).gather(-1, codes[chunk][..., None])[..., 0])
        return torch.cat(found)


__all__ = ["VilaUScoreOutput", "VilaUScoringMixin"]

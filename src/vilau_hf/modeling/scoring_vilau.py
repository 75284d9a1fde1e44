# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Log-probabilities of given text and codes, in one teacher-forced pass."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .generation_branches_vilau import BranchPrompt
from .generation_sampling_vilau import VISUAL_GENERATION_DEFAULTS, Guidance


@dataclass
class VilaUScoreOutput(ModelOutput):
    r"""
    log_probs (`torch.Tensor` of shape `(B,)`): of all that is labelled in a row.
    text_log_probs (`torch.Tensor` of shape `(B, T)`): of each token of text, 0 where none is labelled.
    code_log_probs (`torch.Tensor` of shape `(B, T, D)`): of each code, 0 where no visual token is labelled.
    """

    log_probs: torch.Tensor | None = None
    text_log_probs: torch.Tensor | None = None
    code_log_probs: torch.Tensor | None = None


class _LabelledSpans:
    """
    Where labelled visual tokens stand: for each of the M tokens its row, its position in its span and the span's
    index; for each of the S spans its row and the column of its first visual token, all of shape `(M,)` or `(S,)`.
    `markers` are the ids of start markers.
    """

    def __init__(self, config, input_ids: torch.LongTensor, is_labelled: torch.BoolTensor):
        is_visual = config.is_visual(input_ids)
        before = torch.nn.functional.pad(input_ids[:, :-1], (1, 0), value=-1)  # ids are never negative
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        firsts = columns.where(is_visual & (input_ids != before), 0).cummax(1).values  # (B, T)
        self.token_rows, token_columns = is_labelled.nonzero(as_tuple=True)
        firsts = firsts[self.token_rows, token_columns]
        self.positions = token_columns - firsts
        spans, self.indices = torch.stack([self.token_rows, firsts], 1).unique(dim=0, return_inverse=True)
        self.rows, self.firsts = spans.unbind(1)
        self.num_positions = int(self.positions.max()) + 1
        self.markers = input_ids.new_tensor([config.image_start_token_id, config.video_start_token_id])
        marked = torch.isin(before[self.rows, self.firsts], self.markers)
        if not bool(marked.all()):
            raise ValueError(
                f"{int((~marked).sum())} of the {len(marked)} visual spans that `labels` name begin without a start "
                "marker: guidance needs one in `input_ids` before each."
            )


class VilaUScoringMixin:
    """`score` of VILA-U; its class has `VilaUGenerationMixin` too."""

    def score(
        self,
        input_ids: torch.LongTensor,
        labels: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.LongTensor | None = None,
        visual_codes: torch.LongTensor | None = None,
        guidance_scale: float | list | torch.Tensor = 1.0,
        image_guidance_scale: float | None = None,
        negative_prompt_ids: torch.LongTensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
        image_prompt_ids: torch.LongTensor | None = None,
        image_prompt_attention_mask: torch.Tensor | None = None,
    ) -> VilaUScoreOutput:
        """
        Log-probabilities of what `labels` name, with gradients: at temperature 1 and without truncation those with
        which `generate` samples.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): prompts and answers, as for `forward`; padding may stand
                on either side.
            labels (`torch.LongTensor` of shape `(B, T)`): -100 where nothing is scored, else as `input_ids`; any
                visual tokens of a span may be labelled.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for positions to attend to.
            pixel_values, pixel_values_videos, codes, visual_codes (*optional*): as for `forward`.
            guidance_scale (`float`, or a list or tensor of shape `(B,)` or `(1 or B, P)`, *optional*, defaults to
                1.0): the scores of codes are those under guidance of this strength, at least 1, which turns it off.
                One for each row, or one for each of the P positions of a span. Each branch needs a pass more.
            image_guidance_scale (`float`, *optional*): at least 1: guidance against the prompt's images alone.
            negative_prompt_ids (`torch.LongTensor` of shape `(1 or B, Tn)`, *optional*): prompt of the unconditional
                branch; by default as for `generate`.
            negative_prompt_attention_mask (`torch.Tensor` of shape `(1 or B, Tn)`, *optional*): its mask.
            image_prompt_ids (`torch.LongTensor` of shape `(B, Ti)`, *optional*): for `image_guidance_scale`: the
                prompts without their text; their placeholders stand for the first visual tokens of their row.
            image_prompt_attention_mask (`torch.Tensor` of shape `(B, Ti)`, *optional*): its mask.

        Raises:
            ValueError: if visual tokens are labelled and not given; if, under guidance, they follow no start marker,
                a scale is out of range, or a scale, prompt or mask has another shape; if there is no unconditional
                prompt.
        """
        if labels.shape != input_ids.shape:
            raise ValueError(
                f"`labels` must have the shape of `input_ids`, {tuple(input_ids.shape)}, got {tuple(labels.shape)}."
            )
        guidance = Guidance(guidance_scale, image_guidance_scale)
        if visual_codes is None and not (pixel_values is None and pixel_values_videos is None and codes is None):
            visual_codes = self.model.get_visual_codes(input_ids, pixel_values, pixel_values_videos, codes)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self._hidden_states(input_ids, mask, visual_codes)[:, :-1]  # each predicts the position after it
        targets = labels[:, 1:]
        is_visual = self.config.is_visual(targets)
        text_log_probs = self._text_log_probs(hidden, targets, (targets != -100) & ~is_visual)

        depth = self.config.depth_config.code_depth
        code_log_probs = hidden.new_zeros(*targets.shape, depth, dtype=torch.float32)
        if bool(is_visual.any()):
            self._check_codes_given(is_visual, visual_codes)
            branches, scale = [hidden[is_visual]], None  # (M, H)
            if guidance.num_branches > 1:
                spans = _LabelledSpans(self.config, input_ids, torch.nn.functional.pad(is_visual, (1, 0)))
                scale = self._scales(guidance, spans, len(input_ids))
                prompts = [self._negative_prompt(negative_prompt_ids, negative_prompt_attention_mask, input_ids)]
                if image_guidance_scale is not None:
                    given = (image_prompt_ids, image_prompt_attention_mask)
                    prompts.insert(0, self._image_prompt(*given, spans, visual_codes))
                branches += [self._compared_states(prompt, spans, input_ids, visual_codes) for prompt in prompts]
            found = self._code_log_probs(branches, visual_codes[:, 1:][is_visual], guidance, scale)
            code_log_probs = code_log_probs.masked_scatter(is_visual[..., None], found)
        code_log_probs = torch.nn.functional.pad(code_log_probs, (0, 0, 1, 0))  # nothing predicts the first position
        return VilaUScoreOutput(
            log_probs=text_log_probs.sum(-1) + code_log_probs.sum((-1, -2)),
            text_log_probs=text_log_probs,
            code_log_probs=code_log_probs,
        )

    def _hidden_states(self, input_ids, mask, visual_codes) -> torch.Tensor:
        return self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0),
            visual_codes=visual_codes,
            use_cache=False,
        ).last_hidden_state

    def _text_log_probs(self, hidden, targets, is_text) -> torch.Tensor:
        """Log-probabilities `(B, T)` of the `targets` `(B, T - 1)` that are text."""
        logits = self.lm_head(hidden[is_text]).float()
        found = logits.log_softmax(-1).gather(-1, targets[is_text][:, None])[:, 0]
        log_probs = hidden.new_zeros(targets.shape, dtype=torch.float32).masked_scatter(is_text, found)
        return torch.nn.functional.pad(log_probs, (1, 0))

    @staticmethod
    def _check_codes_given(is_visual, visual_codes):
        missing = is_visual if visual_codes is None else is_visual & (visual_codes[:, 1:, 0] < 0)
        if bool(missing.any()):
            raise ValueError(
                f"`labels` name {int(missing.sum())} visual tokens for which no pixels or codes are given."
            )

    @staticmethod
    def _scales(guidance, spans, rows: int) -> torch.Tensor:
        """Scales `(M, 1, 1)` of the labelled tokens."""
        num_scales = guidance.scale.shape[1] if guidance.scale.ndim == 2 else 1
        if 1 < num_scales < spans.num_positions:
            raise ValueError(
                f"`guidance_scale` has {num_scales} positions, but labels go as far as position "
                f"{spans.num_positions} of a span."
            )
        guidance.prepare(rows, rows, num_scales, spans.positions.device)
        return guidance.scale[spans.token_rows, spans.positions.clamp(max=num_scales - 1)][:, None, None]

    def _negative_prompt(self, ids, mask, input_ids) -> BranchPrompt:
        saved = {**VISUAL_GENERATION_DEFAULTS, **self.generation_config.to_dict()}
        ids = self._unconditional_ids(ids, saved, input_ids)
        mask = self._prompt_mask("negative_prompt_attention_mask", mask, ids)
        codes = ids.new_full((*ids.shape, self.config.depth_config.code_depth), -1)
        return BranchPrompt(ids, mask, codes).repeat(len(input_ids))

    def _image_prompt(self, ids, mask, spans, visual_codes) -> BranchPrompt:
        """The prompts without their text, with the codes of their rows' first visual tokens."""
        rows = len(visual_codes)
        if ids is None or ids.ndim != 2 or len(ids) != rows:
            raise ValueError(
                f"`image_guidance_scale` needs `image_prompt_ids` of shape ({rows}, T), the prompts without their "
                f"text, got {None if ids is None else tuple(ids.shape)}."
            )
        ids = ids.to(visual_codes.device)
        mask = self._prompt_mask("image_prompt_attention_mask", mask, ids)
        is_visual = self.config.is_visual(ids)
        is_given = visual_codes[..., 0] >= 0
        columns = torch.arange(visual_codes.shape[1], device=ids.device)
        begins = columns.new_full((rows,), len(columns)).scatter_reduce(0, spans.rows, spans.firsts, "amin")
        most = (is_given & (columns < begins[:, None])).sum(1)  # (B,), visual tokens before what is labelled
        if bool((is_visual.sum(1) > most).any()):
            raise ValueError(
                "`image_prompt_ids` must hold placeholders of pictures before the labelled ones, at most "
                f"{most.tolist()} by row, got {is_visual.sum(1).tolist()}."
            )
        is_first = is_given & (is_given.cumsum(1) <= is_visual.sum(1, keepdim=True))
        codes = visual_codes.new_full((*ids.shape, visual_codes.shape[-1]), -1)
        return BranchPrompt(ids, mask, codes.masked_scatter(is_visual[..., None], visual_codes[is_first]))

    @staticmethod
    def _prompt_mask(name: str, mask, ids) -> torch.Tensor:
        if mask is None:
            return torch.ones_like(ids)
        if mask.shape != ids.shape:
            raise ValueError(
                f"`{name}` must have the shape of its prompts, {tuple(ids.shape)}, got {tuple(mask.shape)}."
            )
        return mask.to(ids.device)

    def _compared_states(self, prompt: BranchPrompt, spans, input_ids, visual_codes) -> torch.Tensor:
        """Hidden states `(M, H)` before the labelled visual tokens, were `prompt` all that came before their span."""
        steps = torch.arange(spans.num_positions, device=input_ids.device)
        columns = (spans.firsts[:, None] - 1 + steps).clamp(max=input_ids.shape[1] - 1)  # from the start marker on
        rows = spans.rows[:, None]
        prefix = input_ids.new_tensor(self.config.start_marker_prefix_ids).repeat(len(rows), 1)
        blank = visual_codes.new_full((*prefix.shape, visual_codes.shape[-1]), -1)
        ids = torch.cat([prompt.ids[spans.rows], prefix, input_ids[rows, columns]], 1)
        codes = torch.cat([prompt.visual_codes[spans.rows], blank, visual_codes[rows, columns]], 1)
        seen = torch.ones_like(ids)
        length = prompt.mask.shape[1]
        seen[:, :length] = prompt.mask[spans.rows]
        is_open = torch.isin(ids[:, length - 1], spans.markers)  # such a prompt has prefix and marker of its own
        seen[:, length - 1 : length + prefix.shape[1]] *= ~is_open[:, None]
        hidden = self._hidden_states(ids, seen, codes)[:, -spans.num_positions :]
        return hidden[spans.indices, spans.positions]

    def _code_log_probs(self, branches: list[torch.Tensor], codes, guidance, scale) -> torch.Tensor:
        """Log-probabilities `(M, D)`; the logits of a long video never exist all at once."""
        count, found = len(branches), []
        rows = max(1, self.max_code_logits // (count * self.config.depth_config.codebook_size * codes.shape[-1]))
        for begin in range(0, len(codes), rows):
            part = slice(begin, begin + rows)
            embeddings = self.model.vision_tower.quantizer.code_embeddings(codes[part]).repeat(count, 1, 1)
            states = torch.cat([states[part] for states in branches])
            logits = self.depth_transformer(states, embeddings).float()  # (count * m, D, K)
            logits = guidance.mix(logits, None if scale is None else scale[part])
            found.append(logits.log_softmax(-1).gather(-1, codes[part][..., None])[..., 0])
        return torch.cat(found)


__all__ = ["VilaUScoreOutput", "VilaUScoringMixin"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Log-probabilities of given text and codes, in one teacher-forced pass."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


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


def default_unconditional_ids(config, saved: list[int] | None) -> list[int]:
    """Ids of the prompt that guidance compares with: the `saved` ones, or the bos token alone."""
    if saved is not None:
        return saved
    if config.text_config.bos_token_id is None:
        raise ValueError(
            "`guidance_scale` above 1 needs an unconditional prompt: pass `negative_prompt_ids`, set "
            "`generation_config.unconditional_prompt_ids` (the processor's `unconditional_prompt_ids()`), or use "
            "`guidance_scale=1`."
        )
    return [config.text_config.bos_token_id]


class VilaUScoringMixin:
    """`score` of VILA-U."""

    def score(
        self,
        input_ids: torch.LongTensor,
        labels: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.LongTensor | None = None,
        visual_codes: torch.LongTensor | None = None,
        guidance_scale: float = 1.0,
        negative_prompt_ids: torch.LongTensor | None = None,
    ) -> VilaUScoreOutput:
        """
        Log-probabilities of what `labels` name, with gradients: at temperature 1 and without truncation those with
        which `generate` samples.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): prompts and answers, as for `forward`; padding may stand
                on either side.
            labels (`torch.LongTensor` of shape `(B, T)`): -100 where nothing is scored, else as `input_ids`.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for positions to attend to.
            pixel_values, pixel_values_videos, codes, visual_codes (*optional*): as for `forward`.
            guidance_scale (`float`, *optional*, defaults to 1.0): the scores of codes are those under guidance of this
                strength, which needs a second pass.
            negative_prompt_ids (`torch.LongTensor` of shape `(1, Tn)`, *optional*): prompt of the unconditional
                stream; by default as for `generate`.

        Raises:
            ValueError: if visual tokens are labelled and not given, or there is no unconditional prompt.
        """
        if labels.shape != input_ids.shape:
            raise ValueError(
                f"`labels` must have the shape of `input_ids`, {tuple(input_ids.shape)}, got {tuple(labels.shape)}."
            )
        if visual_codes is None and not (pixel_values is None and pixel_values_videos is None and codes is None):
            visual_codes = self.model.get_visual_codes(input_ids, pixel_values, pixel_values_videos, codes)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self._hidden_states(input_ids, mask, visual_codes)[:, :-1]  # each predicts the position after it
        targets = labels[:, 1:]
        is_visual = (targets == self.config.image_token_id) | (targets == self.config.video_token_id)
        is_text = (targets != -100) & ~is_visual
        if visual_codes is None and bool(is_visual.any()):
            raise ValueError(f"`labels` name {int(is_visual.sum())} visual tokens, but no pixels or codes are given.")

        text_log_probs = hidden.new_zeros(labels.shape, dtype=torch.float32)
        logits = self.lm_head(hidden[is_text]).float()
        found = logits.log_softmax(-1).gather(-1, targets[is_text][:, None])[:, 0]
        text_log_probs[:, 1:] = text_log_probs[:, 1:].masked_scatter(is_text, found)

        depth = self.config.depth_config.code_depth
        code_log_probs = hidden.new_zeros(*labels.shape, depth, dtype=torch.float32)
        if visual_codes is not None:
            states, target_codes = hidden[is_visual], visual_codes[:, 1:][is_visual]  # (M, H), (M, D)
            compared = None
            if guidance_scale != 1:
                compared = self._unconditional_states(input_ids, visual_codes, is_visual, negative_prompt_ids)
            found = self._code_log_probs(states, compared, target_codes, guidance_scale)
            code_log_probs[:, 1:] = code_log_probs[:, 1:].masked_scatter(is_visual[..., None], found)
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

    def _unconditional_states(self, input_ids, visual_codes, is_visual, negative_prompt_ids) -> torch.Tensor:
        """Hidden states `(M, H)` before the labelled visual tokens, of spans that follow the unconditional prompt."""
        if negative_prompt_ids is None:
            saved = self.generation_config.to_dict().get("unconditional_prompt_ids")
            negative_prompt_ids = input_ids.new_tensor([default_unconditional_ids(self.config, saved)])
        begins = is_visual & ~torch.nn.functional.pad(is_visual[:, :-1], (1, 0))  # at the start markers
        spans = []
        for row, begin in begins.nonzero().tolist():
            length = int(is_visual[row, begin:].long().cumprod(0).sum())
            spans.append((row, begin, length))
        negative = torch.cat([negative_prompt_ids[0], input_ids.new_tensor(self.config.start_marker_prefix_ids)])
        longest = max(length for *_, length in spans)
        width = len(negative) + longest  # prompt, start marker and all visual tokens but the last
        ids = input_ids.new_zeros(len(spans), width)
        mask = torch.zeros_like(ids)
        codes = input_ids.new_full((len(spans), width, visual_codes.shape[-1]), -1)
        for index, (row, begin, length) in enumerate(spans):
            end = len(negative) + length
            ids[index, :end] = torch.cat([negative, input_ids[row, begin : begin + length]])
            codes[index, len(negative) + 1 : end] = visual_codes[row, begin + 1 : begin + length]
            mask[index, :end] = 1
        hidden = self._hidden_states(ids, mask, codes)
        return torch.cat([hidden[index, len(negative) : len(negative) + span[2]] for index, span in enumerate(spans)])

    def _code_log_probs(self, states, compared, codes, scale) -> torch.Tensor:
        """Log-probabilities `(M, D)`; the logits of a long video never exist all at once."""
        rows = max(1, self.max_code_logits // (self.config.depth_config.codebook_size * codes.shape[-1]))
        found = [codes.new_zeros(0, codes.shape[-1], dtype=torch.float32)]
        for begin in range(0, len(codes), rows):
            part = slice(begin, begin + rows)
            embeddings = self.model.vision_tower.quantizer.code_embeddings(codes[part])
            logits = self.depth_transformer(states[part], embeddings).float()  # (m, D, K)
            if compared is not None:
                unconditional = self.depth_transformer(compared[part], embeddings).float()
                logits = unconditional + scale * (logits - unconditional)
            found.append(logits.log_softmax(-1).gather(-1, codes[part][..., None])[..., 0])
        return torch.cat(found)


__all__ = ["VilaUScoreOutput", "VilaUScoringMixin"]

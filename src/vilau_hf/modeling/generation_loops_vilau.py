# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Loops that generate one visual span for each row, or text and visual spans in turn."""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from .argument_checks_vilau import is_integer_tensor
from .generation_depth_vilau import DecodedPosition, check_choices, count_invalid
from .generation_positions_vilau import PositionDecoder
from .generation_sampling_vilau import sample_categorical
from .generation_settings_vilau import VisualGenerationSettings
from .generation_spans_vilau import open_span
from .outputs_vilau import VisualSpan


def is_custom(criteria: StoppingCriteriaList) -> bool:
    """Returns whether there are stopping criteria that may end a visual span at any of its positions."""
    return any(not isinstance(criterion, (EosTokenCriteria, MaxLengthCriteria)) for criterion in criteria)


@torch.no_grad()
def generate_span(
    position_decoder: PositionDecoder,
    positions: range,
    placeholder: int,
    criteria: StoppingCriteriaList,
    streamer: Any,
) -> DecodedPosition:
    """
    Generates the visual tokens of all rows.

    Nothing in the loop waits for the device, unless there are custom stopping criteria or decoding is parallel.

    Args:
        position_decoder ([`PositionDecoder`]): decoder of a position.
        positions (`range`): indices of the positions in the span.
        placeholder (`int`): id that stopping criteria see at visual positions.
        criteria (`StoppingCriteriaList`): may stop rows.
        streamer (*optional*): its `put_visual(codes)` receives the codes of each position and may return codes that
            replace them.

    Returns:
        The positions, each field stacked in dimension 1. After the position where a row is stopped, its codes are -1
        and its scores and log-probabilities NaN.

    Raises:
        ValueError: if logits allow no choice, or `put_visual` returns codes of another shape, type or range.
    """
    branches = position_decoder.branches
    decoded: list[DecodedPosition] = []
    is_generated: list[torch.Tensor] = []
    hidden = branches.read_prompts()
    ids = branches.conditional_prompt.ids
    has_criteria = is_custom(criteria)
    before = branches.conditional_codes
    span = open_span(position_decoder, hidden, positions.start, len(positions), earlier_codes=before)
    running = torch.ones(branches.rows, 1, dtype=torch.bool, device=ids.device)
    codebook_size = position_decoder.model.config.vision_config.codebook_size
    num_outside = torch.zeros((), dtype=torch.long, device=ids.device)
    for _ in positions:
        step = span.next()
        if streamer is not None:
            changed = streamer.put_visual(step.codes.where(running, -1))
            if changed is not None:
                _check_replacement(changed, step.codes)
                wanted = changed.to(step.codes).where(running, step.codes)
                # Counted, and refused after the loop: to look at the codes here would wait for the device.
                used = wanted.clamp(0, codebook_size - 1)
                num_outside += (used != wanted).sum()
                step = step.replace_codes(used)
                span.replace(step.codes)
        decoded.append(step)
        is_generated.append(running)
        # Ids are only built for custom criteria: end tokens and lengths cannot stop a span.
        if has_criteria:
            ids = torch.cat([ids, ids.new_full((len(ids), 1), placeholder)], 1)
            running = running & ~criteria(ids, None)[:, None]
            if not bool(running.any()):
                break
    check_choices(count_invalid(decoded, torch.cat(is_generated, 1)))
    if streamer is not None and bool(num_outside):
        raise ValueError(
            f"`streamer`: codes of `put_visual` must be in [0, {codebook_size}), got {int(num_outside)} others."
        )
    if streamer is not None:
        streamer.end()
    return _stack(decoded, torch.cat(is_generated, 1) if has_criteria else None, len(positions))


def _check_replacement(changed: Any, codes: torch.Tensor) -> None:
    """Raises a `ValueError` unless `changed` can replace `codes` `(rows, D)`."""
    is_tensor = isinstance(changed, torch.Tensor)
    if not is_tensor or changed.shape != codes.shape or not is_integer_tensor(changed):
        given = f"{changed.dtype} of shape {tuple(changed.shape)}" if is_tensor else type(changed).__name__
        raise ValueError(
            f"`streamer`: `put_visual` must return None, or integer codes of shape {tuple(codes.shape)}, got {given}."
        )


def _stack(decoded: list[DecodedPosition], is_generated: torch.Tensor | None, length: int) -> DecodedPosition:
    """
    Stacks the fields of decoded positions in dimension 1.

    Args:
        decoded (`list[DecodedPosition]`): n positions.
        is_generated (`torch.Tensor` of shape `(rows, n)`, bool, *optional*): where rows were not stopped, by default
            everywhere.
        length (`int`): number of positions of the result.
    """

    def stacked(tensors: list[torch.Tensor], filling: float) -> torch.Tensor:
        tensor = torch.stack(tensors, 1)
        if is_generated is None:
            return tensor
        tensor = tensor.where(is_generated.view(*is_generated.shape, *[1] * (tensor.ndim - 2)), filling)
        missing = tensor.new_full((len(tensor), length - len(decoded), *tensor.shape[2:]), filling)
        return torch.cat([tensor, missing], 1)

    def optional(name: str) -> torch.Tensor | None:
        tensors = [getattr(each, name) for each in decoded]
        return None if tensors[0] is None else stacked(tensors, float("nan"))

    return DecodedPosition(
        codes=stacked([each.codes for each in decoded], -1),
        scores=optional("scores"),
        log_probs=optional("log_probs"),
        conditional_log_probs=optional("conditional_log_probs"),
    )


@dataclass
class _Row:
    """
    State of one row in interleaved mode.

    Args:
        num_remaining (`int`): visual tokens that its open span still needs, 0 outside of a span.
        needs_end (`bool`): whether the next id is the end marker.
        done (`bool`): whether stopping criteria stopped the row.
        spans (`list[VisualSpan]`): its spans so far.
    """

    num_remaining: int = 0
    needs_end: bool = False
    done: bool = False
    spans: list[VisualSpan] = field(default_factory=list)


class InterleavedGenerator:
    """
    Generates text and visual spans in turn.

    A row opens a span with a start marker. Then it generates exactly the visual tokens of an image or a video, and the
    end marker. While all rows are inside a span, no text logits are computed and nothing waits for the device.

    Args:
        position_decoder ([`PositionDecoder`]): decoder of a position.
        settings ([`VisualGenerationSettings`]): settings of the call.
        logits_processor, stopping_criteria, generation_config: as transformers' `generate` prepares them.
        streamer (*optional*): its `put(ids)` receives text. If it has `put_visual(codes)`, this receives
            visual tokens.
    """

    def __init__(
        self,
        position_decoder: PositionDecoder,
        settings: VisualGenerationSettings,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        streamer: Any,
    ) -> None:
        self.position_decoder = position_decoder
        self.settings = settings
        self.model = position_decoder.model
        self.branches = position_decoder.branches
        self.decoder = position_decoder.decoder
        self.logits_processor = logits_processor
        self.stopping_criteria = stopping_criteria
        self.do_sample = generation_config.do_sample
        self.max_length = generation_config.max_length
        self.streamer = streamer
        self.streams_codes = hasattr(streamer, "put_visual")
        config = self.model.config
        self.pad = config.text_config.pad_token_id or 0
        num_tokens = config.vision_config.num_visual_tokens
        self.kinds = {
            config.image_start_token_id: ("image", num_tokens),
            config.video_start_token_id: ("video", num_tokens * settings.num_frames),
        }
        self.placeholders = {"image": config.image_token_id, "video": config.video_token_id}
        self.ends = {"image": config.image_end_token_id, "video": config.video_end_token_id}
        self.rows = [_Row() for _ in range(self.branches.rows)]
        self.ids = self.branches.conditional_prompt.ids  # (rows, T)
        self.codes = self.branches.conditional_codes  # (rows, T, D)
        self.num_invalid = torch.zeros((), dtype=torch.long, device=self.ids.device)
        self.num_invalid_texts = torch.zeros_like(self.num_invalid)
        # log-probabilities of codes `(rows, T, D)`, guided and not, if they are asked for
        self.log_probs = [self._zeros(self.ids.shape[1]) for _ in range(2 * settings.output_log_probs)]

    @torch.no_grad()
    def generate(self) -> list[list[VisualSpan]]:
        """Returns the spans of each row; `ids`, `codes` and `log_probs` then hold all positions."""
        hidden = self.branches.read_prompts()
        for row, last in zip(self.rows, self.ids[:, -1].tolist(), strict=True):
            self._open_span(row, last, self.ids.shape[1])
        while not all(row.done for row in self.rows):
            live = [row for row in self.rows if not row.done]
            room = self.max_length - self.ids.shape[1]
            if room > 0 and all(row.num_remaining for row in live):
                # Custom criteria may stop a row at any position, so they are asked after each.
                custom = is_custom(self.stopping_criteria)
                count = 1 if custom else min(room, *(row.num_remaining for row in live))
                hidden = self._generate_visual(hidden, count)
            elif room > 0:
                hidden = self._generate_mixed(hidden)
            self._apply_criteria()
        check_choices(self.num_invalid)
        check_choices(self.num_invalid_texts, "text token", "`logits_processor`")
        if self.streamer is not None:
            self.streamer.end()
        return [self._finished_spans(index) for index in range(len(self.rows))]

    def _open_span(self, row: _Row, token: int, begin: int) -> None:
        """Opens a span that begins at index `begin` if `token` is a start marker."""
        if token in self.kinds and not row.done:
            kind, row.num_remaining = self.kinds[token]
            row.spans.append(VisualSpan(kind, begin))

    def _advance_span(self, row: _Row, count: int) -> None:
        row.num_remaining -= count
        row.spans[-1].num_tokens += count
        row.needs_end = row.num_remaining == 0

    def _span_positions(self) -> torch.Tensor:
        """Returns the indices `(rows,)` of the next positions in their spans; 0 outside of a span."""
        positions = [row.spans[-1].num_tokens if row.num_remaining else 0 for row in self.rows]
        return torch.tensor(positions, device=self.ids.device)

    def _generate_visual(self, hidden: torch.Tensor, count: int) -> torch.Tensor:
        """
        Generates `count` visual tokens for every row that is not done.

        Rows that are done are computed as well, since the batch keeps its shape. Their results are not used.
        """
        positions = self._span_positions()
        decoded: list[DecodedPosition] = []
        active = [not row.done for row in self.rows]
        is_visual = torch.tensor(active, device=self.ids.device)
        span = open_span(self.position_decoder, hidden, positions, count, active, self.codes)
        for _ in range(count):
            decoded.append(span.next())
            if self.streams_codes:
                self.streamer.put_visual(decoded[-1].codes.where(is_visual[:, None], -1))
        hidden = span.finish()
        fillers = [self.pad if row.done else self.placeholders[row.spans[-1].kind] for row in self.rows]
        ids = torch.tensor(fillers, device=self.ids.device)[:, None].expand(-1, count)
        for row in self.rows:
            if not row.done:
                self._advance_span(row, count)
        self._append(ids, decoded, is_visual)
        return hidden

    def _generate_mixed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Generates one position: text, a visual token, an end marker or, in rows that are done, padding."""
        device = self.ids.device
        active = [row.num_remaining > 0 and not row.done for row in self.rows]
        in_span = torch.tensor(active, device=device)
        tokens = self._sample_text(hidden[: len(self.rows)])
        forced = torch.tensor([self._forced_id(row) for row in self.rows], device=device)
        tokens = tokens.where(forced < 0, forced)
        # A placeholder may lie beyond the embedding table; its embedding is replaced below.
        embeds = self.model.get_input_embeddings()(tokens.masked_fill(in_span, 0))  # (rows, H)
        decoded: list[DecodedPosition] = []
        if any(active):
            decoded.append(self.position_decoder.decode_first(hidden, self._span_positions(), active))
            codes = decoded[0].codes
            embeds = self.model.model.embed_codes(codes).to(embeds.dtype).where(in_span[:, None], embeds)
            if self.streams_codes:
                self.streamer.put_visual(codes.where(in_span[:, None], -1))
        started = self._update_rows(tokens)
        self._append(tokens[:, None], decoded, in_span)
        if self.streamer is not None:
            self.streamer.put(tokens.cpu())
        return self._read_mixed(embeds, in_span, started)

    def _forced_id(self, row: _Row) -> int:
        """Returns the id that a row must generate now, or -1 if the model chooses it."""
        if row.done:
            return self.pad
        if row.num_remaining:
            return self.placeholders[row.spans[-1].kind]
        return self.ends[row.spans[-1].kind] if row.needs_end else -1

    def _update_rows(self, tokens: torch.Tensor) -> list[bool]:
        """Updates the rows after ids `tokens` `(rows,)` and returns which of them have opened a span."""
        started = []
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            was_in_span = row.num_remaining > 0
            row.needs_end = False
            if was_in_span and not row.done:
                self._advance_span(row, 1)
            else:
                self._open_span(row, token, self.ids.shape[1] + 1)
            started.append(row.num_remaining > 0 and not was_in_span)
        return started

    def _read_mixed(self, embeds: torch.Tensor, in_span: torch.Tensor, started: list[bool]) -> torch.Tensor:
        """
        Runs all branches at one position.

        The unconditional and image-only branches see a span and its start marker, but never text. Each new span begins
        after their prompts, as in image mode.
        """
        if self.branches.total_rows == len(self.rows):
            return self.branches.step(embeds)
        is_started = torch.tensor(started, device=in_span.device)
        if any(started):
            self.branches.reset_to_prompt(is_started)
        others = (in_span | is_started).repeat(self.branches.total_rows // len(self.rows) - 1)
        return self.branches.step(embeds, sees=torch.cat([torch.ones_like(is_started), others]))

    def _sample_text(self, hidden: torch.Tensor) -> torch.Tensor:
        """Samples text ids `(rows,)` after hidden states `(rows, H)` of the conditional branch."""
        logits = self.model.lm_head(hidden).float()
        # Processors of the library index the logits by id, and a placeholder may lie beyond the vocabulary.
        readable = self.ids.masked_fill(self.ids >= logits.shape[-1], self.pad)
        logits = self.logits_processor(cast(torch.LongTensor, readable), logits)  # the library annotates ids as such
        logits = logits.masked_fill(self._forbidden_ids(logits.shape[-1]), -torch.inf)
        active = [not (row.done or row.num_remaining or row.needs_end) for row in self.rows]
        is_invalid = ~(logits.amax(-1) > -torch.inf)  # also for NaN
        self.num_invalid_texts = self.num_invalid_texts + (is_invalid & is_invalid.new_tensor(active)).sum()
        if not self.do_sample:
            return logits.argmax(-1)
        noise = self.decoder.sampler.uniform_noise(len(logits), logits.shape[-1], logits.device, active)
        return sample_categorical(logits.softmax(-1), noise)

    def _forbidden_ids(self, vocab_size: int) -> torch.Tensor:
        """
        Returns which ids a row must not generate as text, `(rows, vocab_size)`, bool.

        These are placeholders, end markers, and start markers of spans that are not allowed.
        """
        settings = self.settings
        always = [*self.placeholders.values(), *self.ends.values()]
        always += [start for start, (kind, _) in self.kinds.items() if kind not in settings.allowed_modalities]
        forbidden = torch.zeros(len(self.rows), vocab_size, dtype=torch.bool)
        forbidden[:, [index for index in always if index < vocab_size]] = True
        for index, row in enumerate(self.rows):
            if settings.max_visual_spans is not None and len(row.spans) >= settings.max_visual_spans:
                forbidden[index, list(self.kinds)] = True
        return forbidden.to(self.ids.device)

    def _append(self, ids: torch.Tensor, decoded: list[DecodedPosition], is_visual: torch.Tensor) -> None:
        """
        Appends n positions.

        Args:
            ids (`torch.Tensor` of shape `(rows, n)`): ids of the positions.
            decoded (`list[DecodedPosition]`): their codes, or nothing if no row is in a span.
            is_visual (`torch.Tensor` of shape `(rows,)`, bool): rows in which the codes are used.
        """
        count = ids.shape[1]
        if decoded:
            self.num_invalid = self.num_invalid + count_invalid(decoded, is_visual[:, None])
        is_visual = is_visual[:, None, None]
        self.ids = torch.cat([self.ids, ids], 1)
        codes = self.codes.new_full((len(self.rows), count, self.codes.shape[-1]), -1)
        if decoded:
            codes = torch.stack([each.codes for each in decoded], 1).where(is_visual, codes)
        self.codes = torch.cat([self.codes, codes], 1)
        for index, name in enumerate(("log_probs", "conditional_log_probs")[: len(self.log_probs)]):
            values = self._zeros(count)
            if decoded:
                values = torch.stack([getattr(each, name) for each in decoded], 1).where(is_visual, values)
            self.log_probs[index] = torch.cat([self.log_probs[index], values], 1)

    def _zeros(self, count: int) -> torch.Tensor:
        """Returns log-probabilities `(rows, count, D)` of positions without codes."""
        return torch.zeros(len(self.rows), count, self.codes.shape[-1], device=self.ids.device)

    def _apply_criteria(self) -> None:
        stopped = self.stopping_criteria(self.ids, None).tolist()
        for row, is_stopped in zip(self.rows, stopped, strict=True):
            row.done |= is_stopped

    def _finished_spans(self, index: int) -> list[VisualSpan]:
        """Returns the spans of row `index`; those that are complete get their codes."""
        spans = self.rows[index].spans
        vision = self.model.config.vision_config
        for span in spans:
            frames, rest = divmod(span.num_tokens, vision.num_visual_tokens)
            if span.num_tokens and not rest and frames == (self.settings.num_frames if span.kind == "video" else 1):
                codes = self.codes[index, span.begin : span.begin + span.num_tokens]
                codes = codes.unflatten(0, (frames, vision.grid_size, vision.grid_size))
                span.codes = codes if span.kind == "video" else codes[0]
        return spans


__all__ = ["InterleavedGenerator", "generate_span"]

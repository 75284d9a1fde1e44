# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Loops that generate one visual span, or text and visual spans in turn, each row at its own."""

from dataclasses import dataclass, field

import torch
from transformers import EosTokenCriteria, MaxLengthCriteria, StoppingCriteriaList

from .generation_depth_vilau import DecodedPosition
from .generation_positions_vilau import PositionDecoder
from .generation_sampling_vilau import sample_categorical
from .outputs_vilau import VisualSpan


@dataclass
class _Row:
    """Where a row is: how many visual tokens its span lacks, whether the end marker is due, whether it is done."""

    owed: int = 0
    must_end: bool = False
    done: bool = False
    spans: list[VisualSpan] = field(default_factory=list)


def is_custom(criteria: StoppingCriteriaList) -> bool:
    """Whether there are stopping criteria that may end a visual span at any of its positions."""
    return any(not isinstance(criterion, (EosTokenCriteria, MaxLengthCriteria)) for criterion in criteria)


@torch.no_grad()
def generate_span(
    position_decoder: PositionDecoder, positions: range, placeholder: int, criteria, streamer
) -> DecodedPosition:
    """
    The visual tokens of all rows at the `positions` of their spans, each field stacked over these in dimension 1.
    Nothing in the loop waits for the device, unless custom stopping criteria do; from where these stopped a row its
    codes are -1 and the rest is NaN.
    """
    branches, decoded = position_decoder.branches, []
    hidden = branches.read_prompts()
    ids, is_written = branches.own.ids, []
    watched, codes = is_custom(criteria), None
    running = torch.ones(branches.rows, 1, dtype=torch.bool, device=ids.device)
    for position in positions:
        step = position_decoder.first(hidden, position) if codes is None else position_decoder.next(codes, position)
        if streamer is not None:
            changed = streamer.put_visual(step.codes.where(running, -1))
            if changed is not None:
                step = step.overwritten(changed.where(running, step.codes))
        codes = step.codes
        decoded.append(step)
        is_written.append(running)
        if watched:
            ids = torch.cat([ids, ids.new_full((len(ids), 1), placeholder)], 1)
            running = running & ~criteria(ids, None)[:, None]
            if not bool(running.any()):
                break
    if streamer is not None:
        streamer.end()
    missing = len(positions) - len(decoded)
    is_written = torch.cat(is_written, 1)  # (rows, positions)

    def stacked(name, value):
        tensors = [getattr(each, name) for each in decoded]
        if tensors[0] is None:
            return None
        tensor = torch.stack(tensors, 1)
        if not watched:
            return tensor
        tensor = tensor.where(is_written.view(*is_written.shape, *[1] * (tensor.ndim - 2)), value)
        filling = tensor.new_full((len(tensor), missing, *tensor.shape[2:]), value)
        return torch.cat([tensor, filling], 1)

    return DecodedPosition(
        codes=stacked("codes", -1),
        scores=stacked("scores", float("nan")),
        log_probs=stacked("log_probs", float("nan")),
        conditional_log_probs=stacked("conditional_log_probs", float("nan")),
    )


class InterleavedGenerator:
    """
    Generates text and visual spans in turn. A row opens a span by a start marker; then it generates exactly the
    visual tokens that make an image or a video, and the end marker. While all rows are inside a span, no text is
    looked at and nothing waits for the device.

    Args:
        position_decoder ([`PositionDecoder`]).
        settings: with `num_frames`, `max_visual_spans`, `allowed_modalities` and `output_log_probs`.
        logits_processor, stopping_criteria, generation_config: as transformers' `generate` made them.
        streamer (*optional*): its `put(ids)` gets text; its `put_visual(codes)`, if it has one, visual tokens.
    """

    def __init__(self, position_decoder, settings, logits_processor, stopping_criteria, generation_config, streamer):
        self.position_decoder, self.settings = position_decoder, settings
        self.model = position_decoder.model
        self.branches = position_decoder.branches
        self.decoder = position_decoder.decoder
        self.logits_processor, self.stopping_criteria = logits_processor, stopping_criteria
        self.do_sample, self.max_length = generation_config.do_sample, generation_config.max_length
        self.pad = self.model.config.text_config.pad_token_id or 0
        self.streamer, self.shows_codes = streamer, hasattr(streamer, "put_visual")
        config, tokens = self.model.config, self.model.config.vision_config.num_visual_tokens
        self.kinds = {
            config.image_start_token_id: ("image", tokens),
            config.video_start_token_id: ("video", tokens * settings.num_frames),
        }
        self.placeholders = {"image": config.image_token_id, "video": config.video_token_id}
        self.ends = {"image": config.image_end_token_id, "video": config.video_end_token_id}
        self.rows = [_Row() for _ in range(self.branches.rows)]
        self.ids, self.codes = self.branches.own.ids, self.branches.own.visual_codes
        # log-probabilities of codes, guided and not, `(rows, T, D)` each
        self.log_probs = [self._unscored(self.ids.shape[1]) for _ in range(2 * settings.output_log_probs)]

    @torch.no_grad()
    def generate(self) -> list[list[VisualSpan]]:
        """The spans of each row; what was generated are `ids` `(rows, T)`, `codes` and `log_probs` `(rows, T, D)`."""
        hidden = self.branches.read_prompts()
        for row, last in zip(self.rows, self.ids[:, -1].tolist(), strict=True):
            self._open(row, last, self.ids.shape[1])
        while not all(row.done for row in self.rows):
            live = [row for row in self.rows if not row.done]
            room = self.max_length - self.ids.shape[1]
            if room > 0 and all(row.owed for row in live):
                count = 1 if is_custom(self.stopping_criteria) else min(room, *(row.owed for row in live))
                hidden = self._generate_visual(hidden, count)
            elif room > 0:
                hidden = self._generate_mixed(hidden)
            self._stop()
        if self.streamer is not None:
            self.streamer.end()
        return [self._finished(index) for index in range(len(self.rows))]

    def _open(self, row: _Row, token: int, begin: int):
        if token in self.kinds and not row.done:
            kind, row.owed = self.kinds[token]
            row.spans.append(VisualSpan(kind, begin))

    def _advance(self, row: _Row, count: int):
        row.owed -= count
        row.spans[-1].num_tokens += count
        row.must_end = row.owed == 0

    def _positions(self) -> torch.LongTensor:
        """Positions of the rows in their spans, `(rows,)`; 0 outside."""
        positions = [row.spans[-1].num_tokens if row.owed else 0 for row in self.rows]
        return torch.tensor(positions, device=self.ids.device)

    def _generate_visual(self, hidden: torch.Tensor, count: int) -> torch.Tensor:
        """`count` visual tokens for every row that is not done; for the others what is generated does not matter."""
        positions, decoded = self._positions(), []
        drawing = [not row.done for row in self.rows]
        is_visual = torch.tensor(drawing, device=self.ids.device)
        for step in range(count):
            if decoded:
                codes = decoded[-1].codes
                decoded.append(self.position_decoder.next(codes, positions + step, drawing))
            else:
                decoded.append(self.position_decoder.first(hidden, positions + step, drawing))
            if self.shows_codes:
                self.streamer.put_visual(decoded[-1].codes.where(is_visual[:, None], -1))
        hidden = self.position_decoder.leave(decoded[-1].codes)
        fillers = [self.pad if row.done else self.placeholders[row.spans[-1].kind] for row in self.rows]
        ids = torch.tensor(fillers, device=self.ids.device)[:, None].expand(-1, count)
        for row in self.rows:
            if not row.done:
                self._advance(row, count)
        self._append(ids, decoded, is_visual)
        return hidden

    def _generate_mixed(self, hidden: torch.Tensor) -> torch.Tensor:
        """One position, in which each row generates text, a visual token, an end marker or, if it is done, padding."""
        device = self.ids.device
        drawing = [row.owed > 0 and not row.done for row in self.rows]
        in_span = torch.tensor(drawing, device=device)
        tokens = self._pick_text(hidden[: len(self.rows)])
        forced = []
        for row in self.rows:
            if row.done:
                forced.append(self.pad)
            elif row.owed:
                forced.append(self.placeholders[row.spans[-1].kind])
            else:
                forced.append(self.ends[row.spans[-1].kind] if row.must_end else -1)
        forced = torch.tensor(forced, device=device)
        tokens = tokens.where(forced < 0, forced)
        embeds = self.model.get_input_embeddings()(tokens.masked_fill(in_span, 0))  # (rows, H)
        decoded = None
        if any(drawing):
            decoded = self.position_decoder.first(hidden, self._positions(), drawing)
            codes = decoded.codes
            embeds = self.model.model.embed_codes(codes).to(embeds.dtype).where(in_span[:, None], embeds)
            if self.shows_codes:
                self.streamer.put_visual(codes.where(in_span[:, None], -1))
        started = []
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            was_in_span = row.owed > 0
            row.must_end = False
            if was_in_span and not row.done:
                self._advance(row, 1)
            else:
                self._open(row, token, self.ids.shape[1] + 1)
            started.append(row.owed > 0 and not was_in_span)
        self._append(tokens[:, None], [] if decoded is None else [decoded], in_span)
        if self.streamer is not None:
            self.streamer.put(tokens.cpu())
        if len(self.branches.seen) == len(self.rows):
            return self.branches.step(embeds)
        started = torch.tensor(started, device=device)
        if bool(started.any()):
            self.branches.reset_to_prompt(started)
        comparing = (in_span | started).repeat(len(self.branches.seen) // len(self.rows) - 1)
        return self.branches.step(embeds, sees=torch.cat([torch.ones_like(started), comparing]))

    def _pick_text(self, hidden: torch.Tensor) -> torch.LongTensor:
        logits = self.model.lm_head(hidden).float()
        readable = self.ids.masked_fill(self.ids >= logits.shape[-1], self.pad)  # placeholders may lie beyond
        logits = self.logits_processor(readable, logits)
        logits = logits.masked_fill(self._forbidden(logits.shape[-1]), -torch.inf)
        if not self.do_sample:
            return logits.argmax(-1)
        drawing = [not (row.done or row.owed or row.must_end) for row in self.rows]
        noise = self.decoder.sampling.noise(*logits.shape, logits.device, drawing)
        return sample_categorical(logits.softmax(-1), noise)

    def _forbidden(self, vocab_size: int) -> torch.BoolTensor:
        """Ids that a row must not generate now, `(rows, vocab_size)`: placeholders, end markers, spans not wanted."""
        settings = self.settings
        always = [*self.placeholders.values(), *self.ends.values()]
        always += [start for start, (kind, _) in self.kinds.items() if kind not in settings.allowed_modalities]
        forbidden = torch.zeros(len(self.rows), vocab_size, dtype=torch.bool)
        forbidden[:, [index for index in always if index < vocab_size]] = True
        for index, row in enumerate(self.rows):
            if settings.max_visual_spans is not None and len(row.spans) >= settings.max_visual_spans:
                forbidden[index, list(self.kinds)] = True
        return forbidden.to(self.ids.device)

    def _append(self, ids: torch.LongTensor, decoded: list[DecodedPosition], is_visual: torch.BoolTensor):
        """Adds `ids` `(rows, n)` and what was `decoded` at these n positions, if anything, in rows `is_visual`."""
        count, is_visual = ids.shape[1], is_visual[:, None, None]
        self.ids = torch.cat([self.ids, ids], 1)
        codes = self.codes.new_full((len(self.rows), count, self.codes.shape[-1]), -1)
        if decoded:
            codes = torch.stack([each.codes for each in decoded], 1).where(is_visual, codes)
        self.codes = torch.cat([self.codes, codes], 1)
        for index, name in enumerate(("log_probs", "conditional_log_probs")[: len(self.log_probs)]):
            values = self._unscored(count)
            if decoded:
                values = torch.stack([getattr(each, name) for each in decoded], 1).where(is_visual, values)
            self.log_probs[index] = torch.cat([self.log_probs[index], values], 1)

    def _unscored(self, count: int) -> torch.Tensor:
        return torch.zeros(len(self.rows), count, self.codes.shape[-1], device=self.ids.device)

    def _stop(self):
        stopped = self.stopping_criteria(self.ids, None).tolist()
        for row, stop in zip(self.rows, stopped, strict=True):
            row.done |= stop

    def _finished(self, index: int) -> list[VisualSpan]:
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

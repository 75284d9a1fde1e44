# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Decodes the positions of a span in order: one in each step of the language model, or several in parallel."""

from dataclasses import fields

import torch

from .generation_depth_vilau import DecodedPosition
from .generation_positions_vilau import PositionDecoder


# A window that is not given has this many times the positions that passes accepted lately. Drafts improve from pass to
# pass before they are accepted, so a window must be larger than what one pass accepts. Measured on the shipped
# checkpoint, like the numbers below (`benchmarks/bench_parallel.py`).
_WINDOW_PER_ACCEPTED = 8

# Bounds of a window that is not given, in positions of all rows. A pass of 8 positions costs little more than one of
# a single position. Videos with a window of 128 positions needed hardly fewer passes than with one of 64.
_FEWEST_POSITIONS = 8
_MOST_POSITIONS = 64

# Window that is not given where positions are compiled: it cannot change from pass to pass.
_COMPILED_WINDOW = 16


class SpanDecoder:
    """
    Decodes consecutive positions of a span, one in each step of the language model.

    Call `next` for each position. `finish` then reads the last one, where text follows.

    Args:
        position_decoder ([`PositionDecoder`]): decoder of a position.
        hidden (`torch.Tensor` of shape `(R, H)`): hidden states of all branches before the first position.
        begin (`int`, or `torch.Tensor` of shape `(rows,)`): index of the first position in its span.
        count (`int`): number of positions.
        active (`list[bool]`, *optional*): rows whose codes are used, by default all.
    """

    def __init__(
        self,
        position_decoder: PositionDecoder,
        hidden: torch.Tensor,
        begin: int | torch.Tensor,
        count: int,
        active: list[bool] | None = None,
    ) -> None:
        self.position_decoder = position_decoder
        self.hidden = hidden
        self.begin = begin
        self.count = count
        self.active = active
        self.index = 0  # positions that `next` has returned
        self.last_codes: torch.Tensor | None = None  # (rows, D)

    def next(self) -> DecodedPosition:
        """Returns the next position of all rows."""
        position = self.begin + self.index
        if self.last_codes is None:
            step = self.position_decoder.decode_first(self.hidden, position, self.active)
        else:
            step = self.position_decoder.decode_next(self.last_codes, position, self.active)
        self.last_codes = step.codes
        self.index += 1
        return step

    def replace(self, codes: torch.Tensor) -> None:
        """Replaces the codes of the position that `next` returned last by `codes` `(rows, D)`."""
        self.last_codes = codes

    def finish(self) -> torch.Tensor:
        """Returns the hidden states `(R, H)` after the last position."""
        if self.last_codes is None:
            raise ValueError("`next` must be called before `finish`.")
        return self.position_decoder.read_codes(self.last_codes)


class ParallelSpanDecoder(SpanDecoder):
    """
    Decodes consecutive positions of a span, several in each pass of the language model.

    A pass reads a window of positions: the last position that is known, and drafts of those after it. It decodes the
    codes that each position takes after the drafts before it, with the random numbers of sequential decoding. Codes
    after right drafts are right. So each row accepts its codes up to the first that differs from its draft, and this
    one too. The rest of the window is the next draft. The accepted codes are those of sequential decoding, unless two
    codes tie up to rounding, which is common in bfloat16 only. See speculative Jacobi decoding (Teng et al., 2024),
    which samples again instead.

    The first draft of a position is the codes one image or frame before, if the row has codes there: those of the
    frame before, of the image that is edited, or of the image before in a story. Else it is the codes just before.

    Args:
        position_decoder, hidden, begin, count, active: as for [`SpanDecoder`].
        earlier_codes (`torch.Tensor` of shape `(rows, T, D)`, *optional*): codes of the positions before the span, -1
            at text.
    """

    def __init__(
        self,
        position_decoder: PositionDecoder,
        hidden: torch.Tensor,
        begin: int | torch.Tensor,
        count: int,
        active: list[bool] | None = None,
        earlier_codes: torch.Tensor | None = None,
    ) -> None:
        super().__init__(position_decoder, hidden, begin, count, active)
        self.window = position_decoder.window
        self.draft_distance = position_decoder.model.config.vision_config.num_visual_tokens
        self.mean_accepted = 1.0
        rows = position_decoder.branches.rows
        self.row_index = torch.arange(rows, device=hidden.device)[:, None]
        self.first_drafts = None if earlier_codes is None else self._last_image(earlier_codes)
        # positions of each row that are final. Rows that are not used must not hold back the others.
        self.num_final = [1 if is_active else count for is_active in active or [True] * rows]
        # positions of each row that hold codes or drafts
        self.num_filled = torch.ones(rows, 1, dtype=torch.long, device=hidden.device)
        # fields of `DecodedPosition` by name, `(rows, count + largest window, ...)`
        self.buffers: dict[str, torch.Tensor] = {}
        # noise of positions that some row still needs, up to the first that is not drawn yet
        self.noise: list[list[torch.Tensor]] = []
        self.num_drawn = 1

    def next(self) -> DecodedPosition:
        """Returns the next position of all rows."""
        if self.index == 0:
            # The first position follows text, after which there is nothing to draft from.
            step = super().next()
            self._store(step, torch.zeros_like(self.row_index))
            if self.first_drafts is not None:
                num_drafts = min(self.draft_distance, self.count)
                self.buffers["codes"][:, 1:num_drafts] = self.first_drafts[:, 1:num_drafts]
                self.num_filled.fill_(num_drafts)
            return step
        while min(self.num_final) <= self.index:
            self._decode_window()
        self.index += 1
        return DecodedPosition(**{name: buffer[:, self.index - 1] for name, buffer in self.buffers.items()})

    def replace(self, codes: torch.Tensor) -> None:
        """Replaces the codes of the position that `next` returned last by `codes` `(rows, D)`."""
        held = self.buffers["codes"]
        is_changed = (codes != held[:, self.index - 1]).any(-1).tolist()
        held[:, self.index - 1] = codes
        # What a row decoded after the old codes is its draft now.
        self.num_final = [
            min(final, self.index) if changed else final
            for final, changed in zip(self.num_final, is_changed, strict=True)
        ]

    def finish(self) -> torch.Tensor:
        """Returns the hidden states `(R, H)` after the last position."""
        self.position_decoder.branches.extend(self.count - 1)
        self.last_codes = self.buffers["codes"][:, self.count - 1]
        return super().finish()

    def _last_image(self, earlier_codes: torch.Tensor) -> torch.Tensor | None:
        """Returns the last codes `(rows, L, D)` in `earlier_codes` `(rows, T, D)`, if all rows have as many."""
        is_visual = earlier_codes[..., 0] >= 0
        if int(is_visual.sum(1).min()) < self.draft_distance:
            return None
        # A stable sort leaves the indices of the visual positions in order, after those of text.
        indices = is_visual.long().argsort(dim=1, stable=True)[:, -self.draft_distance :]
        return earlier_codes[self.row_index, indices]

    def _decode_window(self) -> None:
        """Decodes a window of each row, and accepts its first positions."""
        width = self._window()
        # The last pass has waited for the device, so this copy does not wait long.
        first = torch.tensor(self.num_final, device=self.row_index.device)[:, None]
        ahead = first + torch.arange(width, device=first.device)  # (rows, width), indices of the decoded positions
        # A row near its end decodes its last position several times; its results beyond the end are not used.
        positions = ahead.clamp(max=self.count - 1)
        codes = self.buffers["codes"]
        drafts = codes[self.row_index, self._draft_sources(ahead)]  # (rows, width, D)
        codes[self.row_index, ahead] = drafts
        # Rows that are done have no window, so the others say how many slots are read.
        most_final = max(final for final in self.num_final if final < self.count)
        decoded = self.position_decoder.decode_window(
            codes[self.row_index, positions - 1],
            positions - 1,
            min(most_final + width, self.count) - 1,
            self._noise_at(positions),
            positions + (self.begin if isinstance(self.begin, int) else self.begin[:, None]),
        )
        is_right = (decoded.codes.view_as(drafts) == drafts).all(-1)[:, :-1]
        accepted = 1 + is_right.cumprod(1).sum(1)
        self._store(decoded, ahead)
        self.num_filled = self.num_filled.maximum(first + width)
        self._accept(accepted.tolist())  # the only wait for the device

    def _accept(self, accepted: list[int]) -> None:
        """Makes the first `accepted` positions of the windows of the rows final."""
        counts = [number for number, final in zip(accepted, self.num_final, strict=True) if final < self.count]
        # a mean over the last passes, in which the newest counts one third
        self.mean_accepted += (sum(counts) / len(counts) - self.mean_accepted) / 3
        self.num_final = [
            min(final + number, self.count) for final, number in zip(self.num_final, accepted, strict=True)
        ]

    def _window(self) -> int:
        """Returns the number of positions of the next pass."""
        if self.position_decoder.graphs is not None:
            return self.window or _COMPILED_WINDOW  # one graph for all passes
        window = self.window
        if window is None:
            rows = len(self.num_final)
            wanted = max(round(_WINDOW_PER_ACCEPTED * self.mean_accepted), _FEWEST_POSITIONS // rows)
            # A window of 1 would accept one position in each pass, as sequential decoding does at less cost.
            window = max(min(wanted, _MOST_POSITIONS // rows), 2)
        return min(window, self.count - min(self.num_final))

    def _draft_sources(self, ahead: torch.Tensor) -> torch.Tensor:
        """
        Returns the positions whose codes are the drafts of the positions `ahead` `(rows, n)`.

        Positions that passes have decoded are their own drafts. Others repeat what is before them.
        """
        distance = torch.where(self.num_filled >= self.draft_distance, self.draft_distance, 1)
        num_missing = (ahead - self.num_filled + 1).clamp(min=0)
        # the multiple of the distance that leads from a missing position to one that is not
        return ahead - (num_missing + distance - 1) // distance * distance

    def _noise_at(self, positions: torch.Tensor) -> list[torch.Tensor]:
        """Returns the random numbers of `positions` `(rows, n)`, for each depth `(rows * n, K)`."""
        rows, width = positions.shape
        decoder = self.position_decoder.decoder
        low = min(self.num_final)
        high = max(min(final + width, self.count) for final in self.num_final if final < self.count)
        del self.noise[: len(self.noise) - (self.num_drawn - low)]
        # One call for each position, in order, draws the numbers of sequential decoding.
        for _ in range(self.num_drawn, high):
            self.noise.append(decoder.draw_noise(rows, positions.device, self.active))
        self.num_drawn = max(self.num_drawn, high)
        indices = (positions - low).clamp(max=len(self.noise) - 1)
        return [
            torch.stack(of_depth, 1)[self.row_index, indices].flatten(0, 1)
            for of_depth in zip(*self.noise, strict=True)
        ]

    def _store(self, decoded: DecodedPosition, positions: torch.Tensor) -> None:
        """Stores decoded `positions` `(rows, n)`."""
        for each in fields(decoded):
            values = getattr(decoded, each.name)
            if values is None:
                continue
            values = values.unflatten(0, positions.shape)
            if each.name not in self.buffers:
                length = self.count + (self.window or _MOST_POSITIONS)  # results beyond the end are stored there
                self.buffers[each.name] = values.new_zeros(len(positions), length, *values.shape[2:])
            self.buffers[each.name][self.row_index, positions] = values


def open_span(
    position_decoder: PositionDecoder,
    hidden: torch.Tensor,
    begin: int | torch.Tensor,
    count: int,
    active: list[bool] | None = None,
    earlier_codes: torch.Tensor | None = None,
) -> SpanDecoder:
    """Returns the decoder of a span for the arguments of [`ParallelSpanDecoder`], as `position_decoder` wants it."""
    if position_decoder.is_parallel:
        return ParallelSpanDecoder(position_decoder, hidden, begin, count, active, earlier_codes)
    return SpanDecoder(position_decoder, hidden, begin, count, active)


__all__ = ["ParallelSpanDecoder", "SpanDecoder", "open_span"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Residual quantizer of the vision tower (VILA-U, equations 2 to 4)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .argument_checks_vilau import as_int64
from .compat_modeling_vilau import torch_compilable_check
from .configuration_vilau import VilaUVisionConfig
from .distributed_vilau import is_distributed, sum_over_ranks, world_size
from .module_bases_vilau import Float32Module


SEARCHES = ("exact", "gram", "bfloat16")


class VilaUCodebook(nn.Embedding):
    """Table of code embeddings. A call without codes returns the whole table."""

    def forward(self, codes: torch.Tensor | None = None) -> torch.Tensor:
        """
        Returns the embeddings of codes, or all embeddings `(rows, C)`.

        Callers that need the whole table call the module instead of reading `weight`. Then the hooks of the module
        can fetch weights that are offloaded or sharded.

        Args:
            codes (`torch.LongTensor` of any shape, *optional*): rows of the codebook.
        """
        # ZeRO-3 takes the gathered values out of the parameter after the call. A view keeps them.
        return self.weight.view_as(self.weight) if codes is None else super().forward(codes)


class VilaUResidualQuantizer(Float32Module):
    r"""
    Residual quantizer: each of `code_depth` look-ups encodes the residual of the look-ups before (VILA-U, eq. 2-4).

    `r_0 = z`, `k_d = argmin_k ||r_{d-1} - e(k)||^2`, `r_d = r_{d-1} - e(k_d)`, `z_hat = sum_d e(k_d)`.

    The codebook is trained by exponential moving averages of cluster sizes and sums (van den Oord et al., 2017,
    appendix A.1), never by gradients. All computations are done in float32, for any dtype of the features.

    The attribute `search` selects how [`~VilaUResidualQuantizer.encode`] finds the nearest embeddings. It is not
    saved. `forward`, and so training, always uses the exact search:

    - `"exact"`, the default: float32 products of the residual with all embeddings at each depth.
    - `"gram"`, for a codebook that all depths share: these products at the first depth only. Since
      `r_d.e = r_{d-1}.e - e(k_d).e`, rows of the Gram matrix `E E^T` are subtracted for the next depths. The matrix
      has `4 K^2` bytes, 1 GiB for 16384 codes. The rounding errors of the depths add up, but stay those of float32.
    - `"bfloat16"`: bfloat16 products propose 8 candidates, and float32 products choose one of them. The chosen code
      can differ from the nearest if more than 8 embeddings are equal within the precision of bfloat16.

    The Gram matrix or the codebook in bfloat16 is computed at the first use, and again after the codebook changed.
    A change through `codebook.weight.data` is not noticed. Set `search` again after it.

    Args:
        config ([`VilaUVisionConfig`]): gives codebook size K, code depth D, code dimension C and the EMA settings.

    Example:
    ```python
    >>> from vilau_hf import TINY_CHECKPOINT, VilaUVisionTower

    >>> tower = VilaUVisionTower.from_pretrained(f"{TINY_CHECKPOINT}/tower")
    >>> tower.quantizer.search = "gram"
    ```
    """

    # Largest number of scores, or of numbers in candidate vectors, that exist at once: 256 MiB in float32.
    max_scores = 2**26
    # Candidates of the search in bfloat16.
    num_proposals = 8
    # Iterations on the first batch with `codebook_initialization="kmeans"`.
    k_means_iterations = 10

    cluster_size: torch.Tensor
    cluster_sum: torch.Tensor
    initialized: torch.Tensor

    def __init__(self, config: VilaUVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size = config.codebook_size
        self.code_depth = config.code_depth
        self.num_codebooks = 1 if config.shared_codebook else config.code_depth
        rows = self.num_codebooks * config.codebook_size
        # With a codebook for each depth, the embeddings of depth d begin at row d * K.
        self.codebook = VilaUCodebook(rows, config.hidden_size)
        self.codebook.weight.requires_grad_(False)
        self.register_buffer("cluster_size", torch.zeros(rows, dtype=torch.float32))
        self.register_buffer("cluster_sum", torch.zeros(rows, config.hidden_size, dtype=torch.float32))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        # Whether forward passes in training mode change the codebook.
        self.tune_codebook = True
        # Reading the buffer waits for the device. This copy avoids the wait after the first training step.
        self._known_initialized = False
        # (weight, its version, matrices of the search), see `_prepare`.
        self._prepared: tuple[torch.Tensor, int, tuple[torch.Tensor, torch.Tensor]] | None = None
        self.search = "exact"

    @property
    def search(self) -> str:
        """Returns how `encode` finds the nearest embeddings: `"exact"`, `"gram"` or `"bfloat16"`."""
        return self._search

    @search.setter
    def search(self, name: str) -> None:
        if name not in SEARCHES:
            raise ValueError(f"`search` must be one of {', '.join(map(repr, SEARCHES))}, got {name!r}.")
        if name == "gram" and self.num_codebooks > 1:
            raise ValueError(
                "`search` may be 'gram' only if all depths share one codebook (`shared_codebook=True`), but there are "
                f"{self.num_codebooks}. Use 'bfloat16' instead."
            )
        self._search = name
        self._prepared = None

    # The base method of nn.Module moves and casts weights. It is overridden to free the prepared matrices, which would
    # otherwise stay on the old device. torch has no public hook for moves up to 2.14; this can go when it has one.
    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        self._prepared = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        # the prepared matrices are large and can be computed again, so they are neither pickled nor copied
        return {**self.__dict__, "_prepared": None}

    def first_row(self, depth: int) -> int:
        """Returns the row of the codebook's weight at which the codes of 0-based `depth` begin."""
        return 0 if self.num_codebooks == 1 else depth * self.codebook_size

    def _check_shape(self, codes: torch.Tensor) -> None:
        """Raises a `ValueError` unless the last dimension of `codes` is the code depth."""
        if codes.ndim < 2 or codes.shape[-1] != self.code_depth:
            raise ValueError(f"`codes` must have shape (N, L, {self.code_depth}), got {tuple(codes.shape)}.")

    def check_range(self, codes: torch.Tensor) -> None:
        """
        Raises a `ValueError` if `codes` of any shape are not all in `[0, codebook_size)`.

        It waits for the device. So use it for codes that a caller passes, and not in a decoding loop.
        """
        codes = as_int64(codes)
        torch_compilable_check(
            ((codes >= 0) & (codes < self.codebook_size)).all(),
            lambda: f"`codes` must be in [0, {self.codebook_size}), got values from {codes.min()} to {codes.max()}.",
        )

    def _nearest(self, residual: torch.Tensor, embeddings: torch.Tensor, half_norms: torch.Tensor) -> torch.Tensor:
        """Returns the indices `(M,)` of the `embeddings` `(K, C)` nearest to `residual` `(M, C)`; all float32."""
        rows = max(1, self.max_scores // self.codebook_size)
        return torch.cat([_scores(chunk, embeddings, half_norms).argmax(-1) for chunk in residual.split(rows)])

    def _nearest_candidate(
        self,
        residual: torch.Tensor,
        embeddings: torch.Tensor,
        half_norms: torch.Tensor,
        low_precision: torch.Tensor,
    ) -> torch.Tensor:
        """Returns indices `(M,)` like `_nearest`, but compares only the candidates of `low_precision` `(K, C)`."""
        count = min(self.num_proposals, self.codebook_size)
        low_norms = half_norms.to(low_precision.dtype)
        rows = max(1, self.max_scores // max(self.codebook_size, count * residual.shape[-1]))
        nearest = []
        for chunk in residual.split(rows):
            candidates = _largest(_scores(chunk.to(low_precision.dtype), low_precision, low_norms), count)
            # sorted, so that of equal embeddings the first is chosen, as in `_nearest`
            candidates = candidates.sort(-1).values  # (m, count)
            vectors = embeddings.index_select(0, candidates.flatten()).view(*candidates.shape, -1)  # (m, count, C)
            scores = torch.linalg.vecdot(vectors, chunk[:, None]) - half_norms[candidates]
            nearest.append(candidates.gather(-1, scores.argmax(-1, keepdim=True))[:, 0])
        return torch.cat(nearest)

    def _look_ups(
        self,
        residual: torch.Tensor,
        low_precision: torch.Tensor | None = None,
        half_norms: torch.Tensor | None = None,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """
        Yields for each depth the chosen codebook rows `(M,)` and the float32 residual `(M, C)` that they encode.

        Args:
            residual (`torch.Tensor` of shape `(M, C)`): float32 features.
            low_precision (`torch.Tensor` of shape `(rows, C)`, *optional*): codebook that proposes candidates.
            half_norms (`torch.Tensor` of shape `(rows,)`, *optional*): half of the squared norms of the embeddings.
        """
        codebook = self.codebook().float()  # (rows, C)
        half_norms = _half_norms(codebook) if half_norms is None else half_norms
        for depth in range(self.code_depth):
            begin = self.first_row(depth)
            book = slice(begin, begin + self.codebook_size)
            if low_precision is None:
                rows = self._nearest(residual, codebook[book], half_norms[book]) + begin
            else:
                rows = self._nearest_candidate(residual, codebook[book], half_norms[book], low_precision[book]) + begin
            yield rows, residual
            residual = residual - codebook[rows]

    def _quantize(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns codebook rows `(D, M)` and the residuals `(D, M, C)` that they encode, for features `(M, C)`."""
        rows, residuals = zip(*self._look_ups(features), strict=True)
        return torch.stack(rows), torch.stack(residuals)

    def _gram_rows(self, features: torch.Tensor, gram: torch.Tensor, half_norms: torch.Tensor) -> torch.Tensor:
        """Returns codebook rows `(D, M)` for float32 `features` `(M, C)`, by the Gram matrix `(K, K)`."""
        codebook = self.codebook().float()
        rows = []
        # half as many vectors as in `_nearest`, because the gathered rows of the matrix are as large as the scores
        for chunk in features.split(max(1, self.max_scores // (2 * self.codebook_size))):
            scores = _scores(chunk, codebook, half_norms)
            found = [scores.argmax(-1)]
            for _ in range(1, self.code_depth):
                scores -= gram.index_select(0, found[-1])  # r_d.e = r_{d-1}.e - e(k_d).e
                found.append(scores.argmax(-1))
            rows.append(torch.stack(found))
        return torch.cat(rows, -1)

    @torch.compiler.disable(reason="it checks whether the codebook has changed")
    def _prepare(self) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Returns the matrix of a fast search, and half of the squared norms of the embeddings, `(rows,)` in float32.

        The matrix is the Gram matrix `(K, K)` in float32 for `"gram"`, and the codebook `(rows, C)` in bfloat16 for
        `"bfloat16"`. Both tensors are computed again only after the codebook has changed.
        """
        weight = self.codebook.weight
        if weight.is_meta or weight.is_inference():
            state = "is offloaded" if weight.is_meta else "was made under `torch.inference_mode()`"
            raise ValueError(
                f"`search` must be 'exact' for a codebook that {state}, got {self.search!r}. This search keeps a copy "
                "of the codebook and could not notice a change."
            )
        if self._prepared is not None:
            held, version, prepared = self._prepared
            # Same address means same tensor: `held` keeps the memory in use. `_version` counts changes in place.
            if held.data_ptr() == weight.data_ptr() and version == weight._version:
                return prepared
        # frees the old matrices before new ones are allocated
        self._prepared = None
        codebook = weight.float()
        matrix = codebook @ codebook.T if self.search == "gram" else codebook.bfloat16()
        prepared = (matrix, _half_norms(codebook))
        self._prepared = (weight.detach(), weight._version, prepared)
        return prepared

    def _rows_to_codes(self, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Returns codes `(N, L, D)` for codebook rows `(D, M)` of features whose `shape` is `(N, L, C)`."""
        offsets = torch.tensor([self.first_row(depth) for depth in range(self.code_depth)], device=rows.device)
        return (rows - offsets[:, None]).T.reshape(*shape[:-1], self.code_depth)

    @torch.no_grad()
    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Encodes `features` of shape `(N, L, C)` into codes of shape `(N, L, D)`, int64 in `[0, codebook_size)`."""
        # autocast would compute products in its dtype although their inputs are float32
        with torch.autocast(features.device.type, enabled=False):
            flat = features.reshape(-1, features.shape[-1]).float()
            prepared = () if self.search == "exact" else self._prepare()
            if self.search == "gram":
                rows = self._gram_rows(flat, *prepared)
            else:
                rows = torch.stack([rows for rows, _ in self._look_ups(flat, *prepared)])
        return self._rows_to_codes(rows, features.shape)

    def code_embeddings(self, codes: torch.Tensor) -> torch.Tensor:
        """
        Returns the embeddings `(N, L, D, C)` of `codes` `(N, L, D)`.

        Raises:
            ValueError: if the last dimension is not the code depth, or the codes are not integers.
        """
        self._check_shape(codes)
        codes = as_int64(codes)
        if self.num_codebooks > 1:
            codes = codes + torch.arange(self.code_depth, device=codes.device) * self.codebook_size
        return self.codebook(codes)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Decodes `codes` of shape `(N, L, D)` into quantized features `(N, L, C)`, the sum over the depths."""
        return self.code_embeddings(codes).sum(dim=-2)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Quantizes `features` of shape `(N, L, C)`.

        In training mode the codebook takes one EMA step, unless `tune_codebook` is off.

        Returns:
            The quantized features `(N, L, C)` with a straight-through gradient, the codes `(N, L, D)` and the
            commitment loss `()`. This is the mean over depths d of `||z - sg(sum_{i<=d} e(k_i))||^2`, itself a mean
            over elements (Lee et al., 2022, eq. 7).
        """
        with torch.autocast(features.device.type, enabled=False):
            flat = features.reshape(-1, features.shape[-1]).float()  # (M, C)
            moves = self.training and self.tune_codebook
            # before the look-ups, which need a filled codebook
            if moves:
                self._initialize(flat.detach())
            with torch.no_grad():
                rows, residuals = self._quantize(flat)
                quantized = self.codebook(rows).float().sum(0)
            # The first term is that of depth D. residuals[d] is z minus the sum of the first d embeddings. The
            # expression in the loop equals this residual, and its gradient with respect to z is that of z.
            commitment_loss = (flat - quantized).square().mean()
            for residual in residuals[1:]:
                commitment_loss = commitment_loss + (flat - (flat.detach() - residual)).square().mean()
            commitment_loss = commitment_loss / self.code_depth
            # after the look-ups: the returned embeddings must be those that the codes were chosen from
            if moves:
                self._update(rows, residuals)
        straight_through = features + (quantized.view_as(features).to(features.dtype) - features).detach()
        return straight_through, self._rows_to_codes(rows, features.shape), commitment_loss

    @torch.no_grad()
    def _initialize(self, features: torch.Tensor) -> None:
        """Fills an untrained codebook from the `features` `(M, C)` of the first batch, the same on every rank."""
        if self._known_initialized:
            return
        if not bool(self.initialized):
            residual = features
            size = self.codebook_size
            # a codebook is filled from the residuals that the codebooks before it leave
            for book in range(self.num_codebooks):
                rows = slice(book * size, (book + 1) * size)
                embeddings = _random_vectors(residual[None], size)
                sizes = torch.ones_like(self.cluster_size[rows])
                if self.config.codebook_initialization == "kmeans":
                    embeddings, sizes = self._k_means(residual, embeddings)
                self.codebook.weight[rows] = embeddings.to(self.codebook.weight.dtype)
                self.cluster_size[rows] = sizes
                self.cluster_sum[rows] = embeddings * sizes[:, None]
                residual = residual - embeddings[self._nearest(residual, embeddings, _half_norms(embeddings))]
            self.initialized.fill_(True)
        self._known_initialized = True

    def _k_means(self, vectors: torch.Tensor, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Runs Lloyd's algorithm on the `vectors` `(M, C)` of all ranks, from `embeddings` `(K, C)`.

        The centroid of a cluster without vectors does not change.

        Returns:
            The centroids `(K, C)` and the sizes of their clusters `(K,)`, at least 1.
        """
        for _ in range(self.k_means_iterations):
            nearest = self._nearest(vectors, embeddings, _half_norms(embeddings))
            sizes = torch.bincount(nearest, minlength=len(embeddings)).to(embeddings.dtype)
            sums = sum_over_ranks(torch.zeros_like(embeddings).index_add_(0, nearest, vectors))
            sizes = sum_over_ranks(sizes)
            embeddings = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], embeddings)
        return embeddings, sizes.clamp(min=1)

    @torch.no_grad()
    def _update(self, rows: torch.Tensor, residuals: torch.Tensor) -> None:
        """
        Updates the codebook by one step of its exponential moving averages (EMA).

        Args:
            rows (`torch.Tensor` of shape `(D, M)`): for each residual, the codebook row that encodes it.
            residuals (`torch.Tensor` of shape `(D, M, C)`): residuals at each depth, float32.
        """
        decay = self.config.codebook_decay
        epsilon = self.config.codebook_epsilon
        counts = torch.bincount(rows.flatten(), minlength=self.cluster_size.numel()).to(self.cluster_size.dtype)
        self.cluster_size.lerp_(sum_over_ranks(counts), 1 - decay)
        # Each rank scales the old sums by 1 / ranks, so the sum over ranks restores them. This adds the new vectors in
        # place, without a second tensor of the codebook's size.
        self.cluster_sum.mul_(decay / world_size())
        self.cluster_sum.index_add_(0, rows.flatten(), residuals.flatten(0, 1), alpha=1 - decay)
        sum_over_ranks(self.cluster_sum)
        # before the division below, so that restarted codes begin at their new vectors in this step
        if self.config.restart_unused_codes:
            self._restart(residuals)
        # Laplace smoothing: a cluster of size 0 must not divide by 0, and the total stays the same
        sizes = self.cluster_size.view(self.num_codebooks, -1)
        total = sizes.sum(-1, keepdim=True)
        smoothed = (sizes + epsilon) / (total + self.codebook_size * epsilon) * total
        torch.div(self.cluster_sum, smoothed.view(-1, 1), out=self.codebook.weight)

    def _restart(self, residuals: torch.Tensor) -> None:
        """
        Replaces the sums of codes whose average cluster size is below 1 by random `residuals` `(D, M, C)`.

        The residuals are drawn from the depths that use the same codebook.
        """
        dead = self.cluster_size < 1
        groups = residuals.unflatten(0, (self.num_codebooks, -1))  # (codebooks, depths, M, C)
        for book, mask in enumerate(dead.view(self.num_codebooks, -1)):
            rows = mask.nonzero()[:, 0] + book * self.codebook_size
            # The sizes are equal on all ranks, so all take this branch and join the collectives inside.
            if len(rows):
                self.cluster_sum[rows] = _random_vectors(groups[book], len(rows))
        # size 1, so that the embedding equals the sum
        self.cluster_size.masked_fill_(dead, 1.0)


def _half_norms(embeddings: torch.Tensor) -> torch.Tensor:
    """Returns `||e||^2 / 2` of each row of `embeddings` `(K, C)`."""
    # a vector norm needs no second tensor of the codebook's size, which `square().sum()` would
    return torch.linalg.vector_norm(embeddings, dim=-1).square() / 2


def _scores(vectors: torch.Tensor, embeddings: torch.Tensor, half_norms: torch.Tensor) -> torch.Tensor:
    """Returns scores `(M, K)`; the nearest has the highest: `||r - e||^2 / 2 = ||r||^2 / 2 - (r.e - ||e||^2 / 2)`."""
    return (vectors @ embeddings.T).sub_(half_norms)


def _largest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """
    Returns the columns `(M, count)` of the largest `scores` `(M, K)`, in any order.

    The `count` largest scores are in the `count` groups of columns with the largest maxima. So `topk` runs on the
    maxima and then on these groups, which are fewer numbers than all columns.
    """
    grouped = scores.unflatten(-1, (math.gcd(scores.shape[-1], 16), -1))  # (M, members, groups)
    members, groups = grouped.shape[1:]
    best = grouped.amax(1).topk(min(count, groups), sorted=False)[1]  # (M, some of the groups)
    members_of_best = grouped.gather(2, best[:, None].expand(-1, members, -1))  # (M, members, some of the groups)
    positions = members_of_best.flatten(1).topk(count, sorted=False)[1]
    # a position is member * number of best groups + index of the group; a column is member * groups + group
    return best.gather(1, positions % best.shape[1]) + positions // best.shape[1] * groups


def _random_vectors(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """
    Draws `count` vectors `(count, C)` from the `vectors` `(depths, M, C)` of all ranks.

    All ranks get the same vectors, and one process with the whole batch would draw the same. Vectors repeat only if
    there are fewer than `count`.
    """
    depths, num_vectors = vectors.shape[:2]
    sizes = [num_vectors]
    rank = 0
    if is_distributed():
        rank = torch.distributed.get_rank()
        gathered = torch.zeros(world_size(), dtype=torch.long, device=vectors.device)
        gathered[rank] = num_vectors
        sizes = sum_over_ranks(gathered).tolist()
    total = depths * sum(sizes)
    orders = [torch.randperm(total, device=vectors.device) for _ in range(-(-count // total))]
    order = torch.cat(orders)[:count]
    if not is_distributed():
        return vectors.flatten(0, 1)[order]
    # the order of rank 0 counts, because the random states of ranks differ
    torch.distributed.broadcast(order, src=0)
    depth = order // sum(sizes)
    position = order % sum(sizes) - sum(sizes[:rank])
    # each rank fills in the vectors that it has, and zeros for those of other ranks, so the sum has all of them
    is_local = (position >= 0) & (position < num_vectors)
    chosen = vectors[depth, position.clamp(0, num_vectors - 1)].masked_fill(~is_local[:, None], 0)
    return sum_over_ranks(chosen)


__all__ = ["VilaUResidualQuantizer"]

# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Residual quantizer of the vision tower (VILA-U, equations 2 to 4)."""

import math

import torch
from torch import nn

from .compat_modeling_vilau import torch_compilable_check
from .distributed_vilau import is_distributed, sum_over_ranks, world_size
from .module_bases_vilau import Float32Module


SEARCHES = ("exact", "gram", "bfloat16")


class VilaUCodebook(nn.Embedding):
    """The code embeddings; a call without codes gives all of them, fetched from wherever they are offloaded to."""

    def forward(self, codes: torch.LongTensor | None = None) -> torch.Tensor:
        # a view holds what ZeRO-3 has gathered, which it takes out of the parameter after the call
        return self.weight.view_as(self.weight) if codes is None else super().forward(codes)


class VilaUResidualQuantizer(Float32Module):
    r"""
    Residual quantizer: each of `code_depth` look-ups encodes what the ones before left over (VILA-U, eq. 2-4),

    `r_0 = z`, `k_d = argmin_k ||r_{d-1} - e(k)||^2`, `r_d = r_{d-1} - e(k_d)`, `z_hat = sum_d e(k_d)`.

    The codebook is trained by exponential moving averages of cluster sizes and sums (van den Oord et al., 2017,
    appendix A.1), never by gradients. All maths is done in float32 whatever the dtype of the features.

    The attribute `search` says how [`~VilaUResidualQuantizer.encode`] finds the nearest embeddings; it is saved
    nowhere, and `forward`, hence training, is always exact:

    - `"exact"`, the default: at each depth float32 products of what is left over with all embeddings.
    - `"gram"`, for a codebook that all depths share: these products at the first depth only. Since
      `r_d.e = r_{d-1}.e - e(k_d).e`, further scores follow by taking off rows of the Gram matrix `E E^T`, of `4 K^2`
      bytes (1 GiB for 16384 codes). The rounding errors of the depths add up, but stay those of float32.
    - `"bfloat16"`: bfloat16 products propose 8 candidates, of which float32 chooses. Where more embeddings than these
      are alike within the precision of bfloat16, a code may be another than the nearest.

    The Gram matrix or the codebook in bfloat16 is computed at the first use and again once the codebook has changed;
    only a change through `codebook.weight.data` goes unseen, and setting `search` again follows it.

    Args:
        config ([`VilaUVisionConfig`]): gives codebook size K, code depth D, code dimension C and the EMA settings.

    Example:

    ```python
    >>> from vilau_hf import TINY_CHECKPOINT, VilaUVisionTower

    >>> tower = VilaUVisionTower.from_pretrained(f"{TINY_CHECKPOINT}/tower")
    >>> tower.quantizer.search = "gram"
    ```
    """

    # at most this many scores, or numbers of candidates, at once: 256 MiB in float32
    max_scores = 2**26
    num_proposals = 8
    # of `codebook_initialization="kmeans"`, on the first batch
    k_means_iterations = 10

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.codebook_size = config.codebook_size
        self.code_depth = config.code_depth
        self.num_codebooks = 1 if config.shared_codebook else config.code_depth
        rows = self.num_codebooks * config.codebook_size
        self.codebook = VilaUCodebook(rows, config.hidden_size)  # depth d of separate codebooks begins at row d * K
        self.codebook.weight.requires_grad_(False)
        self.register_buffer("cluster_size", torch.zeros(rows, dtype=torch.float32))
        self.register_buffer("cluster_sum", torch.zeros(rows, config.hidden_size, dtype=torch.float32))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self.tune_codebook = True  # whether forward passes in training mode move the codebook
        self._known_initialized = False  # spares a device wait per training step once the buffer was seen to be set
        self.search = "exact"

    @property
    def search(self) -> str:
        """How `encode` finds the nearest embeddings: `"exact"`, `"gram"` or `"bfloat16"`."""
        return self._search

    @search.setter
    def search(self, name: str):
        if name not in SEARCHES:
            raise ValueError(f"`search` must be one of {', '.join(map(repr, SEARCHES))}, got {name!r}.")
        if name == "gram" and self.num_codebooks > 1:
            raise ValueError(
                "`search` may be 'gram' only if all depths share one codebook (`shared_codebook=True`), but there are "
                f"{self.num_codebooks}; 'bfloat16' works with these."
            )
        self._search, self._prepared = name, None

    def _apply(self, fn, recurse=True):
        self._prepared = None  # gives its memory back when the weights move
        return super()._apply(fn, recurse)

    def __getstate__(self):
        return {**self.__dict__, "_prepared": None}  # neither pickled nor copied

    def first_row(self, depth: int) -> int:
        """Row of the codebook's weight at which the codes of 0-based `depth` begin."""
        return 0 if self.num_codebooks == 1 else depth * self.codebook_size

    def _check_codes(self, codes: torch.Tensor):
        if codes.ndim < 2 or codes.shape[-1] != self.code_depth:
            raise ValueError(f"`codes` must have shape (N, L, {self.code_depth}), got {tuple(codes.shape)}.")
        if codes.is_floating_point() or codes.dtype == torch.bool:
            raise ValueError(f"`codes` must be integers, got {codes.dtype}.")

    def check_range(self, codes: torch.Tensor):
        """
        Raises a `ValueError` if `codes` of any shape are not all in `[0, codebook_size)`. It waits for the device:
        for codes that come from outside, not for those of a decoding loop.
        """
        torch_compilable_check(
            ((codes >= 0) & (codes < self.codebook_size)).all(),
            lambda: f"`codes` must be in [0, {self.codebook_size}), got values from {codes.min()} to {codes.max()}.",
        )

    def _nearest(self, residual: torch.Tensor, embeddings: torch.Tensor, half_norms: torch.Tensor) -> torch.Tensor:
        """Indices `(M,)` of the `embeddings` `(K, C)` nearest to `residual` `(M, C)`; all float32."""
        rows = max(1, self.max_scores // self.codebook_size)
        return torch.cat([_scores(part, embeddings, half_norms).argmax(-1) for part in residual.split(rows)])

    def _nearest_candidate(self, residual, embeddings, half_norms, low_precision: torch.Tensor) -> torch.Tensor:
        """As `_nearest`, among the best by scores of the `low_precision` embeddings `(K, C)`."""
        count = min(self.num_proposals, self.codebook_size)
        low_norms = half_norms.to(low_precision.dtype)
        rows = max(1, self.max_scores // max(self.codebook_size, count * residual.shape[-1]))
        nearest = []
        for part in residual.split(rows):
            candidates = _largest(_scores(part.to(low_precision.dtype), low_precision, low_norms), count)
            candidates = candidates.sort(-1).values  # (m, count); of equal embeddings the first, as in `_nearest`
            vectors = embeddings.index_select(0, candidates.flatten()).view(*candidates.shape, -1)  # (m, count, C)
            scores = torch.linalg.vecdot(vectors, part[:, None]) - half_norms[candidates]
            nearest.append(candidates.gather(-1, scores.argmax(-1, keepdim=True))[:, 0])
        return torch.cat(nearest)

    def _look_ups(self, residual: torch.Tensor, low_precision=None, half_norms=None):
        """
        Yields for each depth the codebook rows `(M,)` chosen and the float32 `residual` `(M, C)` it was given. The
        codebook in `low_precision`, if given, proposes candidates; `half_norms` `(rows,)` are computed if not given.
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
        """Codebook rows `(D, M)` and what each look-up was given, `(D, M, C)`, for float32 `features` `(M, C)`."""
        rows, residuals = zip(*self._look_ups(features), strict=True)
        return torch.stack(rows), torch.stack(residuals)

    def _gram_rows(self, features: torch.Tensor, gram: torch.Tensor, half_norms: torch.Tensor) -> torch.Tensor:
        """Codebook rows `(D, M)` for float32 `features` `(M, C)`, by the Gram matrix `(K, K)` of the one codebook."""
        codebook = self.codebook().float()
        rows = []
        # as many numbers as there are scores are gathered to be taken off them
        for part in features.split(max(1, self.max_scores // (2 * self.codebook_size))):
            scores = _scores(part, codebook, half_norms)
            found = [scores.argmax(-1)]
            for _ in range(1, self.code_depth):
                scores -= gram.index_select(0, found[-1])  # r_d.e = r_{d-1}.e - e(k_d).e
                found.append(scores.argmax(-1))
            rows.append(torch.stack(found))
        return torch.cat(rows, -1)

    @torch.compiler.disable(reason="it looks whether the codebook has changed")
    def _prepare(self) -> tuple[torch.Tensor, torch.Tensor]:
        """
        What the search reads beside the codebook, kept until the codebook changes: its Gram matrix or low precision,
        and half of the squared norms.
        """
        weight = self.codebook.weight
        if weight.is_meta or weight.is_inference():
            state = "is offloaded" if weight.is_meta else "was made under `torch.inference_mode()`"
            raise ValueError(
                f"`search` must be 'exact' for a codebook that {state}, got {self.search!r}: this one keeps what it "
                "computes from the codebook, and could not tell when that changes."
            )
        if self._prepared is not None:
            held, version, prepared = self._prepared
            # the memory of `held` is not free, so at its address lies no other tensor
            if held.data_ptr() == weight.data_ptr() and version == weight._version:
                return prepared
        self._prepared = None  # gives its memory back first
        codebook = weight.float()
        matrix = codebook @ codebook.T if self.search == "gram" else codebook.bfloat16()
        prepared = matrix, _half_norms(codebook)
        self._prepared = weight.detach(), weight._version, prepared
        return prepared

    def _rows_to_codes(self, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        offsets = torch.tensor([self.first_row(depth) for depth in range(self.code_depth)], device=rows.device)
        return (rows - offsets[:, None]).T.reshape(*shape[:-1], self.code_depth)

    @torch.no_grad()
    def encode(self, features: torch.Tensor) -> torch.LongTensor:
        """Maps `features` of shape `(N, L, C)` to `codes` of shape `(N, L, D)`, int64 in `[0, codebook_size)`."""
        with torch.autocast(features.device.type, enabled=False):
            flat = features.reshape(-1, features.shape[-1]).float()
            prepared = () if self.search == "exact" else self._prepare()
            if self.search == "gram":
                rows = self._gram_rows(flat, *prepared)
            else:
                rows = torch.stack([rows for rows, _ in self._look_ups(flat, *prepared)])
        return self._rows_to_codes(rows, features.shape)

    def code_embeddings(self, codes: torch.LongTensor) -> torch.Tensor:
        """
        Maps `codes` of shape `(N, L, D)` to their embeddings, `(N, L, D, C)`.

        Raises:
            ValueError: if the last dimension is not the code depth, or the codes are no integers.
        """
        self._check_codes(codes)
        if self.num_codebooks > 1:
            codes = codes + torch.arange(self.code_depth, device=codes.device) * self.codebook_size
        return self.codebook(codes)

    def decode(self, codes: torch.LongTensor) -> torch.Tensor:
        """Maps `codes` of shape `(N, L, D)` to quantized features of shape `(N, L, C)`, the sum over the depths."""
        return self.code_embeddings(codes).sum(dim=-2)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.LongTensor, torch.Tensor]:
        """
        Quantizes `features` of shape `(N, L, C)`; in training mode the codebook takes one EMA step, unless
        `tune_codebook` is off.

        Returns:
            The quantized features `(N, L, C)` with a straight-through gradient, the codes `(N, L, D)` and the
            commitment loss `()`: the mean over depths d of `||z - sg(sum_{i<=d} e(k_i))||^2`, itself a mean over
            elements (Lee et al., 2022, eq. 7).
        """
        with torch.autocast(features.device.type, enabled=False):
            flat = features.reshape(-1, features.shape[-1]).float()  # (M, C)
            moves = self.training and self.tune_codebook
            if moves:
                self._initialize(flat.detach())
            with torch.no_grad():
                rows, residuals = self._quantize(flat)
                quantized = self.codebook(rows).float().sum(0)
            # z - sg(partial sum), written with the residuals: its gradient with respect to z is that of z
            commitment_loss = (flat - quantized).square().mean()
            for residual in residuals[1:]:  # z minus the partial sums up to depths 1 .. D-1
                commitment_loss = commitment_loss + (flat - (flat.detach() - residual)).square().mean()
            commitment_loss = commitment_loss / self.code_depth
            if moves:
                self._update(rows, residuals)
        straight_through = features + (quantized.view_as(features).to(features.dtype) - features).detach()
        return straight_through, self._rows_to_codes(rows, features.shape), commitment_loss

    @torch.no_grad()
    def _initialize(self, features: torch.Tensor):
        """Fills an untrained codebook from the `features` `(M, C)` of the first batch, alike on every rank."""
        if self._known_initialized:
            return
        if not bool(self.initialized):
            residual, size = features, self.codebook_size
            for book in range(self.num_codebooks):
                rows = slice(book * size, (book + 1) * size)
                embeddings, sizes = _random_vectors(residual[None], size), torch.ones_like(self.cluster_size[rows])
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
        Lloyd's algorithm on the `vectors` `(M, C)` of all ranks, from `embeddings` `(K, C)`. A cluster without vectors
        stays where it is.

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
    def _update(self, rows: torch.Tensor, residuals: torch.Tensor):
        """One EMA step: `rows` `(D, M)` are the codebook rows chosen for `residuals` `(D, M, C)`."""
        decay, epsilon = self.config.codebook_decay, self.config.codebook_epsilon
        counts = torch.bincount(rows.flatten(), minlength=self.cluster_size.numel()).to(self.cluster_size.dtype)
        self.cluster_size.lerp_(sum_over_ranks(counts), 1 - decay)
        # each rank brings its share of the old sums, so that they are added up in place
        self.cluster_sum.mul_(decay / world_size())
        self.cluster_sum.index_add_(0, rows.flatten(), residuals.flatten(0, 1), alpha=1 - decay)
        sum_over_ranks(self.cluster_sum)
        if self.config.restart_unused_codes:
            self._restart(residuals)
        sizes = self.cluster_size.view(self.num_codebooks, -1)
        total = sizes.sum(-1, keepdim=True)
        smoothed = (sizes + epsilon) / (total + self.codebook_size * epsilon) * total
        torch.div(self.cluster_sum, smoothed.view(-1, 1), out=self.codebook.weight)

    def _restart(self, residuals: torch.Tensor):
        """Codes whose average size is under 1 begin anew at vectors of the batch that their codebook was given."""
        dead = self.cluster_size < 1
        groups = residuals.unflatten(0, (self.num_codebooks, -1))  # (codebooks, depths, M, C)
        for book, mask in enumerate(dead.view(self.num_codebooks, -1)):
            rows = mask.nonzero()[:, 0] + book * self.codebook_size
            if len(rows):
                self.cluster_sum[rows] = _random_vectors(groups[book], len(rows))
        self.cluster_size.masked_fill_(dead, 1.0)


def _half_norms(embeddings: torch.Tensor) -> torch.Tensor:
    """`||e||^2 / 2` of each row of `embeddings` `(K, C)`; a norm is taken without a second tensor of their size."""
    return torch.linalg.vector_norm(embeddings, dim=-1).square() / 2


def _scores(vectors: torch.Tensor, embeddings: torch.Tensor, half_norms: torch.Tensor) -> torch.Tensor:
    """Scores `(M, K)`, the higher the nearer: `||r - e||^2 / 2 = ||r||^2 / 2 - (r.e - ||e||^2 / 2)`."""
    return (vectors @ embeddings.T).sub_(half_norms)


def _largest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """
    Columns `(M, count)` of the largest `scores` `(M, K)`, in any order. They are looked for in the `count` groups of
    columns that have the largest maxima.
    """
    grouped = scores.unflatten(-1, (math.gcd(scores.shape[-1], 16), -1))  # (M, members, groups)
    members, groups = grouped.shape[1:]
    best = grouped.amax(1).topk(min(count, groups), sorted=False)[1]  # (M, some of the groups)
    places = grouped.gather(2, best[:, None].expand(-1, members, -1)).flatten(1).topk(count, sorted=False)[1]
    return best.gather(1, places % best.shape[1]) + places // best.shape[1] * groups


def _random_vectors(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """
    `count` vectors `(count, C)` drawn from the `vectors` `(depths, M, C)` of all ranks, repeated only if there are
    fewer; alike on every rank, and what one process with the whole batch would draw.
    """
    depths, own = vectors.shape[:2]
    sizes, rank = [own], 0
    if is_distributed():
        rank = torch.distributed.get_rank()
        gathered = torch.zeros(world_size(), dtype=torch.long, device=vectors.device)
        gathered[rank] = own
        sizes = sum_over_ranks(gathered).tolist()
    total = depths * sum(sizes)
    orders = [torch.randperm(total, device=vectors.device) for _ in range(-(-count // total))]
    order = torch.cat(orders)[:count]
    if not is_distributed():
        return vectors.flatten(0, 1)[order]
    torch.distributed.broadcast(order, src=0)
    depth, place = order // sum(sizes), order % sum(sizes) - sum(sizes[:rank])
    mine = (place >= 0) & (place < own)
    chosen = vectors[depth, place.clamp(0, own - 1)].masked_fill(~mine[:, None], 0)
    return sum_over_ranks(chosen)


__all__ = ["VilaUResidualQuantizer"]

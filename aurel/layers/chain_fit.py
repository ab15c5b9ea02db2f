"""Parameters of a chain of action units from labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aurel.facs.labels import check_labels
from aurel.layers.chain_likelihood import log_likelihoods
from aurel.ops.arguments import check_number
from aurel.ops.chain_marginals import chain_marginals

CANDIDATES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
_LENGTHS = 8


def fit_chain(
    clips: Sequence[Tensor], units: int, ridge: float
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """Return bias, couplings and costs of maximum likelihood, and the loss of a frame.

    Args:
        clips: labels (T, N) of each clip, T >= 1.
        units: number N of action units.
        ridge: penalty of half the squares.
    """
    check_number("ridge", ridge)
    if not ridge >= 0:
        raise ValueError(f"ridge must be 0 or more, got {ridge}")
    for clip in clips:
        check_labels(clip)
    frames = sum(map(len, clips))
    if frames == 0:
        raise ValueError("labels must have at least one frame, got none")
    data = _Labels([clip.detach().cpu() for clip in clips], units)
    first, second = torch.triu_indices(units, units, 1)
    bias, pairs, stay = (torch.zeros(size).double() for size in (units, len(first), units))
    stay += data.first_costs()
    free = [each.requires_grad_() for each in (bias, pairs, stay)]
    optimizer = torch.optim.LBFGS(free, max_iter=200, line_search_fn="strong_wolfe")

    def matrix() -> Tensor:
        half = torch.zeros(units, units, dtype=torch.float64).index_put((first, second), pairs)
        return half + half.T

    def closure() -> float:
        optimizer.zero_grad()
        likelihood = data.log_likelihood(bias, matrix(), stay.clamp_min(0))
        penalty = sum(each.square().sum() for each in free)
        loss = (ridge / 2 * penalty - likelihood) / frames
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    with torch.no_grad():
        found = (bias, matrix(), stay.clamp_min(0))
        loss = -data.log_likelihood(*found).item() / frames
    return found, loss


class _Labels:
    """Labels of clips as sums that their likelihood needs."""

    def __init__(self, clips: Sequence[Tensor], units: int) -> None:
        whole = [clip.double() for clip in clips if bool((clip >= 0).all())]
        self.active = torch.zeros(units).double()
        self.pairs = torch.zeros(units, units).double()
        self.changes = torch.zeros(units).double()
        for clip in whole:
            self.active += clip.sum(0)
            self.pairs += clip.T @ clip / 2
            self.changes += clip.diff(dim=0).abs().sum(0)
        self.pairs.fill_diagonal_(0)
        self.steps = sum(len(clip) - 1 for clip in whole)
        self.lengths = _weights_of_lengths([len(clip) for clip in whole])
        partly = [clip for clip in clips if bool((clip < 0).any())]
        padded = torch.nn.utils.rnn.pad_sequence(partly, True, -1) if partly else None
        self.partly = padded
        self.mask = None
        if padded is not None:
            lengths = torch.tensor([len(clip) for clip in partly])
            self.mask = torch.arange(padded.shape[1]) < lengths[:, None]

    def first_costs(self) -> Tensor:
        """Return costs (N,) that are right for action units without couplings and bias."""
        rate = (self.changes + 1) / (self.steps + 2)
        return ((1 - rate) / rate).log().clamp_min(0.1)

    def log_likelihood(self, bias: Tensor, couplings: Tensor, stay: Tensor) -> Tensor:
        """Return the log-likelihood of all clips, without evidence."""
        total = self.active @ bias + (self.pairs * couplings).sum() - self.changes @ stay
        for length, weight in self.lengths.items():
            fields = bias.expand(1, length, -1)
            total = total - weight * chain_marginals(fields, couplings, stay)[0].sum()
        if self.partly is not None:
            fields = bias.expand(self.partly.shape)
            found = log_likelihoods(fields, couplings, stay, self.partly, self.mask)
            total = total + found.sum()
        return total


def _weights_of_lengths(lengths: Sequence[int]) -> dict[int, float]:
    """Return a few lengths of clips, with how often each counts, by linear interpolation."""
    different = torch.tensor(sorted(set(lengths))).double()
    if len(different) > _LENGTHS:
        steps = torch.linspace(0, 1, _LENGTHS).double()
        different = different.quantile(steps, interpolation="nearest").unique()
    grid = different.long().tolist()
    weights = dict.fromkeys(grid, 0.0)
    for length in lengths:
        above = next(each for each in grid if each >= length)
        below = max(each for each in grid if each <= length)
        share = (length - below) / (above - below) if above > below else 1.0
        weights[above] += share
        weights[below] += 1 - share
    return weights


@torch.no_grad()
def best_temper(
    layer: Any,
    logits: Tensor,
    labels: Tensor,
    candidates: Sequence[float],
    mask: Tensor | None,
    gaps: Tensor | None,
) -> float:
    """Return the candidate for `temper` with the highest likelihood of the labels."""
    if not candidates or not all(0 < each <= 1 for each in candidates):
        raise ValueError(f"candidates must be numbers in (0, 1], got {candidates}")
    before = layer.temper.clone()
    scores = []
    try:
        for candidate in candidates:
            layer.temper.fill_(candidate)
            scores.append(layer.log_likelihood(logits, labels, mask, gaps).double().sum().item())
    finally:
        layer.temper.copy_(before)
    return float(candidates[scores.index(max(scores))])

"""Chains of binary action units by brute force over all paths, in numpy and float64."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Chain(NamedTuple):
    """The moments of a distribution over paths.

    Attributes:
        log_partition: logarithm of the sum of exp(score) over paths.
        marginals: (T, N) probabilities of being active.
        pairs: (N, N) expected numbers of frames in which both are active, half of it each way.
        changes: (T - 1, N) probabilities of a change.
        best: (T, N) path of the highest score.
    """

    log_partition: float
    marginals: Array
    pairs: Array
    changes: Array
    best: Array


def enumerate_paths(
    logits: Array,
    couplings: Array,
    stay: Array,
    mask: Array | None = None,
    allowed: Array | None = None,
) -> Chain:
    """Return the chain of one clip.

    Args:
        logits: (T, N).
        couplings: (N, N), of which both directions count half.
        stay: (N,) or (T - 1, N).
        mask: (T,) frames with evidence.
        allowed: (T, N) labels that paths must agree with, -1 for either.
    """
    frames, units = logits.shape
    bits = list(itertools.product((0, 1), repeat=units * frames))
    paths = np.array(bits, dtype=np.float64).reshape(-1, frames, units)
    if allowed is not None:
        paths = paths[((paths == allowed) | (allowed < 0)).all((1, 2))]
    seen = np.ones(frames) if mask is None else mask.astype(np.float64)
    first, second = np.triu_indices(units, 1)
    both = paths[..., first] * paths[..., second] * seen[:, None]
    changed = paths[:, 1:] != paths[:, :-1]
    score = (np.nan_to_num(logits) * paths * seen[:, None]).sum((1, 2))
    score += (both @ ((couplings + couplings.T) / 2)[first, second]).sum(1) - (changed * stay).sum(
        (1, 2)
    )
    top = score.max()
    weight = np.exp(score - top)
    total = weight.sum()
    weight /= total
    marginals, paired, changes = (
        np.tensordot(weight, each, 1) for each in (paths, both.sum(1), changed)
    )
    pairs = np.zeros((units, units))
    pairs[first, second] = pairs[second, first] = paired / 2
    return Chain(top + np.log(total), marginals, pairs, changes, paths[score.argmax()])

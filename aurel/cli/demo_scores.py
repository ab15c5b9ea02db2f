"""AUC over covered and visible AUs, with intervals from resampled people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aurel.cli.demo_runs import Outcome

Floats = NDArray[np.float64]
RESAMPLES = 1000


def weighted_auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return the area under the ROC curve for each row of weights.

    Args:
        scores: (M,), without ties.
        positive: (M,).
        weights: (R, M), how often each item counts.

    Returns:
        (R,), NaN where a class has no weight.
    """
    order = np.argsort(scores)
    weights, positive = weights[:, order], positive[order]
    negatives = np.cumsum(np.where(positive, 0.0, weights), axis=1)
    above = (np.where(positive, weights, 0.0) * negatives).sum(1)
    count = np.where(positive, weights, 0.0).sum(1) * negatives[:, -1]
    return np.divide(above, count, out=np.full(len(weights), np.nan), where=count > 0)


def mean_auc(
    probs: Floats, labels: NDArray[np.int8], counted: NDArray[np.bool_], weights: Floats
) -> Floats:
    """Return the mean AUC over the AUs for each row of weights, (R,).

    Args:
        probs: (M, N).
        labels: (M, N), 1, 0 or -1.
        counted: (M, N), the entries that are scored, such as those that are covered.
        weights: (R, M).
    """
    areas = []
    for au in range(probs.shape[1]):
        rows = counted[:, au] & (labels[:, au] >= 0)
        areas.append(weighted_auc(probs[rows, au], labels[rows, au] == 1, weights[:, rows]))
    return np.nanmean(areas, axis=0)


def score(
    outcomes: Sequence[Outcome],
    labels: NDArray[np.int8],
    visible: NDArray[np.bool_],
    people: Sequence[str],
    seed: int = 0,
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Score every variant: AUC of each seed, and the gain over the first with its interval.

    The interval is the central 95 % over resamples of the test people of the mean gain over seeds.

    Args:
        outcomes: of all seeds and variants.
        labels: (M, N) of the test faces.
        visible: (M, N), whether an AU can be seen.
        people: who each face is.
        seed: of the resamples.

    Returns:
        By variant and part ("covered", "visible"): `auc` of each seed, and `gain` over the first
        variant as mean, lower and upper end.
    """
    names, index = np.unique(np.asarray(people), return_inverse=True)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    weights = np.concatenate((np.ones((1, len(index))), draws[:, index].astype(float)))
    variants = list(dict.fromkeys(outcome.variant for outcome in outcomes))
    scores: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in variants}
    for part, counted in (("covered", ~visible), ("visible", visible)):
        areas: Mapping[str, Floats] = {
            name: np.stack(
                [
                    mean_auc(outcome.probs.astype(float), labels, counted, weights)
                    for outcome in sorted(outcomes, key=lambda o: o.seed)
                    if outcome.variant == name
                ]
            )
            for name in variants
        }
        for name, area in areas.items():
            gains = (area - areas[variants[0]]).mean(0)
            low, high = np.quantile(gains[1:], (0.025, 0.975))
            scores[name][part] = {
                "auc": area[:, 0].tolist(),
                "gain": [float(gains[0]), float(low), float(high)],
            }
    return scores

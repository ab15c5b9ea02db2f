"""Accumulated gradients that equal those of one large batch, also with unknown labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

COUNTED: Mapping[str, str] = {
    "asymmetric": "labels",
    "attention": "faces",
    "bce": "labels",
    "bce_sum": "labels",
    "circle": "rows",
    "dice": "labels",
    "edge": "pairs",
    "joint": "items",
    "landmark": "faces",
    "ordinal": "labels",
    "region": "labels",
    "triplet": "items",
}
"""What the mean of each loss is over: known labels, pairs of them, rows with one, ..."""


class AccumulatingLoader(DataLoader[dict[str, Any]]):
    """A loader that gives each batch its share in the mean of the batches of its step.

    Attributes:
        accumulate: number of batches of a step.
    """

    accumulate: int = 1

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        batches = super().__iter__()
        while group := list(islice(batches, self.accumulate)):
            factors = term_factors(group, self.accumulate)
            for batch, factor in zip(group, factors, strict=True):
                yield {**batch, "term_factors": factor}


def term_factors(group: Sequence[Mapping[str, Any]], accumulate: int) -> list[dict[str, float]]:
    r"""Return for each batch the factor of each loss.

    .. math:: f_i = A\, \frac{M_i}{\sum_j M_j}

    A trainer divides each loss by A, the number of batches of a step; times :math:`f_i`, the sum
    over the group is the mean over its known labels, :math:`M_i` of which are in batch i. A mean
    over groups of AUs ("region") is exact where the labels of a frame are all known or all unknown.

    Args:
        group: batches of a step; fewer than A at the end of an epoch.
        accumulate: A.
    """
    counts = [_counts(batch) for batch in group]
    totals = {kind: max(sum(count[kind] for count in counts), 1) for kind in counts[0]}
    return [
        {loss: accumulate * count[kind] / totals[kind] for loss, kind in COUNTED.items()}
        for count in counts
    ]


def _counts(batch: Mapping[str, Any]) -> dict[str, int]:
    items = len(batch["image"])
    labels: Tensor | None = batch.get("labels")
    counts = {"items": items, "labels": 0, "rows": 0, "pairs": 0, "faces": 0}
    if labels is not None:
        known = (labels >= 0).sum(-1)
        counts["labels"] = int(known.sum())
        counts["rows"] = int((known > 0).sum())
        counts["pairs"] = int(known.square().sum())
    if "landmarks" in batch:
        counts["faces"] = int(batch["landmarks"].isfinite().flatten(-2).all(-1).sum())
    return counts

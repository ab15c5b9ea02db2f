"""Gradients over several batches or processes that equal those of one large batch.

Also with unknown labels, of which each batch has another number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
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


class SharingLoader(DataLoader[dict[str, Any]]):
    """A loader that gives each batch its share in the mean of the batches of its step.

    A batch gets `term_factors`, see there, and `term_totals`, the numbers of known labels and of
    the other kinds in all batches of the step.

    Attributes:
        accumulate: number of batches of a step.
    """

    accumulate: int = 1

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        batches = super().__iter__()
        while group := list(islice(batches, self.accumulate)):
            factors, totals = term_factors(group, self.accumulate)
            for batch, factor in zip(group, factors, strict=True):
                yield {**batch, "term_factors": factor, "term_totals": totals}


def term_factors(
    group: Sequence[Mapping[str, Any]], accumulate: int
) -> tuple[list[dict[str, float]], dict[str, int]]:
    r"""Return for each batch the factor of each loss, and the numbers of known labels of the group.

    .. math:: f_i = A\, \frac{M_i}{\sum_j M_j}

    A trainer divides each loss by A, the number of batches of a step; times :math:`f_i`, the sum
    over the group is the mean over its known labels, :math:`M_i` of which are in batch i. A mean
    over groups of AUs ("region") is exact where the labels of a frame are all known or all unknown.

    Args:
        group: batches of a step; fewer than A at the end of an epoch.
        accumulate: A.
    """
    counts = [_counts(batch) for batch in group]
    totals = {kind: sum(count[kind] for count in counts) for kind in counts[0]}
    factors = [
        {loss: accumulate * count[kind] / max(totals[kind], 1) for loss, kind in COUNTED.items()}
        for count in counts
    ]
    return factors, totals


def shared_by_processes(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch whose factors are those among the batches of all processes.

    A trainer takes the mean of the gradients of W processes, so each factor is multiplied by W and
    by the share of this process in the known labels of the step.
    """
    if "term_totals" not in batch or not dist.is_initialized():
        return batch
    kinds = list(batch["term_totals"])
    own = torch.tensor([batch["term_totals"][kind] for kind in kinds], device=batch["image"].device)
    everyone = own.clone()
    dist.all_reduce(everyone)
    shares = dist.get_world_size() * own.double() / everyone.clamp(min=1)
    share = dict(zip(kinds, shares.tolist(), strict=True))
    factors = {loss: f * share[COUNTED[loss]] for loss, f in batch["term_factors"].items()}
    return {**batch, "term_factors": factors}


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

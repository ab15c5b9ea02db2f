"""Tables of the benchmark of relations, and how much two graphs agree."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from face_scores import line
from scipy.stats import spearmanr
from torch import Tensor

Row = dict[str, Any]
BASE = "SelfAdjustingGCN"
COLUMNS = (
    "layer", "AUC covered", "AUC visible", "closed (range)", "permuted", "graph and J",
    "graph and phi", "seeds agree", "step, ms", "forward", "measured", "threads",
)  # fmt: skip


def pair_values(graph: Tensor) -> list[float]:
    """Return the mean of both directions of each pair of nodes, N (N - 1) / 2 numbers."""
    row, column = torch.triu_indices(len(graph), len(graph), 1)
    return ((graph + graph.T) / 2)[row, column].tolist()


def agreement(graph: Tensor, other: Tensor) -> float | None:
    """Return Spearman's correlation of a graph with the absolute values of a matrix, by pairs.

    None where one of both is constant.
    """
    return rank_correlation(pair_values(graph), pair_values(other.abs()))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's correlation; None where one of both is constant."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return round(float(spearmanr(first, second).statistic), 4)


def tables(result: dict[str, Any]) -> str:
    """Return a Markdown table for each label table."""
    worlds = sorted({row["world"] for row in result["rows"]})
    return "\n\n".join(f"## {world}\n\n{table(result, world)}" for world in worlds)


def table(result: dict[str, Any], world: str) -> str:
    """Return the Markdown table of a world: means over seeds, from most to least closed."""
    rows = [row for row in result["rows"] if row["world"] == world]
    times = {row["layer"]: row for row in result["times"] if row["world"] == world}
    layers: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        layers.setdefault(row["layer"], []).append(row)
    lines = []
    for layer, own in layers.items():
        kept = [row for row in own if not row["permuted"]]
        if kept:
            shuffled = [row for row in own if row["permuted"]]
            cells = _cells(layer, kept, shuffled, times)
            lines.append((_mean(kept, "closed"), line(*cells)))
    ordered = [text for _, text in sorted(lines, key=lambda pair: -pair[0])]
    return "\n".join([line(*COLUMNS), line(*["---"] * len(COLUMNS)), *ordered])


def _cells(
    layer: str, kept: list[Row], shuffled: list[Row], times: dict[str, Row]
) -> tuple[str, ...]:
    low, high = (pick(row["closed"] for row in kept) for pick in (min, max))
    own, base = times.get(layer), times.get(BASE)
    return (
        layer,
        f"{_mean(kept, 'auc_covered'):.3f}",
        f"{_mean(kept, 'auc_visible'):.3f}",
        f"**{_percent(_mean(kept, 'closed'))} %** ({_percent(low)} to {_percent(high)})",
        f"{_percent(_mean(shuffled, 'closed'))} %" if shuffled else "",
        _correlation([row["with_couplings"] for row in kept if "with_couplings" in row]),
        _correlation([row["with_phi"] for row in kept if "with_phi" in row]),
        _correlation(_between_seeds(kept)),
        f"{own['step_ms']:.1f}" if own else "",
        f"{own['forward_ms'] / base['forward_ms']:.2f}" if own and base else "",
        max(row["measured"] for row in kept),
        str(kept[0]["threads"]),
    )


def _mean(rows: Sequence[Row], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


def _percent(share: float) -> int:
    return round(100 * share)


def _between_seeds(rows: Sequence[Row]) -> list[float | None]:
    graphs = [row["graph"] for row in rows if "graph" in row]
    return [rank_correlation(*pair) for pair in itertools.combinations(graphs, 2)]


def _correlation(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):+.2f}" if known else ""


def page(result: dict[str, Any]) -> str:
    """Return the page of results, with the conditions of the run."""
    about = result["about"] | {"seeds": len(result["about"]["seeds"])}
    return PAGE.format(tables=tables(result), **about)


PAGE = """# Do relation layers use the relations between AUs?

Measured on {date} with torch {torch} on {device}, float32, {threads} thread(s) of torch in each of
{jobs} processes:

    python benchmarks/relations.py {labels} --out benchmarks/results/relations

A test without images, in which it is known how much there is to gain.

- **Labels**: those of a label world (the pairwise model of the labels of BP4D, DISFA or EmotioNet
  that comes with the library), or of a file (`--labels FILE --groups COLUMN`; test subjects are
  held out).
- **Evidence**: AU j with label y shows x = q (2 y - 1) w + noise in 16 dimensions, with a direction
  w of its own. For 40 % of all AUs q = 0: they are *covered*, and x does not state which. For the
  others q is uniform in 0.3 to 1.5. Given the labels, the evidence of AUs is independent, so that
  only relations inform about a covered AU.
- **Nets**: a linear map of each AU's own to 32 channels, the layer, a read-out of each AU's own;
  {steps} steps of Adam on batches of {batch}, with new evidence in each. `PairwiseInference` is
  behind the net without a relation layer, starts from the pairwise model of the training labels
  and learns by the joint likelihood.
- **Bounds**: the local Bayes bound uses an AU's own evidence and its rate; the exact posterior uses
  all evidence and the joint distribution of the labels.

Columns, means over {seeds} seed(s):

- *AUC*: the mean over AUs, of covered and of visible ones.
- *closed*: the share of the way from the local bound to the exact posterior, in AUC on covered AUs;
  in brackets the smallest and the largest of the seeds.
- *permuted*: the same share with the labels of each AU permuted over the frames, for one seed. No
  relation is left, so it must be about 0.
- *graph and J*, *graph and phi*: Spearman correlation, over pairs of AUs, of the weights of the
  learned graph (its mean over test frames, blocks and directions) with the absolute couplings and
  the absolute correlations of the labels. *seeds agree*: the same of the graphs of two seeds.
  The graph of `PairwiseInference` starts from fitted couplings, so that its agreement is no
  discovery.
- *step, ms*: forward and backward of the net on a batch of {batch}, the least of several rounds in
  which layers take turns, in processor time where there is one thread. *forward*: of the net
  without gradients, relative to `SelfAdjustingGCN`.

In a world, the joint distribution has the form that `PairwiseInference` assumes. That of a file of
real labels has not, and there its share can be lower. The exact posterior of a file is that of the
training rows, a bound only as far as test subjects resemble them.

{tables}
"""

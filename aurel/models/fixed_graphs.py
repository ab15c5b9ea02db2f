"""Fixed graphs between the regions of SACL, by name or as a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from aurel.facs import (
    AUCenter,
    AUSet,
    conditional_probabilities,
    facs_graph,
    statistics_graph,
)
from aurel.layers.self_adjusting_gcn import Graph
from aurel.ops.arguments import check_choice

NamedGraph = Literal["knn", "self", "facs", "statistics"]
Matrix = tuple[tuple[bool, ...], ...]


def region_graph(
    graph: NamedGraph | Matrix, aus: AUSet, rules: Mapping[int, AUCenter], num_regions: int
) -> Graph | Tensor:
    """Return the argument `graph` of `SelfAdjustingGCN` for an option of SACL.

    Args:
        graph: a name, or a matrix of R rows.
        aus: the AUs.
        rules: center rules beyond those of the paper, by AU number.
        num_regions: number R of regions of these AUs.

    Raises:
        ValueError: "statistics", which needs labels, or a matrix of another size.
    """
    if not isinstance(graph, str):
        if len(graph) != num_regions:
            raise ValueError(
                f"graph must have R={num_regions} rows, one for each region of these AUs, got "
                f"{len(graph)}"
            )
        return torch.tensor(graph, device="cpu")  # also where the model is made on "meta"
    check_choice("graph", graph, get_args(NamedGraph))
    if graph == "statistics":
        raise ValueError(
            "graph must be a matrix of aurel.facs.statistics_graph outside a training run, which "
            "computes it from the training labels, got 'statistics'"
        )
    return facs_graph(aus, extra_rules=rules) if graph == "facs" else graph


def graph_from_labels(
    options: Mapping[str, Any], aus: AUSet, rules: Mapping[int, AUCenter], labels: Tensor
) -> dict[str, Any]:
    """Return the matrix for ``graph="statistics"`` in `options`, from labels (M, N); else {}."""
    if options.get("graph") != "statistics":
        return {}
    probabilities = conditional_probabilities(labels)
    return {"graph": statistics_graph(aus, probabilities, extra_rules=rules).tolist()}

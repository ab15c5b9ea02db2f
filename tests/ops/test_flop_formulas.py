"""What the ops tell a counter of operations, against the definitions, which it sees into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from aurel.ops import graph_attention, knn_graph, knn_max_relative, pair_pool, topk_aggregate
from aurel.ops.flop_formulas import flop_formulas
from aurel.ops.knn_graph import knn_graph_reference
from aurel.ops.knn_max_relative import knn_max_relative_reference
from aurel.ops.pair_pool import pair_pool_reference
from aurel.ops.topk_aggregate import topk_aggregate_reference


def nodes(*shape: int) -> Tensor:
    return torch.randn(*shape)


GRAPH = (nodes(2, 5, 7), 3)
VALUES = (nodes(2, 5, 7), nodes(2, 5, 11), 3)
PAIRS = (nodes(2, 3, 4, 6), nodes(2, 3, 4, 6))
Case = tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]
CASES: dict[str, Case] = {
    "knn": (knn_graph, knn_graph_reference, GRAPH, {"metric": "dot"}),
    "knn, cosine": (knn_graph, knn_graph_reference, GRAPH, {"metric": "cosine"}),
    "max-relative": (knn_max_relative, knn_max_relative_reference, GRAPH, {"metric": "dot"}),
    "top-k": (topk_aggregate, topk_aggregate_reference, VALUES, {}),
    "pairs": (pair_pool, pair_pool_reference, PAIRS, {}),
}


def operations(call: Callable[..., Any], *args: Any, **options: Any) -> int:
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        call(*args, **options)
    return counter.get_total_flops()


@pytest.mark.parametrize("case", CASES)
def test_as_many_as_the_definition_takes(case: str) -> None:
    op, reference, args, options = CASES[case]
    assert operations(op, *args, **options) == operations(reference, *args, **options) > 0


def test_the_scatter_of_pairs_costs_another_product() -> None:
    batch, count, tokens, width = 2, 3, 4, 6
    query, gram = nodes(batch, count, tokens, width), nodes(batch, count, tokens, tokens)
    pairs = 2 * batch * count**2 * tokens**2
    assert operations(pair_pool, query, query) == pairs * width
    assert operations(pair_pool, query, query, gram) == pairs * (width + tokens)


def test_ties_cost_a_product_with_the_adjacency() -> None:
    choice = operations(topk_aggregate, *VALUES)
    assert operations(topk_aggregate, *VALUES, ties="all") == choice + 2 * 2 * 5 * 5 * 11


def test_attention_averages_by_a_product() -> None:
    """Its definition multiplies and sums instead."""
    scores = (nodes(2, 3, 5), nodes(2, 3, 5), torch.ones(5, 5) > 0)
    assert operations(graph_attention, nodes(2, 3, 5, 7), *scores) == 2 * 2 * 3 * 5 * 5 * 7


def test_euclidean_is_counted_as_computed_and_manhattan_multiplies_nothing() -> None:
    assert operations(knn_graph, *GRAPH, metric="l2") == 2 * 2 * 5 * 5 * 7
    assert operations(knn_graph, *GRAPH, metric="l1") == 0


def test_every_other_operator_multiplies_no_matrices() -> None:
    """A new operator either gets a formula or goes in here."""
    names = (name.split(".")[0] for name in torch._C._dispatch_get_all_op_names())
    forward = {name for name in names if name.startswith("aurel::") and "backward" not in name}
    counted = {str(op).replace(".", "::") for op in flop_formulas()}
    assert counted < forward
    ragged = {name for name in forward if "ragged" in name}  # no model works on ragged graphs
    assert forward - counted - ragged <= {
        "aurel::edge_update",
        "aurel::gated_edge_aggregate",
        "aurel::neighbor_aggregate",
    }

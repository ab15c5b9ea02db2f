"""The FLOPs that each operator reports, against counts by hand and by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from aurel.ops import (
    chain_marginals,
    chain_viterbi,
    edge_update,
    gated_edge_aggregate,
    graph_attention,
    knn_graph,
    knn_max_relative,
    neighbor_aggregate,
    pair_pool,
    pairwise_marginals,
    pairwise_mode,
    ragged_knn_graph,
    topk_aggregate,
)
from aurel.ops.flop_formulas import flop_formulas
from aurel.ops.pair_pool import pair_pool_reference
from aurel.ops.registration import OPERATORS


def nodes(*shape: int) -> Tensor:
    return torch.randn(*shape)


GRAPH = (nodes(2, 5, 7), 3)
VALUES = (nodes(2, 5, 7), nodes(2, 5, 11), 3)
PAIRS = (nodes(2, 3, 4, 6), nodes(2, 3, 4, 6))
HEADS = (nodes(2, 3, 5, 7), nodes(2, 3, 5), nodes(2, 3, 5), torch.ones(5, 5) > 0)
CHAIN = (nodes(2, 5, 3), nodes(3, 3), nodes(3))

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
# Two operations a multiply-add, by operator; 0 where no matrices are multiplied.
CASES: dict[str, list[tuple[Call, int]]] = {
    "knn_graph": [
        *(
            ((knn_graph, GRAPH, {"metric": metric}), 2 * 2 * 5 * 5 * 7)
            for metric in ("l2", "cosine", "dot")
        ),
        ((knn_graph, GRAPH, {"metric": "l1"}), 0),
        ((knn_graph, GRAPH, {"sources": nodes(2, 4, 7)}), 2 * 2 * 5 * 4 * 7),
    ],
    "knn_max_relative": [
        ((knn_max_relative, GRAPH, {"metric": "dot"}), 2 * 2 * 5 * 5 * 7),
        ((knn_max_relative, GRAPH, {"sources": nodes(2, 4, 7)}), 2 * 2 * 5 * 4 * 7),
    ],
    "topk_aggregate": [
        ((topk_aggregate, VALUES, {}), 2 * 2 * 5 * 5 * 7),
        ((topk_aggregate, VALUES, {"metric": "l1"}), 0),
        ((topk_aggregate, VALUES, {"ties": "all"}), 2 * 2 * 5 * 5 * (7 + 11)),
        ((topk_aggregate, VALUES, {"ties": "all", "metric": "l1"}), 2 * 2 * 5 * 5 * 11),
    ],
    "graph_attention": [((graph_attention, HEADS, {}), 2 * 2 * 3 * 5 * 5 * 7)],
    "pair_pool": [
        ((pair_pool, PAIRS, {}), 2 * 2 * 3**2 * 4**2 * 6),
        ((pair_pool, PAIRS, {"gram": nodes(2, 3, 4, 4)}), 2 * 2 * 3**2 * 4**2 * (6 + 4)),
    ],
    "neighbor_aggregate": [
        ((neighbor_aggregate, (nodes(2, 5, 7), torch.zeros(2, 5, 3).long()), {}), 0)
    ],
    "gated_edge_aggregate": [((gated_edge_aggregate, (nodes(2, 5, 5, 7), nodes(2, 5, 7)), {}), 0)],
    "edge_update": [
        (
            (
                edge_update,
                (*nodes(2, 2, 5, 5, 7), *nodes(2, 2, 5, 7), *nodes(2, 5, 5)),
                {},
            ),
            0,
        )
    ],
    # Of 2^2 x 2^3 couplings with each half's factors; with pairs, those of each node of one half.
    "pairwise_marginals": [
        ((pairwise_marginals, (nodes(3, 5), nodes(5, 5)), {}), 2 * 3 * 32 * 2),
        ((pairwise_marginals, (nodes(3, 5), nodes(5, 5)), {"pairs": True}), 2 * 3 * 32 * (2 + 3)),
    ],
    "pairwise_mode": [((pairwise_mode, (nodes(3, 5), nodes(5, 5)), {}), 0)],
    # A step multiplies by 2 x 2 matrices, without a product that torch would count.
    "chain_marginals": [((chain_marginals, CHAIN, {}), 0)],
    "chain_scan": [((chain_marginals, CHAIN, {"backend": "torch"}), 0)],
    "chain_viterbi": [((chain_viterbi, CHAIN, {}), 0)],
    # The cost depends on the sizes of the graphs, not on shapes.
    "ragged_knn_graph": [((ragged_knn_graph, (nodes(5, 7), torch.zeros(5).long(), 3), {}), 0)],
}


def operations(call: Call) -> int:
    function, args, options = call
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        function(*args, **options)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", [name for name in OPERATORS if not name.endswith("_backward")])
def test_counts_of_every_operator(name: str) -> None:
    assert name in CASES, f"CASES of {__file__} must have a call of {name}"
    for call, expected in CASES[name]:
        assert operations(call) == expected
    assert (OPERATORS[name].flops is not None) == any(expected for _, expected in CASES[name])


def test_pairs_cost_as_much_as_torch_counts_in_the_definition() -> None:
    assert operations((pair_pool, PAIRS, {})) == operations((pair_pool_reference, PAIRS, {}))


def test_all_ties_cost_what_torch_counts_in_a_dense_product() -> None:
    """The product with the adjacency; distances in l1 are no matrix product."""
    _, values, _ = VALUES
    adjacency = torch.ones(values.shape[0], values.shape[1], values.shape[1])
    tied = operations((topk_aggregate, VALUES, {"ties": "all", "metric": "l1"}))
    assert tied == operations((torch.bmm, (adjacency, values), {}))

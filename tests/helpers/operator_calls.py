"""Calls of every operator, as its own arguments without the backend, for tests of operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aurel.ops.knn_graph import knn_graph_reference
from aurel.ops.pairwise_marginals import pairwise_marginals_reference
from aurel.ops.registration import OPERATORS

BATCH, NODES, SOURCES, WIDTH, K = 2, 5, 7, 4, 3
MASK = torch.tensor([[True, False, True, True, True], [True, True, True, False, True]])


@dataclass(frozen=True)
class OperatorCall:
    """Arguments without the backend, and how many outputs are results, not kept for a gradient."""

    results: int
    arguments: tuple[Any, ...]


def operator_calls() -> dict[str, list[OperatorCall]]:
    """Return calls of each operator, by its name; tensors that can have a gradient require it."""

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape).requires_grad_()

    x, sources, edges = (
        leaf(BATCH, *shape, WIDTH) for shape in ((NODES,), (SOURCES,), (NODES, NODES))
    )
    bias = torch.randn(NODES, SOURCES)
    node, other = x.detach(), sources.detach()
    source_mask = torch.ones(BATCH, SOURCES, dtype=torch.bool).triu()
    lists = knn_graph_reference(node, K, sources=other)
    grad, winner = torch.randn(BATCH, NODES, WIDTH), lists[..., :1].expand(-1, -1, WIDTH)
    winner = winner.to(torch.uint8).contiguous()
    own = lists.clamp_max(NODES - 1)
    tokens, gram = leaf(BATCH, NODES, 3, WIDTH), leaf(BATCH, NODES, 3, 3)
    pooled, scatter = torch.rand(BATCH, NODES, NODES, 3), torch.rand(BATCH, NODES, NODES)
    heads, scores = leaf(BATCH, 2, NODES, WIDTH), leaf(BATCH, 2, NODES)
    connected = torch.rand(BATCH, NODES, NODES) < 0.5
    grads = torch.randn(BATCH, 2, NODES, WIDTH), torch.randn(BATCH, 2, NODES, NODES)
    attention = (heads.detach(), scores.detach(), -scores.detach())
    weight, shift, mean, var = (each + 0.1 for each in torch.rand(4, NODES, NODES))
    pairs = weight.requires_grad_(), shift.requires_grad_()
    update = (edges, leaf(BATCH, NODES, NODES, WIDTH), x, leaf(BATCH, NODES, WIDTH), *pairs)
    graphs = torch.tensor([0, 0, 3, 3, 3, 8])
    flat, rows = torch.randn(6, WIDTH), torch.randn(5, WIDTH)
    empty = grad.new_empty(0)
    fields, couplings = leaf(BATCH, NODES), leaf(NODES, NODES)
    sums = (torch.randn(BATCH), torch.randn(BATCH, NODES), torch.rand(BATCH, NODES, NODES))
    fitted = (fields.detach(), couplings.detach())
    far = (1000 * fitted[0], fitted[1])
    outputs = pairwise_marginals_reference(*far, pairs=True)
    outputs = (outputs.log_partition, outputs.logits, outputs.pair_marginals)
    frames, coupled = leaf(BATCH, 4, 3), leaf(3)
    shared, changing = leaf(1, 3, 3), leaf(BATCH, 3, 3)
    seen = torch.tensor([[True, False, True, True], [False, True, True, False]])
    chain = _detached(frames, coupled, shared)
    states, changes = torch.rand(BATCH, 4, 8).double(), torch.rand(BATCH, 3, 3).double()
    table: dict[str, list[tuple[int, tuple[Any, ...]]]] = {
        "chain_marginals": [
            (2, (frames, coupled, shared, None, False)),
            (2, (frames, coupled, changing, seen, False)),
            (2, (frames, coupled, changing, None, True)),
        ],
        "chain_marginals_backward": [
            (3, (torch.randn(BATCH), torch.randn(BATCH, 4, 3), *chain, seen, False)),
            (3, (torch.randn(BATCH), None, *chain, None, False)),
            (3, (None, torch.randn(BATCH, 4, 3), *chain, None, False)),
        ],
        "chain_scan": [
            (2, (states, None, states[:, 0, 0], changes, False)),
            (2, (states, states.flip(0), states[:, 0, 0], changes[:1], True)),
        ],
        "chain_viterbi": [
            (1, (*chain, None)),
            (1, (*chain[:2], changing.detach(), seen)),
        ],
        "edge_update": [
            (1, (*update, mean, var, None, 1e-5)),
            (1, (*update, mean, var, MASK, 0.5)),
            (3, (*update, None, None, MASK, 0.5)),
            (3, (*update, None, None, None, 1e-5)),
        ],
        "edge_update_backward": [
            (5, (*_detached(edges, *update[1:]), mean, var, MASK, 1e-5, True)),
            (5, (*_detached(edges, *update[1:]), mean, var, None, 1e-5, False)),
        ],
        "gated_edge_aggregate": [(1, (edges, x, None)), (1, (edges, x, MASK))],
        "gated_edge_aggregate_backward": [
            (2, (grad, edges.detach(), node, None)),
            (2, (grad, edges.detach(), node, MASK)),
        ],
        "graph_attention": [
            (2, (heads, scores, -scores, connected, 0.2, True)),
            (1, (heads, scores, -scores, connected[0], 0.5, False)),
        ],
        "graph_attention_backward": [
            (3, (*grads, *attention, connected, 0.2)),
            (3, (grads[0], None, *attention, connected[0], 0.5)),
            (3, (None, grads[1], *attention, connected[0], 0.5)),
        ],
        "knn_graph": [
            (1, (node, None, None, None, None, K, "cosine", False, 1)),
            (1, (node, None, bias[:, :NODES], MASK, None, K, "l1", True, 1)),
            (1, (node, other, bias, MASK, source_mask, K, "l2", True, 2)),
        ],
        "knn_max_relative": [
            (2, (x, None, None, None, None, K, "l2", True, 1, True)),
            (2, (node, None, None, MASK, None, K, "l1", False, 1, False)),
            (2, (x, sources, bias, MASK, source_mask, K, "dot", True, 2, True)),
        ],
        "knn_max_relative_backward": [
            (2, (grad, own, winner.clamp_max(NODES - 1), NODES, True)),
            (2, (grad, lists, winner, SOURCES, False)),
            (2, (grad.bfloat16(), lists, winner, SOURCES, False)),
        ],
        "neighbor_aggregate": [
            *((1, (sources, lists, reduce, True)) for reduce in ("max", "mean", "sum")),
            (1, (other, lists, "max", False)),
        ],
        "neighbor_aggregate_backward": [
            *((1, (grad, lists, winner, SOURCES, reduce)) for reduce in ("max", "mean", "sum")),
            (1, (grad.bfloat16(), lists, winner, SOURCES, "max")),
        ],
        "pair_pool": [(2, (tokens, -tokens, gram)), (1, (tokens, -tokens, None))],
        "pair_pool_backward": [
            (3, (pooled, scatter, pooled, tokens.detach(), tokens.detach(), gram.detach())),
            (2, (pooled, empty, pooled, tokens.detach(), tokens.detach(), None)),
        ],
        "pairwise_marginals": [
            (3, (fields, couplings, None, False)),
            (3, (fields, couplings, MASK, True)),
            (3, (1000 * fields, couplings, MASK, True)),
        ],
        "pairwise_marginals_backward": [
            (2, (*sums[:2], empty, *sums[:2], empty, *fitted, None)),
            (2, (*sums[:2], empty, *outputs[:2], empty, *far, MASK)),
            (2, (*sums, *sums, *fitted, MASK)),
            (2, (*sums, *outputs, *far, None)),
        ],
        "pairwise_mode": [(1, (*fitted, None)), (1, (*far, MASK))],
        "ragged_knn_graph": [
            (1, (flat, graphs, None, None, K, "l2", False)),
            (1, (flat, graphs, rows, graphs[1:], K, "l1", True)),
        ],
        "topk_aggregate": [
            (2, (node, x, None, K, "dot", "exact")),
            (2, (node.sign(), x, MASK, K, "l1", "all")),
        ],
        "topk_aggregate_backward": [
            (1, (grad, own, empty, "exact")),
            (1, (grad, own, torch.rand(BATCH, NODES, NODES), "all")),
        ],
    }
    missing = sorted(OPERATORS.keys() - table.keys())
    assert not missing, f"tests/helpers/operator_calls.py must call every operator, lacks {missing}"
    return {name: [OperatorCall(*call) for call in calls] for name, calls in table.items()}


def _detached(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors]

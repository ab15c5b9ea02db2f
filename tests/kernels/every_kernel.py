"""Run every kernel once, forward and backward, on small odd sizes: for compute-sanitizer.

compute-sanitizer --tool memcheck python tests/kernels/every_kernel.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from aurel.ops import (
    chain_marginals,
    edge_update,
    gated_edge_aggregate,
    graph_attention,
    knn_graph,
    knn_max_relative,
    neighbor_aggregate,
    pair_pool,
    pairwise_marginals,
    topk_aggregate,
)
from aurel.ops.knn_graph import METRICS

TRITON = {"backend": "triton"}


def calls(device: str) -> Iterator[Callable[[], object]]:
    """Yield a call for every kernel and every branch that a size or an option takes."""

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, requires_grad=True)

    for nodes in (13, 70):
        x, values = leaf(2, nodes, 37), leaf(2, nodes, 37)
        mask = torch.rand(2, nodes, device=device) < 0.8
        for metric in METRICS:
            yield lambda x=x, m=metric, mask=mask: knn_max_relative(x, 5, m, mask=mask, **TRITON)[0]
        neighbors = knn_graph(x, 5, mask=mask, **TRITON)
        for reduce in ("max", "mean", "sum"):
            yield lambda x=x, n=neighbors, r=reduce: neighbor_aggregate(x, n, r, **TRITON)
        for ties in ("exact", "all") if nodes <= 64 else ("exact",):
            yield lambda x=x, v=values, t=ties: topk_aggregate(x, v, 5, ties=t, **TRITON)[0]
        adjacency = torch.rand(2, nodes, nodes, device=device) < 0.3
        heads, target, source = leaf(2, 3, nodes, 21), leaf(2, 3, nodes), leaf(2, 3, nodes)
        yield lambda h=heads, t=target, s=source, a=adjacency: graph_attention(
            h, t, s, a, **TRITON
        )[0]
    for tokens in (19, 70):
        query, key = leaf(2, 3, tokens, 21), leaf(2, 3, tokens, 21)
        gram = leaf(2, 3, tokens, tokens)
        yield lambda q=query, k=key, g=gram: pair_pool(q, k, g, **TRITON)
    for nodes in (5, 13):
        fields, couplings = leaf(5, nodes), leaf(nodes, nodes)
        mask = torch.rand(5, nodes, device=device) < 0.8
        for given in (None, mask):
            yield lambda f=fields, c=couplings, m=given: pairwise_marginals(f, c, mask=m, **TRITON)
    for units in (3, 11):  # of chain_scan: both directions, with sources and without
        logits, couplings, stay = leaf(3, 5, units), leaf(units, units), leaf(1, 4, units)
        for past in (False, True):
            yield lambda u=logits, j=couplings, s=stay, p=past: chain_marginals(
                u, j, s, past=p, **TRITON
            )
    edges, projected = leaf(2, 7, 7, 21), leaf(2, 7, 7, 21)
    target, source, weight, bias = leaf(2, 7, 21), leaf(2, 7, 21), leaf(7, 7), leaf(7, 7)
    mask = torch.rand(2, 7, device=device) < 0.8
    yield lambda: gated_edge_aggregate(edges, source, mask=mask, **TRITON)
    update = (edges, projected, target, source, weight, bias)
    yield lambda: edge_update(*update, mask=mask, **TRITON)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for call in calls(device):
        results = call()
        results = results if isinstance(results, tuple) else (results,)
        total = sum(r.sum() for r in results if isinstance(r, Tensor) and r.requires_grad)
        total.backward()
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

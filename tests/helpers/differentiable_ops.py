"""Every public op that has a gradient, as a function of the tensors that get one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from aurel import ops

BATCH, NODES, SOURCES, WIDTH, K = 2, 4, 5, 2, 2
MASK = torch.tensor([[True, False, True, True], [True, True, True, False]])
EDGES = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]) > 0
GRAPHS = torch.tensor([0, 0, 0, 2, 2, 2, 2, 7])
SOURCE_GRAPHS = torch.tensor([0, 0, 2, 2, 2])
LISTS = torch.tensor([[[0, 4], [1, -1], [-1, -1], [3, 2]], [[2, 2], [0, 3], [4, 1], [1, 0]]])
PAIRS = (torch.linspace(-0.4, 0.5, NODES * NODES).view(NODES, NODES),) * 2


@dataclass(frozen=True)
class Op:
    """An op as a function of tensors that get a gradient.

    Attributes:
        name: the name that messages about backends begin with.
        shapes: shapes of the tensors.
        call: takes the tensors and `backend`; returns the outputs that have a gradient.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    call: Callable[..., tuple[Tensor, ...]]

    def tensors(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for shape in self.shapes
        ]

    def leaves(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
        return [tensor.requires_grad_() for tensor in self.tensors(dtype, seed)]


def first(function: Callable[..., Any], **options: Any) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function whose one output is the first of those of an op."""

    def call(*tensors: Tensor, backend: str) -> tuple[Tensor, ...]:
        out = function(*tensors, backend=backend, **options)
        return out[:1] if isinstance(out, tuple) else (out,)

    return call


def max_relative_of_sources(x: Tensor, sources: Tensor, *, backend: str) -> tuple[Tensor, ...]:
    bias = torch.linspace(-1, 1, NODES * SOURCES).view(NODES, SOURCES)
    options = {"k": K, "mask": MASK, "bias": bias, "dilation": 2, "backend": backend}
    return ops.knn_max_relative(x, sources=sources, **options)[:1]


def ragged_of_sources(x: Tensor, sources: Tensor, *, backend: str) -> tuple[Tensor, ...]:
    given = {"sources": sources, "source_batch": SOURCE_GRAPHS, "backend": backend}
    return ops.ragged_knn_max_relative(x, GRAPHS, K, **given)[:1]


def topk(ties: str) -> Callable[..., tuple[Tensor, ...]]:
    x = torch.randn(BATCH, NODES, WIDTH, generator=torch.Generator().manual_seed(5)).double()

    def call(values: Tensor, *, backend: str) -> tuple[Tensor, ...]:
        return ops.topk_aggregate(x, values, K, ties=ties, mask=MASK, backend=backend)[:1]

    return call


def attention(*tensors: Tensor, backend: str) -> tuple[Tensor, ...]:
    out, weights = ops.graph_attention(*tensors, EDGES, negative_slope=0.3, backend=backend)
    return out, weights


def pool(*tensors: Tensor, backend: str) -> tuple[Tensor, ...]:
    outs = ops.pair_pool(*tensors, backend=backend)
    return tuple(out for out in outs if out is not None)


def cross_attention(mask: Tensor | None) -> Callable[..., tuple[Tensor, ...]]:
    return lambda *tensors, backend: ops.pairwise_cross_attention(
        *tensors, scale=0.7, mask=mask, backend=backend
    )


def pairwise(**options: Any) -> Callable[..., tuple[Tensor, ...]]:
    def call(*tensors: Tensor, backend: str) -> tuple[Tensor, ...]:
        found = ops.pairwise_marginals(*tensors, backend=backend, **options)
        return tuple(part for part in found if part is not None)

    return call


def chain(**options: Any) -> Callable[..., tuple[Tensor, ...]]:
    return lambda *tensors, backend: ops.chain_marginals(*tensors, backend=backend, **options)


NODE, SOURCE = (BATCH, NODES, WIDTH), (BATCH, SOURCES, WIDTH)
PAIR, SCORE = (BATCH, NODES, NODES, WIDTH), (BATCH, 2, NODES)
HEADS, TOKENS = ((BATCH, 2, NODES, WIDTH), SCORE, SCORE), (BATCH, 2, 3, 2)
UPDATE = (PAIR, PAIR, NODE, NODE, (NODES, NODES), (NODES, NODES))
GIVEN = (PAIRS[0], PAIRS[1] + 1)
MODEL = ((BATCH, NODES), (NODES, NODES))
FLAT, ROWS = (len(GRAPHS), WIDTH), (len(SOURCE_GRAPHS), WIDTH)
SEEN = torch.tensor([[True, False, True], [False, True, True]])
CHAIN = ((BATCH, 3, 3), (3, 3))

OPS: dict[str, Op] = {
    "chain_marginals": Op("chain_marginals", (*CHAIN, (3,)), chain()),
    "chain_marginals mask": Op("chain_marginals", (*CHAIN, (BATCH, 2, 3)), chain(mask=SEEN)),
    "chain_marginals past": Op("chain_marginals", (*CHAIN, (1, 2, 3)), chain(past=True)),
    "knn_max_relative": Op("knn_max_relative", (NODE,), first(ops.knn_max_relative, k=K)),
    "knn_max_relative of sources": Op("knn_max_relative", (NODE, SOURCE), max_relative_of_sources),
    **{
        f"neighbor_aggregate {reduce}": Op(
            "neighbor_aggregate",
            (SOURCE,),
            first(ops.neighbor_aggregate, neighbors=LISTS, reduce=reduce),
        )
        for reduce in ("max", "mean", "sum")
    },
    "topk_aggregate exact": Op("topk_aggregate", (NODE,), topk("exact")),
    "topk_aggregate all": Op("topk_aggregate", (NODE,), topk("all")),
    "graph_attention": Op("graph_attention", HEADS, attention),
    "graph_attention alone": Op(
        "graph_attention",
        HEADS,
        first(ops.graph_attention, adjacency=EDGES, return_weights=False),
    ),
    "pair_pool": Op("pair_pool", (TOKENS, TOKENS, (BATCH, 2, 3, 3)), pool),
    "pair_pool mean": Op("pair_pool", (TOKENS, TOKENS), pool),
    "pairwise_cross_attention": Op("pair_pool", (TOKENS,) * 3, cross_attention(None)),
    "pairwise_cross_attention mask": Op("pair_pool", (TOKENS,) * 3, cross_attention(MASK[:, :2])),
    "pairwise_marginals": Op("pairwise_marginals", MODEL, pairwise()),
    "pairwise_marginals pairs": Op("pairwise_marginals", MODEL, pairwise(mask=MASK, pairs=True)),
    "gated_edge_aggregate": Op(
        "gated_edge_aggregate", (PAIR, NODE), first(ops.gated_edge_aggregate)
    ),
    "gated_edge_aggregate mask": Op(
        "gated_edge_aggregate", (PAIR, NODE), first(ops.gated_edge_aggregate, mask=MASK)
    ),
    "edge_update": Op("edge_update", UPDATE, first(ops.edge_update)),
    "edge_update mask": Op("edge_update", UPDATE, first(ops.edge_update, mask=MASK)),
    "edge_update given": Op("edge_update", UPDATE, first(ops.edge_update, statistics=GIVEN)),
    "edge_update given mask": Op(
        "edge_update", UPDATE, first(ops.edge_update, statistics=GIVEN, mask=MASK)
    ),
    "ragged_neighbor_aggregate": Op(
        "neighbor_aggregate", (ROWS,), first(ops.ragged_neighbor_aggregate, neighbors=LISTS[0])
    ),
    "ragged_knn_max_relative": Op(
        "ragged_knn_graph", (FLAT,), first(ops.ragged_knn_max_relative, batch=GRAPHS, k=K)
    ),
    "ragged_knn_max_relative of sources": Op("ragged_knn_graph", (FLAT, ROWS), ragged_of_sources),
}
WITHOUT_GRADIENT = {
    "chain_viterbi",
    "knn_graph",
    "ragged_knn_graph",
    "pairwise_mode",
    "use_backend",
    "Backend",
}
missing = {*ops.__all__} - WITHOUT_GRADIENT - {name.split(" ")[0] for name in OPS}
assert not missing, f"tests/helpers/differentiable_ops.py must have every op, lacks {missing}"

every_op = pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))

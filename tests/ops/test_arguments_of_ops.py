"""Every op names an argument of a wrong type, dtype or value, and serves empty ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.every_backend import every_backend
from torch import Tensor

from aurel import ops

X, SOURCES = torch.randn(2, 5, 3), torch.randn(2, 7, 3)
MASK, SOURCE_MASK = torch.ones(2, 5) > 0, torch.ones(2, 7) > 0
FLAT, BATCH = torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 1])
PAIRS, TOKENS = torch.randn(2, 5, 5, 3), torch.randn(2, 5, 4, 3)
WEIGHT = torch.rand(5, 5)
UPDATE = {"edges": PAIRS, "projected": PAIRS, "target": X, "source": X}
KNN = {"x": X, "k": 2, "metric": "l2", "loop": True, "mask": MASK, "bias": WEIGHT, "dilation": 1}
AMONG = KNN | {"sources": SOURCES, "source_mask": SOURCE_MASK, "bias": torch.rand(5, 7)}
RAGGED = {"x": FLAT, "batch": BATCH, "k": 2, "metric": "l2", "loop": True}
RAGGED_AMONG = RAGGED | {"sources": FLAT, "source_batch": BATCH}
CHAIN = {
    "logits": torch.randn(2, 4, 3),
    "couplings": torch.randn(3, 3),
    "stay": torch.rand(3),
    "mask": torch.ones(2, 4) > 0,
}

# All arguments of valid calls, by op.
CALLS: dict[str, list[dict[str, Any]]] = {
    "chain_marginals": [CHAIN | {"past": False}],
    "chain_viterbi": [CHAIN],
    "knn_graph": [KNN, AMONG],
    "knn_max_relative": [KNN, AMONG],
    "neighbor_aggregate": [
        {"x": SOURCES, "neighbors": torch.zeros(2, 5, 3).long(), "reduce": "max"}
    ],
    "topk_aggregate": [
        {"x": X, "values": X, "k": 2, "metric": "l2", "ties": "exact", "mask": MASK}
    ],
    "graph_attention": [
        {
            "values": X[:, None],
            "target_score": X[:, None, :, 0],
            "source_score": X[:, None, :, 0],
            "adjacency": WEIGHT > 0,
            "negative_slope": 0.2,
            "return_weights": True,
        }
    ],
    "pair_pool": [{"query": TOKENS, "key": TOKENS, "gram": TOKENS @ TOKENS.mT}],
    "pairwise_cross_attention": [
        {"query": TOKENS, "key": TOKENS, "value": TOKENS, "scale": 0.5, "mask": MASK}
    ],
    "pairwise_marginals": [{"logits": X[..., 0], "couplings": WEIGHT, "mask": MASK, "pairs": True}],
    "pairwise_mode": [{"logits": X[..., 0], "couplings": WEIGHT, "mask": MASK}],
    "gated_edge_aggregate": [{"edge": PAIRS, "values": X, "mask": MASK}],
    "edge_update": [
        UPDATE
        | {"weight": WEIGHT, "bias": WEIGHT, "eps": 1e-5, "mask": MASK}
        | {"statistics": (WEIGHT, WEIGHT)}
    ],
    "ragged_knn_graph": [RAGGED, RAGGED_AMONG],
    "ragged_knn_max_relative": [RAGGED, RAGGED_AMONG],
    "ragged_neighbor_aggregate": [
        {"x": FLAT, "neighbors": torch.zeros(6, 3).long(), "reduce": "sum"}
    ],
}
OPTIONAL = {"mask", "sources", "source_mask", "source_batch", "bias", "gram", "statistics"}
WRONG: dict[type, list[Any]] = {
    Tensor: [[[1.0]], None, np.zeros((2, 5, 3)), 1.0, "x", (X,), object()],
    int: [2.0, True, "3", None, torch.tensor(2), [2]],
    float: ["0.1", None, True, torch.tensor(0.5), [0.5]],
    str: ["euclid", 1, None, ["l2"], True],
    bool: [1, 0, None, "True", torch.tensor(True)],
    tuple: [1.0, WEIGHT, "ab", (WEIGHT,), [1.0, 2.0], (None, WEIGHT), (WEIGHT, 1.0)],
}


def test_every_op_is_tested() -> None:
    assert {*CALLS, "Backend", "use_backend"} == set(ops.__all__)


def wrong_calls(name: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield an argument's name, a wrong value, and the call with it."""
    for good in CALLS[name]:
        for argument, value in good.items():
            optional = argument in OPTIONAL and (name, argument) != ("edge_update", "bias")
            for wrong in WRONG[type(value)]:
                if wrong is not None or not optional:
                    yield argument, wrong, good | {argument: wrong}


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_valid(name: str) -> None:
    for good in CALLS[name]:
        getattr(ops, name)(**good)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_named(name: str) -> None:
    count = 0
    for argument, wrong, call in wrong_calls(name):
        names = ("mean", "var", "statistics") if argument == "statistics" else (argument,)
        with pytest.raises((TypeError, ValueError)) as caught:
            getattr(ops, name)(**call)
        message = str(caught.value)
        assert message.split(" ")[0] in names, (argument, wrong, message)
        assert " must be " in message or " must have " in message, message
        assert "got " in message, message
        count += 1
    assert count > 10


@pytest.mark.parametrize("name", CALLS)
def test_integers_and_bools_are_no_features_and_numbers_no_masks(name: str) -> None:
    for good in CALLS[name]:
        for argument, value in good.items():
            if not isinstance(value, Tensor) or argument == "adjacency":
                continue
            floating = value.is_floating_point()
            for dtype in (torch.int64, torch.complex64) if floating else (torch.int32, torch.half):
                with pytest.raises(ValueError, match=f"^{argument} must .*got {dtype}"):
                    getattr(ops, name)(**good | {argument: value.to(dtype)})


@pytest.mark.parametrize("name", [name for name in CALLS if "k" in CALLS[name][0]])
def test_a_wrong_number_of_neighbors_is_named(name: str) -> None:
    function, good = getattr(ops, name), CALLS[name][0]
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"^k must be .*, got {k}$"):
            function(**good | {"k": k})
    for k in (2.0, True, "3"):
        with pytest.raises(TypeError, match=f"^k must be an int, got {k!r}$"):
            function(**good | {"k": k})
    if "dilation" in good:
        with pytest.raises(ValueError, match="^dilation must be 1 or more, got 0$"):
            function(**good | {"dilation": 0})
        with pytest.raises(ValueError, match=r"^k \* dilation must be in 1\.\.5 .*, got 2 \* 3$"):
            function(**good | {"dilation": 3})


@every_backend
def test_indices_out_of_range_are_refused(backend: str) -> None:
    for least, most in ((-2, 0), (0, 7), (-1, 10**9), (-(10**12), 3)):
        lists = torch.zeros(2, 5, 3).long()
        lists[0, 1, 2], lists[1, 4, 0] = least, most
        match = rf"^neighbors must be in -1\.\.6, got {least}\.\.{most}$"
        for reduce in ("max", "mean", "sum"):
            with pytest.raises(ValueError, match=match):
                ops.neighbor_aggregate(SOURCES, lists, reduce, backend=backend)
            with pytest.raises(ValueError, match=match):
                rows = SOURCES[0], lists.view(10, 3)
                ops.ragged_neighbor_aggregate(*rows, reduce, backend=backend)
    edge = torch.tensor([[[-1, 6, 0]]]).expand(2, 5, 3)
    assert ops.neighbor_aggregate(SOURCES, edge, backend=backend).isfinite().all()


@every_backend
def test_an_unsorted_batch_is_refused(backend: str) -> None:
    for batch, message in (
        ([0, 1, 0, 1, 1], "^batch must be sorted, got"),
        ([-1, 0, 0, 1, 1], "^batch must number graphs from 0 on, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            ops.ragged_knn_graph(FLAT, torch.tensor(batch), 2, backend=backend)


EMPTY: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "neighbor_aggregate": lambda b, n, c, backend: (
        (x := leaf(b, n, c)),
        *(
            ops.neighbor_aggregate(x, torch.full((b, n, 2), -1), reduce, backend=backend)
            for reduce in ("max", "mean", "sum")
        ),
    ),
    "graph_attention": lambda b, n, c, backend: (
        (x := leaf(b, 2, n, c)),
        *ops.graph_attention(
            x, leaf(b, 2, n), leaf(b, 2, n), torch.ones(n, n) > 0, backend=backend
        ),
        ops.graph_attention(
            x,
            leaf(b, 2, n),
            leaf(b, 2, n),
            torch.ones(b, n, n) > 0,
            return_weights=False,
            backend=backend,
        )[0],
    ),
    "pair_pool": lambda b, n, c, backend: (
        (x := leaf(b, n, 3, c)),
        *ops.pair_pool(x, x, leaf(b, n, 3, 3), backend=backend),
        ops.pair_pool(x, x, backend=backend)[0],
    ),
    "pairwise_cross_attention": lambda b, n, c, backend: (
        (x := leaf(b, n, 3, c)),
        *ops.pairwise_cross_attention(x, x, x, scale=1.0, backend=backend),
        *ops.pairwise_cross_attention(
            x, x, x, scale=1.0, mask=torch.ones(b, n) > 0, backend=backend
        ),
    ),
    "pairwise_marginals": lambda b, n, c, backend: (
        (x := leaf(b, n)),
        *ops.pairwise_marginals(x, leaf(n, n), pairs=True, backend=backend),
        *ops.pairwise_marginals(x, leaf(n, n), mask=torch.ones(b, n) > 0, backend=backend)[:3],
    ),
    "gated_edge_aggregate": lambda b, n, c, backend: (
        (x := leaf(b, n, c)),
        ops.gated_edge_aggregate(leaf(b, n, n, c), x, backend=backend),
        ops.gated_edge_aggregate(leaf(b, n, n, c), x, mask=torch.ones(b, n) > 0, backend=backend),
    ),
    "edge_update": lambda b, n, c, backend: (
        (x := leaf(b, n, n, c)),
        *(
            ops.edge_update(
                x,
                x * 2,
                leaf(b, n, c),
                leaf(b, n, c),
                leaf(n, n),
                leaf(n, n),
                statistics,
                mask=mask,
                backend=backend,
            )[0]
            for statistics in (None, (torch.zeros(n, n), torch.ones(n, n)))
            for mask in (None, torch.ones(b, n) > 0)
        ),
    ),
    "ragged_neighbor_aggregate": lambda b, n, c, backend: (
        (x := leaf(b * n, c)),
        ops.ragged_neighbor_aggregate(x, torch.full((b * n, 2), -1), backend=backend),
    ),
    "ragged_knn_max_relative": lambda b, n, c, backend: (
        (x := leaf(b * n, c)),
        ops.ragged_knn_max_relative(x, torch.arange(b).repeat_interleave(n), 2, backend=backend)[0],
        ops.ragged_knn_max_relative(
            x,
            torch.arange(b).repeat_interleave(n),
            2,
            sources=leaf(0, c),
            source_batch=torch.zeros(0).long(),
            backend=backend,
        )[0],
    ),
}


def leaf(*shape: int) -> Tensor:
    return torch.rand(shape, requires_grad=True)


@every_backend
@pytest.mark.parametrize("sizes", [(0, 3, 2), (2, 0, 2), (2, 3, 0), (0, 0, 0), (2, 1, 1)])
@pytest.mark.parametrize("name", EMPTY)
def test_empty_batches_graphs_and_features(
    name: str, sizes: tuple[int, int, int], backend: str
) -> None:
    x, *outs = EMPTY[name](*sizes, backend=backend)
    assert all(out.isfinite().all() for out in outs)
    (grad,) = torch.autograd.grad(
        sum(out.sum() for out in outs), x, allow_unused=True, materialize_grads=True
    )
    assert grad.shape == x.shape and grad.isfinite().all()


@every_backend
@pytest.mark.parametrize("metric", ["l2", "l1", "cosine", "dot"])
def test_choosing_among_nodes_without_channels_or_graphs(metric: str, backend: str) -> None:
    x = torch.zeros(2, 4, 0, requires_grad=True)
    for loop, first in ((True, [0, 1]), (False, [1, 2])):
        lists = ops.knn_graph(x, 2, metric, loop=loop, backend=backend)
        assert lists.shape == (2, 4, 2) and lists[0, 0].tolist() == first
    outs = [
        ops.knn_max_relative(x, 2, metric, backend=backend),
        ops.topk_aggregate(x, x, 2, metric, backend=backend),
        ops.topk_aggregate(x, x, 2, metric, ties="all", backend=backend),
        ops.knn_max_relative(x, 2, metric, sources=torch.zeros(2, 5, 0), backend=backend),
    ]
    for out, lists in outs:
        assert out.shape == (2, 4, 0) and torch.equal(lists, torch.arange(2).expand(2, 4, 2))
    sum(out.sum() for out, _ in outs).backward()
    assert x.grad.shape == x.shape
    none = torch.zeros(0, 4, 3, requires_grad=True)
    out, lists = ops.knn_max_relative(none, 2, metric, backend=backend)
    assert out.shape == (0, 4, 3) and lists.shape == (0, 4, 2)
    out.sum().backward()
    no_nodes = torch.zeros(2, 0, 3, requires_grad=True)
    out, lists = ops.knn_max_relative(no_nodes, 1, sources=torch.zeros(2, 3, 3), backend=backend)
    assert out.shape == (2, 0, 3) and lists.shape == (2, 0, 1)
    out.sum().backward()
    with pytest.raises(ValueError, match=r"^k must be in 1\.\.0 \(the number of nodes\), got 1$"):
        ops.knn_graph(no_nodes, 1, metric, backend=backend)

"""Compare every op of `aurel.ops` with plain PyTorch and with torch-cluster."""

from __future__ import annotations

from typing import Any

import peers
import pytest
import torch
from ceilings import Floor
from torch import Tensor

from aurel.ops import (
    chain_marginals,
    chain_viterbi,
    edge_update,
    gated_edge_aggregate,
    graph_attention,
    knn_graph,
    knn_max_relative,
    neighbor_aggregate,
    pairwise_cross_attention,
    pairwise_marginals,
    pairwise_mode,
    ragged_knn_graph,
    ragged_knn_max_relative,
    ragged_neighbor_aggregate,
    topk_aggregate,
)
from aurel.ops.pair_pool import pair_pool, pair_pool_reference
from aurel.ops.pairwise_cross_attention import pairwise_cross_attention_reference

FLOAT, INDEX, BYTE = 4, 8, 1
modes = pytest.mark.parametrize("mode", ["forward", "training"])

AU_GRAPHS = [{"B": 64, "N": nodes, "C": 512, "K": k} for nodes in (12, 18, 27, 41) for k in (4, 9)]
FEATURE_MAPS = [{"B": 16, "N": 196, "C": 192, "K": 9}, {"B": 4, "N": 784, "C": 96, "K": 9}]
GPU_AU_GRAPHS = [
    {"B": 64, "N": 12, "C": 512, "K": 4},
    {"B": 256, "N": 18, "C": 512, "K": 9},
    {"B": 256, "N": 27, "C": 512, "K": 4},
    {"B": 1024, "N": 41, "C": 512, "K": 9},
]
GPU_FEATURE_MAPS = [
    {"B": 64, "N": 196, "C": 384, "K": 18},
    {"B": 32, "N": 784, "C": 192, "K": 12},
    {"B": 8, "N": 3136, "C": 48, "K": 9},
    {"B": 8, "N": 3136, "C": 96, "K": 9},
]
SWEEP = [
    *({"B": 64, "N": nodes, "C": 512, "K": 4} for nodes in (8, 12, 16, 24, 32, 48, 64, 128)),
    *({"B": 64, "N": 18, "C": channels, "K": 4} for channels in (32, 64, 128, 256, 512, 1024)),
    *({"B": batch, "N": 18, "C": 512, "K": 4} for batch in (1, 4, 16, 64, 256)),
    *({"B": 64, "N": 27, "C": 512, "K": k} for k in (1, 2, 4, 8, 16)),
]
SMALL = {"B": 8, "N": 12, "C": 512, "K": 4}
FEW = {"cpu": [SMALL, AU_GRAPHS[0], AU_GRAPHS[4]], "cuda": GPU_AU_GRAPHS}
# 1024 images of 41 x 41 edges need more than 80 GB, for all sides and their gradients.
FEW_EDGES = {"cpu": FEW["cpu"], "cuda": [*GPU_AU_GRAPHS[:3], {**GPU_AU_GRAPHS[3], "B": 64}]}


def nodes_of(size: dict[str, int], bench: Any) -> Tensor:
    return torch.randn(size["B"], size["N"], size["C"], device=bench.device)


def count(size: dict[str, int], *names: str) -> int:
    total = 1
    for name in names:
        total *= size[name]
    return total


def distance_operations(size: dict[str, int]) -> int:
    return 2 * count(size, "B", "N", "N", "C")


@pytest.mark.sizes(cpu=[SMALL, *AU_GRAPHS, *FEATURE_MAPS], cuda=[*GPU_AU_GRAPHS, *GPU_FEATURE_MAPS])
def test_knn_graph(size: dict[str, int], bench: Any, versus_functions: Any) -> None:
    k = size["K"]
    moved = FLOAT * count(size, "B", "N", "C") + INDEX * count(size, "B", "N", "K")
    x = nodes_of(size, bench)
    versus_functions(
        "knn_graph",
        size,
        "forward",
        [x],
        {
            "aurel": lambda x: spread(x, knn_graph(x, k)),
            "eager": lambda x: spread(x, peers.nearest(x, k)),
            "cluster": lambda x: spread(x, peers.cluster_nearest(x, k)),
        },
        Floor(moved, distance_operations(size)),
        compiled="eager",
        selects=True,
    )


def spread(x: Tensor, neighbors: Tensor) -> Tensor:
    """Return a cheap function of a graph that does not depend on the order of neighbors."""
    return neighbors.to(x.dtype).square().sum(-1)


@modes
@pytest.mark.sizes(
    cpu=[SMALL, *AU_GRAPHS, *FEATURE_MAPS], cuda=[*GPU_AU_GRAPHS, *GPU_FEATURE_MAPS], sweep=SWEEP
)
def test_knn_max_relative(
    size: dict[str, int], mode: str, bench: Any, versus_functions: Any
) -> None:
    k, elements = size["K"], count(size, "B", "N", "C")
    moved = 2 * FLOAT * elements + INDEX * count(size, "B", "N", "K")
    if mode == "training":
        # indices of the maxima out and in, the gradient in and out
        moved += 2 * BYTE * elements + 2 * FLOAT * elements
    versus_functions(
        "knn_max_relative",
        size,
        mode,
        [nodes_of(size, bench)],
        {
            "aurel": lambda x: knn_max_relative(x, k)[0],
            "eager": lambda x: peers.max_relative(x, k),
            "cluster": lambda x: peers.cluster_max_relative(x, k),
        },
        Floor(moved, distance_operations(size)),
        compiled="eager",
        selects=True,
    )


@modes
@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.sizes(
    cpu=[SMALL, AU_GRAPHS[1], AU_GRAPHS[5]], cuda=[GPU_AU_GRAPHS[1], GPU_FEATURE_MAPS[1]]
)
def test_neighbor_aggregate(
    size: dict[str, int], reduce: Any, mode: str, bench: Any, versus_functions: Any
) -> None:
    x = nodes_of(size, bench)
    neighbors = knn_graph(x, size["K"])
    elements = count(size, "B", "N", "C")
    moved = 2 * FLOAT * elements + INDEX * count(size, "B", "N", "K")
    if mode == "training":
        moved += INDEX * count(size, "B", "N", "K") + 2 * FLOAT * elements
        moved += 2 * BYTE * elements if reduce == "max" else 0
    plain = peers.aggregate_max if reduce == "max" else peers.aggregate_mean
    versus_functions(
        f"neighbor_aggregate {reduce}",
        size,
        mode,
        [x, neighbors],
        {
            "aurel": lambda x, neighbors: neighbor_aggregate(x, neighbors, reduce),
            "eager": plain,
            "cluster": lambda x, neighbors: peers.scatter_rows(x, neighbors, reduce),
        },
        Floor(moved),
        compiled="eager",
    )


CHAINS = {
    "cpu": [{"B": 8, "T": 16, "N": 12}, {"B": 1, "T": 128, "N": 12}],
    "cuda": [{"B": 64, "T": 64, "N": 12}, {"B": 1, "T": 512, "N": 12}],
}


def chain_of(size: dict[str, int], bench: Any) -> list[Tensor]:
    """Return logits, couplings and costs of changes."""
    units = size["N"]
    logits = torch.randn(size["B"], size["T"], units, device=bench.device)
    couplings = torch.randn(units, units, device=bench.device) / 4
    return [logits, couplings, torch.full((units,), 3.0, device=bench.device)]


def chain_floor(size: dict[str, int], directions: int) -> Floor:
    """Both ends in float32; a step is N multiply-adds for each of 2^N states."""
    steps = 2 * directions * count(size, "B", "T", "N") * 2 ** size["N"]
    return Floor(2 * FLOAT * count(size, "B", "T", "N"), steps)


@modes
@pytest.mark.sizes(**CHAINS)
def test_chain_marginals(
    size: dict[str, int], mode: str, bench: Any, versus_functions: Any
) -> None:
    versus_functions(
        "chain_marginals",
        size,
        mode,
        chain_of(size, bench),
        {
            "aurel": lambda *given: chain_marginals(*given)[1],
            "eager": lambda *given: peers.smoothed_chain(*given),
        },
        chain_floor(size, 2 if mode == "forward" else 6),
    )


@pytest.mark.sizes(**CHAINS)
def test_chain_viterbi(size: dict[str, int], bench: Any, versus_functions: Any) -> None:
    versus_functions(
        "chain_viterbi",
        size,
        "forward",
        chain_of(size, bench),
        {
            "aurel": lambda *given: chain_viterbi(*given).float(),
            "eager": lambda *given: peers.best_path(*given),
        },
        chain_floor(size, 1),
        selects=True,
    )


RAGGED = {
    "cpu": [AU_GRAPHS[4], FEATURE_MAPS[0]],
    "cuda": [GPU_AU_GRAPHS[2], GPU_FEATURE_MAPS[0]],
}


def ragged_nodes(size: dict[str, int], bench: Any) -> tuple[Tensor, Tensor]:
    """Return nodes of B graphs, N / 2 to N in each, and the index of the graph of each node."""
    sizes = torch.randint(size["N"] // 2, size["N"] + 1, (size["B"],))
    batch = torch.arange(size["B"]).repeat_interleave(sizes)
    return torch.randn(len(batch), size["C"], device=bench.device), batch.to(bench.device)


def ragged_floor(size: dict[str, int], x: Tensor, batch: Tensor, mode: str) -> Floor:
    """Return the floor: nodes in, maxima and lists out; in training, gradients and indices, too."""
    moved = 2 * FLOAT * x.numel() + INDEX * len(x) * size["K"]
    moved += (2 * BYTE + 2 * FLOAT) * x.numel() if mode == "training" else 0
    return Floor(moved, 2 * int(batch.bincount().square().sum()) * size["C"])


@pytest.mark.sizes(**RAGGED)
def test_ragged_knn_graph(size: dict[str, int], bench: Any, versus_functions: Any) -> None:
    k = size["K"]
    x, batch = ragged_nodes(size, bench)
    moved = FLOAT * x.numel() + INDEX * len(x) * k
    versus_functions(
        "ragged_knn_graph",
        size,
        "forward",
        [x, batch],
        {
            "aurel": lambda x, batch: spread(x, ragged_knn_graph(x, batch, k)),
            "eager": lambda x, batch: spread(x, peers.ragged_nearest(x, batch, k)),
            "cluster": lambda x, batch: spread(x, peers.cluster_ragged_nearest(x, batch, k)),
        },
        Floor(moved, ragged_floor(size, x, batch, "forward").operations),
        selects=True,
    )


@modes
@pytest.mark.sizes(**RAGGED)
def test_ragged_knn_max_relative(
    size: dict[str, int], mode: str, bench: Any, versus_functions: Any
) -> None:
    k = size["K"]
    x, batch = ragged_nodes(size, bench)
    versus_functions(
        "ragged_knn_max_relative",
        size,
        mode,
        [x, batch],
        {
            "aurel": lambda x, batch: ragged_knn_max_relative(x, batch, k)[0],
            "eager": lambda x, batch: peers.ragged_max_relative(x, batch, k),
            "cluster": lambda x, batch: peers.cluster_ragged_max_relative(x, batch, k),
        },
        ragged_floor(size, x, batch, mode),
        selects=True,
    )


@modes
@pytest.mark.sizes(**RAGGED)
def test_ragged_neighbor_aggregate(
    size: dict[str, int], mode: str, bench: Any, versus_functions: Any
) -> None:
    x, batch = ragged_nodes(size, bench)
    versus_functions(
        "ragged_neighbor_aggregate max",
        size,
        mode,
        [x, ragged_knn_graph(x, batch, size["K"])],
        {
            "aurel": ragged_neighbor_aggregate,
            "eager": peers.ragged_max,
            "cluster": peers.cluster_ragged_max,
        },
        Floor(ragged_floor(size, x, batch, mode).bytes),
        compiled="eager",
    )


@modes
@pytest.mark.sizes(**FEW)
def test_topk_aggregate(size: dict[str, int], mode: str, bench: Any, versus_functions: Any) -> None:
    k, elements = size["K"], count(size, "B", "N", "C")
    moved = 3 * FLOAT * elements + INDEX * count(size, "B", "N", "K")
    moved += 2 * FLOAT * elements if mode == "training" else 0
    versus_functions(
        "topk_aggregate",
        size,
        mode,
        [nodes_of(size, bench), nodes_of(size, bench)],
        {
            "aurel": lambda x, values: topk_aggregate(x.detach(), values, k)[0],
            "eager": lambda x, values: peers.topk_convolution(x, values, k),
        },
        Floor(moved, distance_operations(size)),
        compiled="eager",
        selects=True,
    )


BINARY_MODELS: dict[str, list[dict[str, int]]] = {
    "cpu": [{"B": 8, "N": 12}, {"B": 512, "N": 12}],
    "cuda": [{"B": 64, "N": 12}, {"B": 4096, "N": 12}],
    "sweep": [{"B": 64, "N": nodes} for nodes in (4, 6, 8, 10, 12, 14)],
}


@modes
@pytest.mark.sizes(**BINARY_MODELS)
def test_pairwise_marginals(
    size: dict[str, int], mode: str, bench: Any, versus_functions: Any
) -> None:
    logits, couplings, table = binary_model(size, bench)
    versus_functions(
        "pairwise_marginals",
        size,
        mode,
        [logits, couplings],
        {
            "aurel": lambda *args: pairwise_marginals(*args).marginals,
            "eager": lambda *args: table(*args).softmax(1) @ table.states,
        },
        Floor(FLOAT * (2 * logits.numel() + couplings.numel()), 4 * size["B"] * 2 ** size["N"]),
        compiled="eager",
    )


@pytest.mark.sizes(**BINARY_MODELS)
def test_pairwise_mode(size: dict[str, int], bench: Any, versus_functions: Any) -> None:
    logits, couplings, table = binary_model(size, bench)
    versus_functions(
        "pairwise_mode",
        size,
        "forward",
        [logits, couplings],
        {
            "aurel": lambda *args: pairwise_mode(*args).float(),
            "eager": lambda *args: table.states[table(*args).argmax(1)],
        },
        Floor(FLOAT * (2 * logits.numel() + couplings.numel()), 2 * size["B"] * 2 ** size["N"]),
        compiled="eager",
    )


def binary_model(size: dict[str, int], bench: Any) -> tuple[Tensor, Tensor, peers.StateTable]:
    batch, nodes = size["B"], size["N"]
    logits = torch.randn(batch, nodes, device=bench.device)
    couplings = torch.randn(nodes, nodes, device=bench.device)
    return logits, couplings, peers.StateTable(nodes, bench.device)


@modes
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.sizes(**FEW)
def test_graph_attention(
    size: dict[str, int], heads: int, mode: str, bench: Any, versus_functions: Any
) -> None:
    batch, nodes, channels = size["B"], size["N"], size["C"] // heads
    values = torch.randn(batch, heads, nodes, channels, device=bench.device)
    target, source = (torch.randn(batch, heads, nodes, device=bench.device) for _ in range(2))
    adjacency = torch.rand(batch, nodes, nodes, device=bench.device) < 0.4
    adjacency |= torch.eye(nodes, dtype=torch.bool, device=bench.device)
    moved = 2 * FLOAT * values.numel() + adjacency.numel() + 2 * FLOAT * target.numel()
    moved *= 2 if mode == "training" else 1
    shown = {"B": batch, "H": heads, "N": nodes, "C": channels}
    versus_functions(
        "graph_attention",
        shown,
        mode,
        [values, target, source, adjacency],
        {
            "aurel": lambda *args: graph_attention(*args, return_weights=False)[0],
            "eager": peers.attention,
        },
        Floor(moved, 2 * heads * batch * nodes * nodes * channels),
        compiled="eager",
    )


@modes
@pytest.mark.sizes(
    cpu=[{"B": 8, "N": 12, "D": 49}, {"B": 2, "N": 27, "D": 49}],
    cuda=[{"B": 64, "N": 12, "D": 49}, {"B": 64, "N": 27, "D": 49}, {"B": 16, "N": 41, "D": 49}],
)
def test_pair_pool(size: dict[str, int], mode: str, bench: Any, versus_functions: Any) -> None:
    batch, nodes, tokens = size.values()
    shape = (batch, nodes, tokens, tokens)
    query, key, values = (torch.randn(shape, device=bench.device) for _ in range(3))
    gram = values @ values.mT / tokens
    pairs = count(size, "B", "N", "N")
    moved = FLOAT * (3 * gram.numel() + pairs * (tokens + 1))
    operations = 4 * pairs * tokens**3
    if mode == "training":
        moved, operations = 3 * moved, 4 * operations
    versus_functions(
        "pair_pool",
        size,
        mode,
        [query, key, gram],
        {
            "aurel": lambda *args: joined(pair_pool(*args)),
            "eager": lambda *args: joined(pair_pool_reference(*args)),
        },
        Floor(moved, operations),
        compiled="eager",
    )


def joined(moments: tuple[Tensor, Tensor | None]) -> Tensor:
    assert moments[1] is not None
    return torch.cat([moments[0], moments[1].unsqueeze(-1)], -1)


@modes
@pytest.mark.sizes(
    cpu=[{"B": 2, "N": 12, "D": 49, "C": 512}],
    cuda=[{"B": 16, "N": 12, "D": 49, "C": 512}, {"B": 16, "N": 27, "D": 49, "C": 512}],
)
def test_pairwise_cross_attention(
    size: dict[str, int], mode: str, bench: Any, versus_functions: Any
) -> None:
    batch, nodes, tokens, channels = size.values()
    width = channels // 2
    query, key = (torch.randn(batch, nodes, tokens, width, device=bench.device) for _ in range(2))
    value = torch.randn(batch, nodes, tokens, channels, device=bench.device)
    pairs = count(size, "B", "N", "N")
    moved = FLOAT * (query.numel() + key.numel() + value.numel() + pairs * (channels + 1))
    operations = 2 * pairs * tokens * (tokens * width + tokens**2 + channels)
    if mode == "training":
        moved, operations = 3 * moved, 3 * operations

    def pooled(moments: tuple[Tensor, Tensor]) -> Tensor:
        return joined((moments[0], moments[1] / (tokens * channels)))

    versus_functions(
        "pairwise_cross_attention",
        size,
        mode,
        [query, key, value],
        {
            "aurel": lambda *args: pooled(pairwise_cross_attention(*args, scale=width**-0.5)),
            "eager": lambda *args: pooled(pairwise_cross_attention_reference(*args, width**-0.5)),
        },
        Floor(moved, operations),
        compiled="eager",
    )


@modes
@pytest.mark.sizes(**FEW_EDGES)
def test_gated_edge_aggregate(
    size: dict[str, int], mode: str, bench: Any, versus_functions: Any
) -> None:
    batch, nodes, channels = size["B"], size["N"], size["C"]
    edge = torch.randn(batch, nodes, nodes, channels, device=bench.device)
    values = torch.randn(batch, nodes, channels, device=bench.device)
    moved = FLOAT * (edge.numel() + 2 * values.numel())
    moved = 3 * moved if mode == "training" else moved  # the edges in twice, their gradient out
    versus_functions(
        "gated_edge_aggregate",
        {"B": batch, "N": nodes, "C": channels},
        mode,
        [edge, values],
        {"aurel": gated_edge_aggregate, "eager": peers.gated_sum},
        Floor(moved),
        compiled="eager",
    )


@modes
@pytest.mark.sizes(**FEW_EDGES)
def test_edge_update(size: dict[str, int], mode: str, bench: Any, versus_functions: Any) -> None:
    batch, nodes, channels = size["B"], size["N"], size["C"]
    pairs, ends = (batch, nodes, nodes, channels), (batch, nodes, channels)
    edges, projected = (torch.randn(pairs, device=bench.device) for _ in range(2))
    target, source = (torch.randn(ends, device=bench.device) for _ in range(2))
    weight, bias = (torch.rand(nodes, nodes, device=bench.device) for _ in range(2))
    # Statistics need a pass over the projection before the pass that writes, also backward.
    passes = 4 if mode == "forward" else 11
    versus_functions(
        "edge_update",
        {"B": batch, "N": nodes, "C": channels},
        mode,
        [edges, projected, target, source, weight, bias],
        {"aurel": lambda *args: edge_update(*args)[0], "eager": peers.edge_update},
        Floor(passes * FLOAT * edges.numel()),
        compiled="eager",
    )

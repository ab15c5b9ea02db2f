"""Compare relation layers with their plain definitions and PyTorch Geometric's layers."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from ceilings import Floor
from measure import Step
from peers import StateTable, attention, gathered
from plain_me_graphau import GatedGraph, TopKGraph
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers import (
    CrossRegionGAT,
    EdgeGraphConv,
    GatedEdgeGCN,
    GINGraphConv,
    MaxRelativeGraphConv,
    MultiDimensionalEdges,
    PairwiseInference,
    SAGEGraphConv,
    SelfAdjustingGCN,
    TopKGraphConv,
)
from aurel.layers.linear_norm import interleave
from aurel.layers.reference_edges import materialized_edges
from aurel.models.author_keys.layers import gated_edge_gcn, topk_graph_conv
from aurel.ops import knn_graph

try:
    import pyg_layers
except ImportError:
    pyg_layers = None

CHANNELS, TOKENS = 512, 49


def gradients(out: Tensor, inputs: list[Tensor], module: nn.Module) -> list[Tensor]:
    """Return the output, and the gradients of inputs and parameters for a fixed cotangent."""
    cotangent = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)
    # A bias of the keys does not change a softmax: its gradient is rounding.
    learned = [p for name, p in module.named_parameters() if not name.endswith("key.bias")]
    return [out.detach(), *torch.autograd.grad(out, [*inputs, *learned], cotangent)]


@pytest.mark.sizes(
    cpu=[{"B": 8, "N": 12}, {"B": 2, "N": 27}],
    cuda=[{"B": 64, "N": 12}, {"B": 64, "N": 27}],
    sweep=[{"B": 2, "N": nodes} for nodes in (4, 8, 12, 18, 27)],
)
def test_multi_dimensional_edges(size: dict[str, int], bench: Any, versus: Any) -> None:
    batch, nodes = size["B"], size["N"]
    layer = MultiDimensionalEdges(CHANNELS, nodes).to(bench.device)
    plain = deepcopy(layer)
    # In memory tokens come before nodes, as in the output of `AUSpecificFeatures`.
    node_tokens = torch.rand(batch, TOKENS, nodes, CHANNELS, device=bench.device)
    node_tokens = node_tokens.transpose(1, 2).requires_grad_()
    face_tokens = torch.rand(batch, TOKENS, CHANNELS, device=bench.device).requires_grad_()
    inputs = [node_tokens, face_tokens]

    def aurel() -> list[Tensor]:
        return gradients(layer(*inputs), inputs, layer)

    def definition() -> list[Tensor]:
        edges = materialized_edges(plain, *inputs).mean(2)
        return gradients(edges.view(batch, nodes, nodes, CHANNELS), inputs, plain)

    features = 4 * (node_tokens.numel() + face_tokens.numel() + batch * nodes**2 * CHANNELS)
    # Projections of the node tokens, then for each pair a D x D attention in token space.
    projections = 2 * batch * nodes * TOKENS * CHANNELS * CHANNELS // 2
    pairs = 2 * batch * nodes**2 * (2 * TOKENS**3 + TOKENS * CHANNELS)
    versus(
        "MultiDimensionalEdges",
        size,
        "training",
        {"aurel": aurel, "definition": definition},
        Floor(3 * features, 3 * (projections + pairs)),
    )


@pytest.mark.sizes(
    cpu=[{"B": 16, "N": 12}, {"B": 8, "N": 27}], cuda=[{"B": 64, "N": 12}, {"B": 64, "N": 27}]
)
def test_gated_edge_gcn(size: dict[str, int], bench: Any, versus: Any) -> None:
    batch, nodes = size["B"], size["N"]
    plain = GatedGraph(CHANNELS, nodes).to(bench.device)
    layer = GatedEdgeGCN(CHANNELS, nodes).to(bench.device)
    layer.load_state_dict(gated_edge_gcn(plain.state_dict()))
    x = torch.randn(batch, nodes, CHANNELS, device=bench.device).requires_grad_()
    edges = torch.randn(batch, nodes, nodes, CHANNELS, device=bench.device).requires_grad_()

    def aurel() -> list[Tensor]:
        out, updated = layer(x, edges)
        return gradients(out.sum(1) + updated.sum((1, 2)), [x, edges], layer)[:3]

    def definition() -> list[Tensor]:
        out, updated = plain(x, edges.flatten(1, 2))
        return gradients(out.sum(1) + updated.sum(1), [x, edges], plain)[:3]

    versus("GatedEdgeGCN", size, "training", {"aurel": aurel, "plain": definition})


@pytest.mark.sizes(
    cpu=[{"B": 64, "N": 12, "K": 4}, {"B": 64, "N": 27, "K": 4}],
    cuda=[{"B": 256, "N": 12, "K": 4}, {"B": 256, "N": 27, "K": 4}],
)
def test_topk_graph_conv(size: dict[str, int], bench: Any, versus: Any) -> None:
    batch, nodes, k = size.values()
    plain = TopKGraph(CHANNELS, nodes, k).to(bench.device)
    layer = TopKGraphConv(CHANNELS, nodes, k).to(bench.device)
    layer.load_state_dict(topk_graph_conv(plain.state_dict()))
    x = torch.randn(batch, nodes, CHANNELS, device=bench.device).requires_grad_()
    steps: dict[str, Step] = {
        "aurel": lambda: gradients(layer(x), [x], layer)[:2],
        "plain": lambda: gradients(plain(x), [x], plain)[:2],
    }
    versus("TopKGraphConv", size, "training", steps, allowed=0.01)


@pytest.mark.sizes(cpu=[{"B": 64, "N": 12, "H": 4}], cuda=[{"B": 256, "N": 12, "H": 4}])
def test_cross_region_gat(size: dict[str, int], bench: Any, versus: Any) -> None:
    batch, nodes, heads = size.values()
    regions = [node * 3 // nodes for node in range(nodes)]
    layer = CrossRegionGAT(CHANNELS, regions, heads, "cross_region").to(bench.device)
    plain, peer = deepcopy(layer), deepcopy(layer)
    x = torch.randn(batch, nodes, CHANNELS, device=bench.device).requires_grad_()
    adjacency = layer.adjacency(x).expand(batch, -1, -1)
    sample, target, source = adjacency.nonzero(as_tuple=True)
    edges = torch.stack((source, target)) + nodes * sample

    def definition() -> list[Tensor]:
        z = plain.linear(x).unflatten(-1, (heads, -1)).transpose(1, 2)
        ends = plain.target_attention, plain.source_attention
        scores = [(z * vector.unsqueeze(1)).sum(-1) for vector in ends]
        out = attention(z, *scores, adjacency).transpose(1, 2).flatten(2)
        return gradients(F.elu(out + x + plain.bias), [x], plain)

    def pyg() -> list[Tensor]:
        out = pyg_layers.attention(peer, x.flatten(0, 1), edges)
        return gradients(out.view(x.shape), [x], peer)

    steps: dict[str, Step] = {
        "aurel": lambda: gradients(layer(x), [x], layer),
        "plain": definition,
    }
    if pyg_layers is not None:
        steps["pyg"] = pyg
    versus("CrossRegionGAT", size, "training", steps)


@pytest.mark.sizes(cpu=[{"B": 16, "N": 12, "K": 9}], cuda=[{"B": 64, "N": 12, "K": 9}])
def test_self_adjusting_gcn(size: dict[str, int], bench: Any, versus: Any) -> None:
    batch, nodes, k = size.values()
    layer = SelfAdjustingGCN(64, 64, k=k).to(bench.device)
    plain = deepcopy(layer)
    for conv in plain.modules():
        if isinstance(conv, MaxRelativeGraphConv):
            conv.forward = partial(plain_block_conv, conv)  # type: ignore[method-assign]
    x = torch.randn(batch, nodes, 64, device=bench.device).requires_grad_()
    steps: dict[str, Step] = {
        "aurel": lambda: gradients(layer(x), [x], layer)[:2],
        "plain": lambda: gradients(plain(x), [x], plain)[:2],
    }
    # One near-tie of neighbors changes all later values of its graph.
    versus("SelfAdjustingGCN", size, "training", steps, allowed=1.5 / batch)


def plain_block_conv(layer: Any, x: Tensor, mask: None, neighbors: Tensor) -> Tensor:
    return plain_conv(layer, x, neighbors)


@pytest.mark.sizes(
    cpu=[{"B": 8, "N": 12}, {"B": 64, "N": 12}],
    cuda=[{"B": 64, "N": 12}, {"B": 1024, "N": 12}],
)
def test_pairwise_inference(size: dict[str, int], bench: Any, versus: Any) -> None:
    batch, nodes = size.values()
    layer = PairwiseInference(nodes).to(bench.device)
    nn.init.normal_(layer.couplings)
    table = StateTable(nodes, bench.device)
    logits = torch.randn(batch, nodes, device=bench.device).requires_grad_()

    def plain() -> list[Tensor]:
        energies = table(logits + layer.bias, layer.couplings)
        return gradients((energies.softmax(1) @ table.states).logit(), [logits], layer)

    steps: dict[str, Step] = {
        "aurel": lambda: gradients(layer(logits), [logits], layer),
        "plain": plain,
    }
    versus("PairwiseInference", size, "training", steps)


@pytest.mark.parametrize(
    "layer_type", [MaxRelativeGraphConv, EdgeGraphConv, GINGraphConv, SAGEGraphConv]
)
@pytest.mark.sizes(
    cpu=[{"B": 64, "N": 18, "C": 128, "K": 9}, {"B": 4, "N": 196, "C": 96, "K": 9}],
    cuda=[{"B": 256, "N": 18, "C": 128, "K": 9}, {"B": 64, "N": 196, "C": 192, "K": 9}],
)
def test_graph_conv(layer_type: Any, size: dict[str, int], bench: Any, versus: Any) -> None:
    batch, nodes, channels, k = size.values()
    layer = layer_type(channels, channels, k=k).to(bench.device)
    plain, peer = deepcopy(layer), deepcopy(layer)
    x = torch.randn(batch, nodes, channels, device=bench.device).requires_grad_()

    def pyg() -> list[Tensor]:
        edges = edge_index(knn_graph(x, k))
        out = pyg_layers.PYG[layer_type](peer, x.flatten(0, 1), edges)
        return gradients(out.view(x.shape), [x], peer)

    steps: dict[str, Step] = {
        "aurel": lambda: gradients(layer(x), [x], layer),
        "plain": lambda: gradients(plain_conv(plain, x, knn_graph(x, k)), [x], plain),
    }
    if pyg_layers is not None:
        steps["pyg"] = pyg
    versus(layer_type.__name__, size, "training", steps, allowed=0.01)


def edge_index(neighbors: Tensor) -> Tensor:
    """Return the edges (2, B N K), from neighbor to node, of neighbor lists (B, N, K)."""
    batch, nodes, k = neighbors.shape
    target = torch.arange(batch * nodes, device=neighbors.device).repeat_interleave(k)
    first = torch.arange(batch, device=neighbors.device)[:, None, None] * nodes
    return torch.stack(((neighbors + first).flatten(), target))


def plain_conv(layer: Any, x: Tensor, neighbors: Tensor) -> Tensor:
    """Return the same convolution, from a tensor of the features of all neighbors."""
    if isinstance(layer, GINGraphConv):
        total = (1 + layer.epsilon) * x + gathered(x, neighbors).sum(2)
        return F.gelu(layer.project(total))
    if isinstance(layer, SAGEGraphConv):
        largest = gathered(F.gelu(layer.message(x)), neighbors).amax(2)
        return F.gelu(layer.project(interleave(x, largest)))
    relative = gathered(x, neighbors) - x.unsqueeze(2)
    if isinstance(layer, MaxRelativeGraphConv):
        return F.gelu(layer.project(interleave(x, relative.amax(2))))
    edges = interleave(x.unsqueeze(2).expand_as(relative), relative).flatten(1, 2)
    return F.gelu(layer.project(edges)).view(*relative.shape[:3], -1).amax(2)

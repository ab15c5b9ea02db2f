"""GatedEdgeGCN gives the authors' numbers, in both of their orders of ReLU and residual."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers.gated_edge_gcn import GatedEdgeGCN
from aurel.models.author_keys.layers import gated_edge_gcn

Golden = Callable[[str], dict[str, np.ndarray]]
MODES = ("eval", "train")
FAMILIES = {"gated_edge_gcn": "inside", "open_graphau_gated_edge_gcn": "outside"}


def random_layer(nodes: int, mode: str, dtype=torch.float64, **options) -> GatedEdgeGCN:
    layer = GatedEdgeGCN(4, nodes, **options)
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if "norm" in name and tensor.dim():
                tensor.uniform_(0.5, 1.5)
    return layer.to(dtype).train(mode == "train")


def inputs(batch: int, nodes: int, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, nodes, 4, dtype=dtype, requires_grad=True)
    return x, torch.randn(batch, nodes, nodes, 4, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_gives_the_authors_numbers(golden: Golden, family: str, mode: str) -> None:
    arrays = golden(family)
    layer = GatedEdgeGCN(16, 6, residual=FAMILIES[family])
    load(layer, arrays, gated_edge_gcn, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    edge = torch.from_numpy(arrays["input.edge"]).requires_grad_()
    out, edges = layer(x, edge.view(3, 6, 6, 16))
    outs = [out, edges.flatten(1, 2)]
    for index, value in enumerate(outs):
        expected = torch.from_numpy(arrays[f"{mode}.out.{index}"])
        torch.testing.assert_close(value, expected, **TOLERANCE)
    cotangents = [torch.from_numpy(arrays[f"cotangent.{index}"]) for index in range(2)]
    leaves = {"x": x, "edge": edge}
    assert_gradients(layer, arrays, gated_edge_gcn, mode, leaves, outs, cotangents)
    if mode == "train":
        assert_buffers(layer, arrays, gated_edge_gcn)


def oracle(layer: nn.Module, x: np.ndarray, e: np.ndarray, residual: str) -> tuple:
    """Return one layer in evaluation, pair by pair."""
    w = {name: value.numpy() for name, value in layer.state_dict().items()}

    def norm(value: np.ndarray, name: str, at: tuple[int, ...]) -> np.ndarray:
        mean, var = w[f"{name}.running_mean"][at], w[f"{name}.running_var"][at]
        scaled = (value - mean) / np.sqrt(var + 1e-5)
        return scaled * w[f"{name}.weight"][at] + w[f"{name}.bias"][at]

    nodes = len(x)
    edges, out = np.empty_like(e), np.empty_like(x)
    for i, j in np.ndindex(nodes, nodes):
        update = w["target.weight"] @ x[i] + w["source.weight"] @ x[j] + w["edge.weight"] @ e[i, j]
        edges[i, j] = e[i, j] + np.maximum(norm(update, "edge_norm", (i, j)), 0)
    for i in range(nodes):
        gate = np.exp(1 / (1 + np.exp(-edges[i])))
        gate /= gate.sum(0)
        gathered = (gate * (x @ w["message.weight"].T)).sum(0) / nodes
        update = norm(w["node.weight"] @ x[i] + gathered, "node_norm", (i,))
        inside = residual == "inside"
        out[i] = np.maximum(x[i] + update, 0) if inside else x[i] + np.maximum(update, 0)
    return out, edges


@pytest.mark.parametrize("residual", ["inside", "outside"])
def test_meets_the_equations(residual: str) -> None:
    layer = random_layer(5, "eval", num_layers=3, residual=residual)
    x, edges = (tensor.detach() for tensor in inputs(2, 5))
    outs = layer(x, edges)
    for image in range(2):
        expected = x[image].numpy(), edges[image].numpy()
        for step in layer.layers:
            expected = oracle(step, *expected, residual)
        for out, value in zip(outs, expected, strict=True):
            np.testing.assert_allclose(out[image].detach(), value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_known_projection_changes_nothing(mode: str) -> None:
    layer = random_layer(3, mode)
    other = deepcopy(layer)
    x, edges = inputs(2, 3)
    projected = edges @ layer.layers[0].edge.weight.mT
    for out, expected in zip(layer(x, edges, projected=projected), other(x, edges), strict=True):
        torch.testing.assert_close(out, expected)


def test_graph_shows_the_gates() -> None:
    layer = random_layer(5, "eval")
    (_, edges), graph = layer(*inputs(2, 5), return_graph=True)
    assert isinstance(graph, RelationGraph) and graph.edge_features is edges
    gates = np.exp(1 / (1 + np.exp(-edges.detach().numpy())))
    expected = (gates / gates.sum(2, keepdims=True)).mean(-1)
    np.testing.assert_allclose(graph.adjacency().detach(), expected, rtol=1e-12)


def test_gradcheck() -> None:
    for mode in MODES:
        layer = random_layer(2, mode, num_layers=1)
        assert torch.autograd.gradcheck(lambda *given, f=layer: f(*given), inputs(2, 2))


def test_low_precision() -> None:
    layer = random_layer(5, "train", torch.float32)
    x, edges = inputs(3, 5, torch.float32)
    expected_all = deepcopy(layer)(x, edges)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = deepcopy(layer)(x, edges)
    half = deepcopy(layer).bfloat16()(x.bfloat16(), edges.bfloat16())
    for outs in (mixed, half):
        for out, expected in zip(outs, expected_all, strict=True):
            assert (out - expected).abs().max() < 0.05 * expected.abs().max()
    assert half[0].dtype == half[1].dtype == torch.bfloat16
    sum(out.sum() for out in mixed).backward()
    assert x.grad.isfinite().all()


def test_momentum_none_strides_and_empty_batch() -> None:
    layer = random_layer(3, "train")
    layer.layers[0].edge_norm.momentum = None
    x, edges = (tensor.detach() for tensor in inputs(2, 3))
    strided = deepcopy(layer)(
        x.mT.contiguous().mT, edges.transpose(1, 2).contiguous().transpose(1, 2)
    )
    for out, expected in zip(strided, deepcopy(layer)(x, edges), strict=True):
        torch.testing.assert_close(out, expected)
    assert [out.shape[0] for out in layer(x[:0], edges[:0])] == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_compiles_in_one_graph(mode: str) -> None:
    layer = random_layer(3, mode, torch.float32)
    other = deepcopy(layer)
    given = inputs(2, 3, torch.float32)
    outs = torch.compile(layer, fullgraph=True, backend="aot_eager")(*given)
    expected = other(*given)
    cotangents = [torch.randn_like(out) for out in outs]
    grads = torch.autograd.grad(outs, [*given, *layer.parameters()], cotangents)
    expected_grads = torch.autograd.grad(expected, [*given, *other.parameters()], cotangents)
    for a, b in zip((*outs, *grads), (*expected, *expected_grads), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_parameters() -> None:
    layer = GatedEdgeGCN(16, 6)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 10 * 256 + 4 * 6 + 4 * 36
    assert repr(layer.layers[0]).startswith("GatedEdgeLayer(\n  16, num_nodes=6, residual='inside'")
    layer.reset_parameters()
    std = torch.cat([p.flatten() for n, p in layer.named_parameters() if "norm" not in n]).std()
    torch.testing.assert_close(std.item(), (2 / 16) ** 0.5, rtol=0.05, atol=0)


def test_messages() -> None:
    layer = GatedEdgeGCN(4, 3)
    x, edges = inputs(2, 3, torch.float32)
    with pytest.raises(ValueError, match=r"x must have shape \(B, N=3, C=4\)"):
        layer(x[:, :2], edges)
    with pytest.raises(ValueError, match=r"edges must have shape \(B=2, N=3, N=3, C=4\)"):
        layer(x, edges.flatten(1, 2))
    with pytest.raises(ValueError, match="residual must be one of inside, outside, got 'before'"):
        GatedEdgeGCN(4, 3, residual="before")
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        GatedEdgeGCN(4, 3, num_layers=0)


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_the_graph_sum_to_one_for_valid_nodes(mode: str) -> None:
    mask = torch.tensor([[True, False, True, True]] * 2)
    _, graph = random_layer(4, mode)(*inputs(2, 4), mask, return_graph=True)
    rows = graph.adjacency().sum(-1)
    torch.testing.assert_close(rows, mask.to(rows.dtype))

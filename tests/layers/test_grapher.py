"""Grapher: equal to the authors' module, and to its equation for every kind of convolution."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load
from torch import Tensor, nn

from aurel import use_backend
from aurel.layers.drop_path import drop_path
from aurel.layers.grapher import CONVS, Grapher
from aurel.layers.grapher_convs import as_map
from aurel.layers.relative_positions import relative_positions

Golden = Callable[[str], dict[str, np.ndarray]]
Array = np.ndarray

GOLDENS: dict[str, dict[str, Any]] = {
    "mr": {"k": 9},
    "mr_dilated": {"k": 5, "dilation": 3},
    "mr_reduced_relative": {"k": 6, "dilation": 2, "reduction": 2, "position_size": (8, 8)},
    "edge_reduced": {"k": 4, "conv": "edge", "reduction": 2},
    "gin": {"k": 4, "conv": "gin", "reduction": 2},
    "sage": {"k": 4, "conv": "sage", "dilation": 2},
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"k": 3},
    "dilated": {"k": 3, "dilation": 3},
    "reduced": {"k": 2, "reduction": 2},
    "relative": {"k": 3, "position_size": (4, 6)},
    "all": {"k": 2, "dilation": 2, "reduction": 2, "position_size": (4, 6)},
}
every_conv = pytest.mark.parametrize("conv", CONVS)
every_mode = pytest.mark.parametrize("mode", ["eval", "train"])


def random_layer(conv: str, mode: str, **options: Any) -> Grapher:
    layer = Grapher(8, conv=conv, **{"k": 3} | options).double().train(mode == "train")
    for name, tensor in layer.state_dict().items():
        if tensor.is_floating_point() and name != "relative_pos":
            tensor.uniform_(0.3, 1)
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter)
    return layer


@every_mode
@pytest.mark.parametrize("name", GOLDENS)
def test_equals_the_authors_module(golden: Golden, name: str, mode: str) -> None:
    arrays = golden(f"grapher_{name}")
    layer = Grapher(16, **GOLDENS[name])
    load(layer, arrays, dict, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{mode}.out.0"]), **TOLERANCE)
    cotangent = torch.from_numpy(arrays["cotangent.0"])
    assert_gradients(layer, arrays, dict, mode, {"x": x}, [out], [cotangent])
    if mode == "train":
        assert_buffers(layer, arrays, dict)


class Oracle:
    """The module in numpy, every edge formed."""

    def __init__(self, layer: Grapher) -> None:
        self.layer = layer
        self.state = {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}

    def linear(self, x: Array, name: str, groups: int = 1) -> Array:
        """A 1x1 convolution of (..., C)."""
        weight = self.state[f"{name}.weight"][:, :, 0, 0]
        parts = zip(np.split(x, groups, -1), np.split(weight, groups), strict=True)
        out = np.concatenate([part @ rows.T for part, rows in parts], axis=-1)
        return out + self.state[f"{name}.bias"]

    def norm(self, x: Array, name: str) -> Array:
        axes = tuple(range(x.ndim - 1))
        mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.layer.training:
            mean, variance = x.mean(axes), x.var(axes)
        scale = self.state[f"{name}.weight"] / np.sqrt(variance + 1e-5)
        return (x - mean) * scale + self.state[f"{name}.bias"]

    def message(self, x: Array, name: str) -> Array:
        x = self.norm(self.linear(x, f"graph_conv.gconv.{name}.0", 4), f"graph_conv.gconv.{name}.1")
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2

    def neighbors(self, nodes: Array, sources: Array) -> Array:
        graph = self.layer.graph_conv
        unit = [each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (nodes, sources)]
        distances = ((unit[0][:, :, None] - unit[1][:, None]) ** 2).sum(-1)
        distances = distances + self.state.get("relative_pos", 0.0)
        order = distances.argsort(-1, kind="stable")
        return order[..., : graph.k * graph.dilation : graph.dilation]

    def convolve(self, nodes: Array, sources: Array, neighbors: Array) -> Array:
        around = sources[np.arange(len(nodes))[:, None, None], neighbors]
        center = np.broadcast_to(nodes[:, :, None], around.shape)
        if self.layer.conv == "mr":
            pairs = np.stack((nodes, (around - center).max(2)), axis=-1)
            return self.message(pairs.reshape(*nodes.shape[:2], -1), "nn")
        if self.layer.conv == "edge":
            return self.message(np.concatenate((center, around - center), -1), "nn").max(2)
        if self.layer.conv == "gin":
            eps = self.state["graph_conv.gconv.eps"]
            return self.message((1 + eps) * nodes + around.sum(2), "nn")
        largest = self.message(around, "nn1").max(2)
        return self.message(np.concatenate((nodes, largest), -1), "nn2")

    def __call__(self, images: Tensor) -> Array:
        x = images.permute(0, 2, 3, 1).numpy()
        batch, height, width, channels = x.shape
        r = self.layer.graph_conv.reduction
        cells = self.norm(self.linear(x, "fc1.0"), "fc1.1")
        pooled = cells.reshape(batch, height // r, r, width // r, r, channels).mean((2, 4))
        nodes, sources = (each.reshape(batch, -1, channels) for each in (cells, pooled))
        out = self.convolve(nodes, sources, self.neighbors(nodes, sources))
        out = self.norm(self.linear(out, "fc2.0"), "fc2.1")
        return (out.reshape(x.shape) + x).transpose(0, 3, 1, 2)


@every_conv
@every_mode
@pytest.mark.parametrize("shape", SHAPES)
def test_computes_its_equation(conv: str, mode: str, shape: str) -> None:
    layer = random_layer(conv, mode, **SHAPES[shape])
    x = torch.randn(3, 8, 4, 6, dtype=torch.float64)
    expected = Oracle(layer)(x)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@every_conv
def test_running_statistics_are_those_of_what_is_normalized(conv: str) -> None:
    layer = random_layer(conv, "train", k=3, reduction=2)
    oracle, inputs = Oracle(layer), {}
    plain = oracle.norm
    oracle.norm = lambda x, name: inputs.update({name: x}) or plain(x, name)
    x = torch.randn(3, 8, 4, 6, dtype=torch.float64)
    oracle(x)
    layer(x)
    after = layer.state_dict()
    assert len(inputs) == (4 if conv == "sage" else 3)
    for name, values in inputs.items():
        flat = values.reshape(-1, values.shape[-1])
        for key, batch in (("mean", flat.mean(0)), ("var", flat.var(0, ddof=1))):
            expected = 0.9 * oracle.state[f"{name}.running_{key}"] + 0.1 * batch
            np.testing.assert_allclose(after[f"{name}.running_{key}"], expected, rtol=1e-9)
        assert after[f"{name}.num_batches_tracked"] == 1


@every_conv
@every_mode
@pytest.mark.parametrize("size", [(3, 4), (6, 1), (1, 6)])
def test_gradients_are_right(conv: str, mode: str, size: tuple[int, int]) -> None:
    """Also for maps of one row or column, which have several sets of equivalent strides."""
    layer = Grapher(4, 2, conv, dilation=2).double().train(mode == "train")
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    leaves = (x, *(p for n, p in layer.named_parameters() if n in ("fc1.0.weight", "fc1.1.bias")))
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), leaves)


def test_batch_norm_of_nodes_as_a_map_has_the_right_gradient() -> None:
    nodes = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    norm = nn.BatchNorm2d(4).double().eval()
    nn.init.uniform_(norm.weight)
    cotangent = torch.randn(2, 4, 5, 1, dtype=torch.float64)
    (grad,) = torch.autograd.grad(norm(as_map(nodes)), nodes, cotangent)
    expected = cotangent.flatten(2).mT * norm.weight / (1 + norm.eps) ** 0.5
    torch.testing.assert_close(grad, expected)


def cubic_matrix(length: int, target: int) -> Array:
    """Interpolation of `length` values at `target` places by a cubic kernel with a = -0.75."""

    def kernel(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.25 * t**3 - 2.25 * t**2 + 1
        return -0.75 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    out = np.zeros((target, length))
    for row in range(target):
        place = (row + 0.5) * length / target - 0.5
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            out[row, min(max(near, 0), length - 1)] += kernel(place - near)
    return out


def similarity(channels: int, rows: int, columns: int) -> Array:
    """The product of two tables of sines and cosines, by the cosine of the difference."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    frequency = 10000.0 ** (-np.arange(channels // 4) / (channels // 4))
    gaps = [place[:, None] - place for place in (row, column)]
    return sum(np.cos(gap[..., None] * frequency).sum(-1) for gap in gaps) * 2 / channels


@pytest.mark.parametrize("reduction", [1, 2])
def test_relative_positions(reduction: int) -> None:
    got = relative_positions(12, (4, 6), reduction)
    assert got.dtype == torch.float32 and got.shape == (1, 24, 24 // reduction**2)
    expected = -similarity(12, 4, 6) @ cubic_matrix(24, 24 // reduction**2).T
    np.testing.assert_allclose(got[0], expected, atol=1e-6)


def test_positions_of_another_map_are_resampled() -> None:
    layer = random_layer("mr", "eval", position_size=(4, 4))
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    oracle, matrix = Oracle(layer), cubic_matrix(16, 35)
    oracle.state["relative_pos"] = matrix @ oracle.state["relative_pos"] @ matrix.T
    np.testing.assert_allclose(layer(x).detach().numpy(), oracle(x), rtol=1e-9, atol=1e-9)


def test_a_map_with_few_cells_has_less_dilation() -> None:
    layer = random_layer("mr", "eval", k=3, dilation=4)
    x = torch.randn(2, 8, 2, 4, dtype=torch.float64)
    _, graph = layer(x, return_graph=True)
    layer.graph_conv.dilation = 2
    assert torch.equal(layer(x, return_graph=True)[1].neighbors, graph.neighbors)
    layer.graph_conv.dilation = 1
    assert not torch.equal(layer(x, return_graph=True)[1].neighbors, graph.neighbors)


def test_graph_lists_cells_or_pooled_cells() -> None:
    x = torch.randn(2, 8, 4, 6)
    out, graph = Grapher(8, 3).eval()(x, return_graph=True)
    assert out.shape == x.shape and graph.neighbors.shape == (2, 24, 3)
    assert torch.equal(graph.neighbors[..., 0], torch.arange(24).expand(2, -1))
    _, graph = Grapher(8, 6, reduction=2).eval()(x, return_graph=True)
    assert torch.equal(graph.neighbors.sort(2).values, torch.arange(6).expand(2, 24, -1))


def test_drop_path() -> None:
    x = torch.ones(400, 2, 3)
    dropped = drop_path(x, 0.25, True)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 4 / 3]))
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(x))
    assert 0.15 < (dropped[:, 0, 0] == 0).float().mean() < 0.35
    assert drop_path(x, 0.25, False) is x and drop_path(x, 0.0, True) is x
    layer = random_layer("mr", "train", drop_path=0.5)
    maps = torch.randn(16, 8, 3, 4, dtype=torch.float64)
    kept = copy.deepcopy(layer)
    kept.drop_path = 0.0
    branch = layer(maps) - maps
    expected = kept(maps) - maps
    gone = ~branch.flatten(1).any(1)
    assert gone.any() and not gone.all()
    torch.testing.assert_close(branch[~gone], 2 * expected[~gone])
    torch.testing.assert_close(layer.eval()(maps), kept.eval()(maps))


@every_conv
def test_trains_in_low_precision_and_round_trips(conv: str) -> None:
    layer = Grapher(8, 3, conv, reduction=2, position_size=(4, 6))
    x = torch.randn(4, 8, 4, 6)
    expected, graph = copy.deepcopy(layer).eval()(x, return_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = copy.deepcopy(layer)(x)
    out.float().sum().backward()
    assert out.isfinite().all()
    half, half_graph = copy.deepcopy(layer).bfloat16().eval()(x.bfloat16(), return_graph=True)
    assert half.dtype == torch.bfloat16
    same = (half_graph.neighbors == graph.neighbors).all(2).view(4, 1, 4, 6).expand_as(expected)
    assert same.float().mean() > 0.5
    torch.testing.assert_close(half.float()[same], expected[same], rtol=0.1, atol=0.1)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    other = Grapher(8, 3, conv, reduction=2, position_size=(4, 6))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert layer.train()(torch.zeros(0, 8, 4, 6)).shape == (0, 8, 4, 6)
    assert all(v.isfinite().all() for v in layer.state_dict().values())


@every_conv
@pytest.mark.parametrize("backend", ["definition", "numba"])
def test_backends_agree(conv: str, backend: Any) -> None:
    if backend == "numba":
        pytest.importorskip("numba")
        pytest.importorskip("aurel.kernels.cpu")
    layer = random_layer(conv, "train", dilation=2, reduction=2, position_size=(6, 6))
    other = copy.deepcopy(layer)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    with use_backend("torch"):
        expected = layer(x)
    with use_backend(backend):
        out = other(x)
    torch.testing.assert_close(out, expected)
    expected_parts = torch.autograd.grad(expected.sin().sum(), [x, *layer.parameters()])
    grads = torch.autograd.grad(out.sin().sum(), [x, *other.parameters()])
    torch.testing.assert_close(grads, expected_parts)


@every_conv
def test_any_memory_format(conv: str) -> None:
    layer = random_layer(conv, "eval", reduction=2)
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    expected = layer(x)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = layer(last)
    torch.testing.assert_close(out, expected)
    x.requires_grad_()
    grads = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    others = torch.autograd.grad(out.square().sum(), [last, *layer.parameters()])
    torch.testing.assert_close(others, grads)


@every_mode
def test_compiles_in_one_graph(mode: str) -> None:
    layer = Grapher(8, 3, reduction=2, position_size=(4, 6)).train(mode == "train")
    other = copy.deepcopy(layer)
    x = torch.randn(2, 8, 4, 6, requires_grad=True)
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    expected = other(x)
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()])
    expected_parts = torch.autograd.grad(expected.sin().sum(), [x, *other.parameters()])
    torch.testing.assert_close(grads, expected_parts, rtol=1e-4, atol=1e-4)


def test_exports_with_a_free_batch() -> None:
    layer = Grapher(8, 3, reduction=2, position_size=(4, 6)).eval()
    batch = torch.export.Dim("batch", min=2)
    x = torch.randn(3, 8, 4, 6)
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: batch}})
    again = torch.randn(5, 8, 4, 6)
    torch.testing.assert_close(program.module()(again), layer(again))


def test_initial_parameters() -> None:
    layer = Grapher(64, conv="gin")
    for name, parameter in layer.named_parameters():
        if parameter.ndim == 4:
            fan = parameter[0].numel()
            assert parameter.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1), name
        else:
            scale = name.endswith("1.weight")
            assert torch.equal(parameter, torch.full_like(parameter, float(scale))), name
    assert "relative_pos" not in layer.state_dict()
    assert "relative_pos" in Grapher(8, position_size=(3, 3)).state_dict()


def test_repr_and_errors() -> None:
    layer = Grapher(8, 3, "edge", dilation=2, reduction=2)
    assert "8, conv='edge', positions=False" in repr(layer)
    assert "k=3, dilation=2, reduction=2" in repr(layer)
    with pytest.raises(ValueError, match=r"x must have shape \(B, C=8, H, W\), got \(2, 4, 4, 4\)"):
        layer(torch.zeros(2, 4, 4, 4))
    with pytest.raises(ValueError, match=r"k must be in 1\.\.2"):
        layer(torch.zeros(2, 8, 2, 4))
    with pytest.raises(ValueError, match="conv must be one of mr, edge, sage, gin, got 'max'"):
        Grapher(8, conv="max")
    for channels in (0, 6):
        with pytest.raises(ValueError, match=f"channels must be a multiple of 4, got {channels}"):
            Grapher(channels)
    for name in ("k", "dilation", "reduction"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            Grapher(8, **{name: 0})
    with pytest.raises(ValueError, match=r"drop_path must be in \[0, 1\), got 1"):
        Grapher(8, drop_path=1)

"""MultiDimensionalEdges equals its definition, which equals the authors' layer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.layers.reference_edges import materialized_edges
from aurel.models.author_keys.layers import multi_dimensional_edges

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
Golden = Callable[[str], dict[str, np.ndarray]]
MODES = ("eval", "train")
ZERO_GRADIENT = ("face_key.bias", "pair_key.bias")


def random_layer(
    channels: int, nodes: int, mode: str, dtype=torch.float64
) -> MultiDimensionalEdges:
    layer = MultiDimensionalEdges(channels, nodes)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 1 or parameter is layer.norm.weight:
                parameter.normal_()
        layer.norm.bias.normal_()
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 2.0)
    return layer.to(dtype).train(mode == "train")


def inputs(
    batch: int, nodes: int, tokens: int, channels: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, nodes, tokens, channels, dtype=dtype).relu()
    return x.requires_grad_(), torch.randn(batch, tokens, channels, dtype=dtype).requires_grad_()


def definition(layer: MultiDimensionalEdges, x: Tensor, tokens: Tensor) -> Tensor:
    edges = materialized_edges(layer, x, tokens).mean(2)
    return edges.unflatten(1, (x.shape[1], x.shape[1]))


def gradients(out: Tensor, layer: nn.Module, inputs: tuple[Tensor, ...], cotangent: Tensor) -> dict:
    names = [f"input {n}" for n in range(len(inputs))] + [n for n, _ in layer.named_parameters()]
    grads = torch.autograd.grad(out, [*inputs, *layer.parameters()], cotangent)
    return dict(zip(names, grads, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_definition_gives_the_authors_numbers(golden: Golden, mode: str) -> None:
    arrays = golden("edge_feature_learner")
    layer = MultiDimensionalEdges(16, 6)
    load(layer, arrays, multi_dimensional_edges, mode)
    given = {
        name: torch.from_numpy(arrays[f"input.{name}"]).requires_grad_()
        for name in ("class_feature", "global_feature")
    }
    out = materialized_edges(layer, *given.values())
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{mode}.out.0"]), **TOLERANCE)
    cotangent = torch.from_numpy(arrays["cotangent.0"])
    assert_gradients(layer, arrays, multi_dimensional_edges, mode, given, [out], [cotangent])
    if mode == "train":
        layer.norm.num_batches_tracked += 1  # the definition leaves counting to the layer
        assert_buffers(layer, arrays, multi_dimensional_edges)


@pytest.mark.parametrize("mode", MODES)
def test_layer_gives_the_authors_token_means(golden: Golden, mode: str) -> None:
    arrays = golden("edge_feature_learner")
    layer = MultiDimensionalEdges(16, 6)
    load(layer, arrays, multi_dimensional_edges, mode)
    x, tokens = (torch.from_numpy(arrays[f"input.{n}_feature"]) for n in ("class", "global"))
    expected = torch.from_numpy(arrays[f"{mode}.out.0"]).mean(2).view(3, 6, 6, 16)
    torch.testing.assert_close(layer(x, tokens), expected, **TOLERANCE)
    if mode == "train":
        assert_buffers(layer, arrays, multi_dimensional_edges)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "size", [(3, 6, 9, 16), (1, 4, 5, 8), (2, 1, 1, 2), (2, 3, 1, 6), (2, 5, 11, 4)], ids=str
)
def test_layer_equals_the_definition(size: tuple[int, int, int, int], mode: str) -> None:
    batch, nodes, tokens, channels = size
    layer = random_layer(channels, nodes, mode)
    other = deepcopy(layer)
    given = inputs(*size)
    out, expected = layer(*given), definition(other, *given)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    for name in ("running_mean", "running_var"):
        a, b = getattr(layer.norm, name), getattr(other.norm, name)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(out)
    actual, reference = (
        gradients(out, layer, given, cotangent),
        gradients(expected, other, given, cotangent),
    )
    for name, grad in actual.items():
        if name in ZERO_GRADIENT:
            assert not grad.any(), name
        else:
            torch.testing.assert_close(
                grad, reference[name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_memory_layout_does_not_matter() -> None:
    layer = random_layer(8, 4, "train")
    x, tokens = inputs(2, 4, 5, 8)
    token_major = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    strided = torch.stack((x.detach(), x.detach()), -1)[..., 0].requires_grad_()
    cotangent = torch.randn(2, 4, 4, 8, dtype=torch.float64)
    expected = torch.autograd.grad(layer(x, tokens), x, cotangent)[0]
    for other in (token_major, strided):
        torch.testing.assert_close(layer(other, tokens), layer(x, tokens))
        grad = torch.autograd.grad(layer(other, tokens), other, cotangent)[0]
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_three_training_steps(momentum: float | None) -> None:
    layer = random_layer(8, 3, "train")
    layer.norm.momentum = momentum
    other = deepcopy(layer)
    steps = [torch.optim.SGD(each.parameters(), lr=0.05) for each in (layer, other)]
    for index in range(3):
        x, tokens = inputs(2, 3, 5, 8)
        # torch averages with this weight when momentum is None.
        other.norm.momentum = 1 / (index + 1) if momentum is None else momentum
        for module, function, step in zip(
            (layer, other), (MultiDimensionalEdges.__call__, definition), steps, strict=True
        ):
            step.zero_grad()
            function(module, x, tokens).square().mean().backward()
            step.step()
    assert layer.norm.num_batches_tracked == 3
    for name, value in layer.state_dict().items():
        if name != "norm.num_batches_tracked":
            torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-9, atol=1e-9)


def test_frozen_normalization() -> None:
    layer = random_layer(8, 3, "train")
    layer.norm.eval()
    other = deepcopy(layer)
    given = inputs(2, 3, 5, 8)
    before = deepcopy(layer.norm.state_dict())
    out, expected = layer(*given), definition(other, *given)
    torch.testing.assert_close(out, expected)
    assert all(torch.equal(before[key], value) for key, value in layer.norm.state_dict().items())
    cotangent = torch.randn_like(out)
    actual, reference = (
        gradients(out, layer, given, cotangent),
        gradients(expected, other, given, cotangent),
    )
    for name in set(actual) - set(ZERO_GRADIENT):
        torch.testing.assert_close(actual[name], reference[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_projection_of_the_edges(mode: str) -> None:
    layer = random_layer(8, 3, mode)
    given = inputs(2, 3, 5, 8)
    weight = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    edges, projected = layer.with_projection(*given, weight, mask)
    expected = edges @ weight.mT
    torch.testing.assert_close(projected, expected, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn_like(expected)
    leaves = [*given, weight, *layer.parameters()]
    grads = [
        torch.autograd.grad(y, leaves, cotangent, retain_graph=True) for y in (projected, expected)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_gradcheck() -> None:
    for mode in MODES:
        layer = random_layer(4, 2, mode)
        assert torch.autograd.gradcheck(lambda *given, f=layer: f(*given), inputs(2, 2, 3, 4))


def stressed(case: str) -> tuple[MultiDimensionalEdges, Tensor, Tensor]:
    layer = random_layer(64, 4, "train", torch.float32)
    x, tokens = (tensor.detach() for tensor in inputs(3, 4, 16, 64, torch.float32))
    with torch.no_grad():
        if case.startswith("edge bias"):
            layer.projection.bias += float(case.split()[-1])
        elif case == "key bias 50":
            layer.face_key.bias += 50
            layer.pair_key.bias += 50
        elif case == "value bias 100":
            layer.pair_value.bias += 100
        elif case == "one-hot attention":
            layer.pair_query.weight *= 100
        elif case == "offset images":
            tokens += 10 * torch.arange(3.0)[:, None, None]
        elif case == "no variance":
            layer.projection.weight *= 1e-3
    return layer, x, tokens


CASES = [
    "plain",
    "edge bias 100",
    "edge bias 1000",
    "key bias 50",
    "value bias 100",
    "one-hot attention",
    "offset images",
    "no variance",
]


@pytest.mark.parametrize("case", CASES)
def test_float32_is_as_exact_as_the_definition(case: str) -> None:
    layer, *given = stressed(case)
    cotangent = torch.randn(3, 4, 4, 64)

    def run(function, dtype: torch.dtype) -> dict[str, Tensor]:
        module = deepcopy(layer).to(dtype)
        leaves = tuple(tensor.to(dtype).requires_grad_() for tensor in given)
        out = function(module, *leaves)
        found = gradients(out, module, leaves, cotangent.to(dtype))
        return {"out": out.detach(), "var": module.norm.running_var, **found}

    exact = run(definition, torch.float64)
    expected = run(definition, torch.float32)
    actual = run(MultiDimensionalEdges.__call__, torch.float32)
    for name in set(exact) - set(ZERO_GRADIENT):
        size = exact[name].abs().max()
        own, other = ((r[name] - exact[name]).abs().max() / size for r in (actual, expected))
        assert own < 3 * other + 3e-6, name


@pytest.mark.parametrize("mode", MODES)
def test_autocast_is_as_exact_as_the_definition(mode: str) -> None:
    layer = random_layer(64, 4, mode, torch.float32)
    given = inputs(3, 4, 16, 64, torch.float32)
    exact = definition(deepcopy(layer), *given)
    with torch.autocast("cpu", torch.bfloat16):
        other = definition(deepcopy(layer), *given)
        out = layer(*given)
    assert out.dtype == torch.bfloat16
    error = (out - exact).abs().max()
    assert error < 2 * (other - exact).abs().max()
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in layer.parameters())


def test_bfloat16_layer() -> None:
    layer = random_layer(16, 4, "train", torch.bfloat16)
    given = inputs(3, 4, 9, 16, torch.bfloat16)
    out = layer(*given)
    assert out.dtype == torch.bfloat16
    wide = deepcopy(layer).float()
    expected = wide(*(tensor.detach().float() for tensor in given))
    assert (out - expected).abs().max() < 0.05 * expected.abs().max()


def test_memory_is_less_than_the_tokens_of_all_pairs_would_take() -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from measure import peak_mib
    finally:
        sys.path.remove(str(BENCHMARKS))
    nodes, tokens, channels = 24, 16, 128
    layer = random_layer(channels, nodes, "train", torch.float32)
    given = inputs(1, nodes, tokens, channels, torch.float32)
    peaks = [
        peak_mib(lambda f=function: f(layer, *given).sum().backward(), torch.device("cpu"))
        for function in (MultiDimensionalEdges.__call__, definition)
    ]
    all_pairs = 4 * nodes**2 * tokens * channels / 2**20
    assert peaks[0] < all_pairs < peaks[1]


def test_empty_batch() -> None:
    layer = MultiDimensionalEdges(8, 3)
    x, tokens = inputs(0, 3, 5, 8, torch.float32)
    out = layer(x, tokens)
    out.sum().backward()
    assert out.shape == (0, 3, 3, 8) and x.grad.shape == x.shape
    assert layer.norm.num_batches_tracked == 0


def test_graph() -> None:
    layer = random_layer(8, 3, "eval", torch.float32)
    x, tokens = inputs(2, 3, 5, 8, torch.float32)
    edges, graph = layer(x, tokens, return_graph=True)
    assert isinstance(graph, RelationGraph) and graph.edge_features is edges
    assert torch.equal(graph.adjacency(), torch.ones(2, 3, 3))
    mask = torch.tensor([[True, False, True]] * 2)
    _, graph = layer(x, tokens, mask, return_graph=True)
    assert torch.equal(graph.adjacency(), (mask[:, :, None] & mask[:, None]).float())


@pytest.mark.parametrize("mode", MODES)
def test_compiles_in_one_graph(mode: str) -> None:
    layer = random_layer(8, 3, mode, torch.float32)
    other = deepcopy(layer)
    given = inputs(2, 3, 5, 8, torch.float32)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    out, expected = compiled(*given), other(*given)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(layer.norm.running_var, other.norm.running_var)
    cotangent = torch.randn_like(out)
    actual, reference = (
        gradients(out, layer, given, cotangent),
        gradients(expected, other, given, cotangent),
    )
    for name, grad in actual.items():
        torch.testing.assert_close(grad, reference[name], rtol=1e-4, atol=1e-4)


def test_exports_with_any_batch() -> None:
    layer = random_layer(8, 3, "eval", torch.float32)
    batch = torch.export.Dim("batch", min=1)
    given = tuple(tensor.detach() for tensor in inputs(2, 3, 5, 8, torch.float32))
    program = torch.export.export(layer, given, dynamic_shapes=({0: batch}, {0: batch}))
    other = inputs(4, 3, 5, 8, torch.float32)
    torch.testing.assert_close(program.module()(*other), layer(*other))


def test_parameters() -> None:
    layer = MultiDimensionalEdges(64, 5)
    count = sum(parameter.numel() for parameter in layer.parameters())
    assert count == 5 * 64**2 + 5 * 64 + 2 * 5**2
    torch.testing.assert_close(
        layer.face_query.weight.std().item(), (2 / 32) ** 0.5, rtol=0.1, atol=0
    )
    torch.testing.assert_close(
        layer.projection.weight.std().item(), (2 / 64) ** 0.5, rtol=0.1, atol=0
    )
    assert repr(layer).startswith("MultiDimensionalEdges(\n  64, num_nodes=5")


def test_messages() -> None:
    layer = MultiDimensionalEdges(8, 3)
    x, tokens = inputs(2, 3, 5, 8, torch.float32)
    with pytest.raises(ValueError, match=r"nodes must have shape \(B, N=3, D, C=8\)"):
        layer(x[:, :2], tokens)
    with pytest.raises(ValueError, match=r"tokens must have shape \(B=2, D=5, C=8\)"):
        layer(x, tokens[:, :4])
    with pytest.raises(ValueError, match="mask must be bool"):
        layer(x, tokens, torch.ones(2, 3))
    with pytest.raises(ValueError, match="channels must be even, got 7"):
        MultiDimensionalEdges(7, 3)
    with pytest.raises(ValueError, match=r"weight must have shape \(C', C=8\)"):
        layer.with_projection(x, tokens, torch.rand(4, 7))


def test_nan_in_a_node_reaches_only_its_own_edges() -> None:
    layer = random_layer(8, 4, "eval")
    x, tokens = (tensor.detach() for tensor in inputs(2, 4, 5, 8))
    expected = layer(x, tokens)
    x[1, 1, 0, 0] = torch.nan
    out, valid = layer(x, tokens), [0, 2, 3]
    assert out[1, 1].isnan().any()
    assert torch.equal(out[:, valid][:, :, valid], expected[:, valid][:, :, valid])

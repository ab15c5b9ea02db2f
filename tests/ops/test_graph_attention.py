"""Graph attention: the equation, its gradients, NaN, infinities and isolated nodes."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from helpers.every_backend import every_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops.backend import use_backend
from aurel.ops.graph_attention import graph_attention, graph_attention_reference
from aurel.ops.registration import OPERATORS

# The package exports the function under the module's name.
module = import_module("aurel.ops.graph_attention")

CASES = {
    "one node": (1, 1, 1, 1),
    "one head": (2, 1, 12, 5),
    "heads": (3, 4, 8, 2),
    "prime sizes": (2, 3, 13, 7),
    "past one block": (1, 2, 67, 3),
    "empty batch": (0, 2, 4, 3),
}


def inputs(
    batch: int, heads: int, nodes: int, channels: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((batch, heads, nodes, channels), (batch, heads, nodes), (batch, heads, nodes))
    return tuple(torch.randn(shape, dtype=dtype) for shape in shapes)


def edges(*shape: int) -> Tensor:
    adjacency = torch.rand(shape) < 0.5
    if adjacency.numel():
        adjacency[..., 0, :] = False
    return adjacency


def oracle(
    values: Tensor, target: Tensor, source: Tensor, adjacency: Tensor, slope: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the published equation edge by edge, in float64."""
    v, t, s = (tensor.double().numpy() for tensor in (values, target, source))
    batch, heads, nodes, _ = v.shape
    a = adjacency.expand(batch, nodes, nodes).numpy() > 0
    out, weights = np.zeros(v.shape), np.zeros((batch, heads, nodes, nodes))
    for b, h, i in np.ndindex(batch, heads, nodes):
        neighbors = np.flatnonzero(a[b, i])
        score = t[b, h, i] + s[b, h, neighbors]
        score = np.where(score > 0, score, slope * score)
        exponential = np.exp(score - score.max(initial=-np.inf))
        weights[b, h, i, neighbors] = exponential / exponential.sum()
        out[b, h, i] = weights[b, h, i, neighbors] @ v[b, h, neighbors]
    return out, weights


@pytest.mark.parametrize("shape", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("function", [graph_attention, graph_attention_reference])
@pytest.mark.parametrize("per_sample", [True, False])
def test_equals_the_equation(function, shape: tuple[int, ...], per_sample: bool) -> None:
    arguments = inputs(*shape)
    nodes = shape[2]
    adjacency = edges(shape[0], nodes, nodes) if per_sample else edges(nodes, nodes)
    for slope in ({}, {"negative_slope": 0.7}):
        out, weights = function(*arguments, adjacency, **slope)
        expected_out, expected_weights = oracle(*arguments, adjacency, *slope.values())
        np.testing.assert_allclose(out.numpy(), expected_out, atol=1e-12)
        np.testing.assert_allclose(weights.numpy(), expected_weights, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("function", [graph_attention, graph_attention_reference])
def test_low_precision_rounds_once(function, dtype: torch.dtype) -> None:
    arguments = inputs(2, 2, 12, 16, dtype)
    adjacency = edges(2, 12, 12)
    out, weights = function(*arguments, adjacency)
    assert out.dtype == weights.dtype == dtype
    expected_out, expected_weights = oracle(*arguments, adjacency)
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(out.double().numpy(), expected_out, rtol=eps, atol=4 * eps)
    np.testing.assert_allclose(weights.double().numpy(), expected_weights, rtol=eps, atol=eps)


@pytest.mark.parametrize("function", [graph_attention, graph_attention_reference])
def test_numbers_above_zero_are_edges(function) -> None:
    arguments = inputs(2, 1, 5, 3)
    numbers = torch.randn(5, 5)
    for kind in (numbers, numbers.double(), (numbers > 0).long()):
        got = function(*arguments, kind)
        expected = function(*arguments, numbers > 0)
        assert all(torch.equal(left, right) for left, right in zip(got, expected, strict=True))


def test_non_contiguous_inputs() -> None:
    values, target, source = inputs(2, 3, 6, 4)
    strided = values.transpose(1, 2).contiguous().transpose(1, 2)
    adjacency = edges(6, 6).mT.contiguous().mT
    got, _ = graph_attention(strided, target.mT.contiguous().mT, source, adjacency)
    assert not strided.is_contiguous()
    torch.testing.assert_close(got, graph_attention(values, target, source, adjacency)[0])


def test_without_weights_the_aggregate_is_the_same() -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs(2, 2, 6, 3)]
    adjacency = edges(2, 6, 6)
    want, _ = graph_attention(*leaves, adjacency)
    out, weights = graph_attention(*leaves, adjacency, return_weights=False)
    assert weights is None and torch.equal(out, want)
    grads = torch.autograd.grad(out.square().sum(), leaves)
    expected = torch.autograd.grad(want.square().sum(), leaves)
    assert all(map(torch.equal, grads, expected))


def test_isolated_node_gets_zeros_and_zero_gradients() -> None:
    values, target, source = (tensor.requires_grad_() for tensor in inputs(2, 2, 5, 3))
    adjacency = torch.ones(5, 5, dtype=torch.bool)
    adjacency[3] = False
    out, weights = graph_attention(values, target, source, adjacency)
    assert not out[:, :, 3].any() and not weights[:, :, 3].any()
    (out.sum() + weights.square().sum()).backward()
    assert not target.grad[:, :, 3].any()
    assert all(tensor.grad.isfinite().all() for tensor in (values, target, source))


@pytest.mark.parametrize("bad_value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["values", "scores"])
@pytest.mark.parametrize("function", [graph_attention, graph_attention_reference])
def test_nan_follows_the_edges(function, where: str, bad_value: float) -> None:
    values, target, source = inputs(2, 2, 6, 3)
    adjacency = torch.eye(6, dtype=torch.bool)
    adjacency[1, 4] = True
    clean, clean_weights = function(values, target, source, adjacency)
    if where == "values":
        values[0, :, 4, 1] = bad_value
    else:
        source[0, :, 4] = target[0, :, 4] = bad_value
    out, weights = function(values, target, source, adjacency)
    reached = torch.tensor([1, 4])
    others = torch.tensor([0, 2, 3, 5])
    torch.testing.assert_close(out[0][:, others], clean[0][:, others])
    torch.testing.assert_close(weights[0][:, others], clean_weights[0][:, others])
    torch.testing.assert_close(out[1], clean[1])
    assert not out[0][:, reached].isfinite().all(-1).any()


@every_backend
def test_infinities_and_nan_are_those_of_the_definition(backend: str) -> None:
    """Infinite values meet weights that are positive, underflow to zero or lack an edge."""
    specials = (torch.inf, -torch.inf, torch.nan)
    for seed in range(12):
        torch.manual_seed(seed)
        values, target, source = inputs(2, 2, 7, 3, torch.float32)
        adjacency = edges(2, 7, 7)
        for value in specials[: 1 + seed % 3]:
            values[torch.rand(values.shape) < 0.1] = value
        if seed % 2:
            source[:, :, 4] = -1e4  # its weight is zero beside any other
        if seed % 4 == 3:
            source[0, 0, 2] = specials[seed % 3]
        want, want_weights = graph_attention_reference(values, target, source, adjacency)
        out, weights = graph_attention(values, target, source, adjacency, backend=backend)
        alone, _ = graph_attention(
            values, target, source, adjacency, return_weights=False, backend=backend
        )
        torch.testing.assert_close(out, want, equal_nan=True)
        torch.testing.assert_close(alone, want, equal_nan=True)
        torch.testing.assert_close(weights, want_weights, equal_nan=True)


@every_backend
def test_infinite_gradients_are_those_of_the_definition(backend: str) -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs(1, 1, 5, 2, torch.float32)]
    adjacency, cotangent = edges(5, 5), torch.randn(1, 1, 5, 2)
    cotangent[0, 0, 2, 1], cotangent[0, 0, 3, 0] = torch.inf, torch.nan
    results = []
    for name in (backend, "definition"):
        out, _ = graph_attention(*leaves, adjacency, backend=name)
        results.append(torch.autograd.grad(out, leaves, cotangent)[0])
    torch.testing.assert_close(*results, equal_nan=True)


def test_nan_reaches_no_gradient_without_an_edge() -> None:
    values, target, source = inputs(1, 1, 4, 2)
    values[0, 0, 2] = torch.nan
    target.requires_grad_()
    adjacency = torch.eye(4, dtype=torch.bool)
    adjacency[1, 0] = True
    graph_attention(values, target, source, adjacency)[0][0, 0, [0, 1, 3]].sum().backward()
    assert target.grad[0, 0, [0, 1, 3]].isfinite().all()


def test_nan_in_the_gradient_stays_with_its_neighbors() -> None:
    values, target, source = (tensor.requires_grad_() for tensor in inputs(1, 1, 4, 2))
    adjacency = torch.eye(4, dtype=torch.bool)
    adjacency[1, 2] = True
    out, _ = graph_attention(values, target, source, adjacency)
    gradient = torch.ones_like(out)
    gradient[0, 0, 1] = torch.nan
    out.backward(gradient)
    assert values.grad[0, 0, [0, 3]].isfinite().all()
    assert values.grad[0, 0, [1, 2]].isnan().all()


@pytest.mark.parametrize("function", [graph_attention, graph_attention_reference])
def test_gradcheck(function) -> None:
    arguments = tuple(tensor.requires_grad_() for tensor in inputs(2, 2, 5, 3))
    adjacency = edges(2, 5, 5)
    assert torch.autograd.gradcheck(lambda *tensors: function(*tensors, adjacency), arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_equal_those_of_the_reference(dtype: torch.dtype) -> None:
    arguments = inputs(2, 2, 13, 8, dtype)
    adjacency = edges(13, 13)
    cotangents = torch.randn(2, 2, 13, 8, dtype=dtype), torch.randn(2, 2, 13, 13, dtype=dtype)

    def gradients(function, kind: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [tensor.to(kind).requires_grad_() for tensor in arguments]
        outputs = function(*leaves, adjacency)
        return torch.autograd.grad(outputs, leaves, [tensor.to(kind) for tensor in cotangents])

    expected = gradients(graph_attention_reference, torch.float64)
    tolerance = 20 * torch.finfo(dtype).eps
    for got, want in zip(gradients(graph_attention, dtype), expected, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


@settings(max_examples=30, deadline=None)
@given(nodes=st.integers(1, 9), heads=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_permutation_of_nodes_permutes_the_result(nodes: int, heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    values, target, source = inputs(2, heads, nodes, 3)
    adjacency = edges(2, nodes, nodes)
    order = torch.randperm(nodes)
    out, weights = graph_attention(values, target, source, adjacency)
    moved, moved_weights = graph_attention(
        values[:, :, order], target[..., order], source[..., order], adjacency[:, order][..., order]
    )
    torch.testing.assert_close(moved, out[:, :, order])
    torch.testing.assert_close(moved_weights, weights[:, :, order][..., order])


def test_opcheck_with_strides_and_half_precision() -> None:
    leaves = tuple(tensor.requires_grad_() for tensor in inputs(2, 2, 5, 3, torch.float32))
    strided = leaves[0].detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    op = OPERATORS["graph_attention"].op
    torch.library.opcheck(op, (strided, *leaves[1:], edges(2, 5, 5), 0.2, True, "torch"))
    halves = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
    torch.library.opcheck(op, (*halves, edges(5, 5), 0.2, True, "torch"))


def test_compiled_with_any_batch_size() -> None:
    compiled = torch.compile(graph_attention, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 5):
        arguments = tuple(tensor.requires_grad_() for tensor in inputs(batch, 2, 6, 3))
        adjacency = edges(batch, 6, 6)
        torch.testing.assert_close(
            compiled(*arguments, adjacency), graph_attention(*arguments, adjacency)
        )
        compiled(*arguments, adjacency)[0].sum().backward()
        assert arguments[0].grad is not None


def test_mixed_dtypes_are_promoted_and_autocast_is_served() -> None:
    values, target, source = inputs(2, 1, 6, 4, torch.float32)
    adjacency = edges(6, 6)
    out, _ = graph_attention(values.bfloat16(), target, source.double(), adjacency)
    assert out.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        out, weights = graph_attention(values.bfloat16(), target, source, adjacency)
    assert out.dtype == weights.dtype == torch.float32


def test_autocast_rounds_nothing() -> None:
    def step() -> list[Tensor]:
        leaves = [tensor.float().requires_grad_() for tensor in arguments]
        outs = graph_attention(*leaves, adjacency)
        return [*outs, *torch.autograd.grad([out.sin().sum() for out in outs], leaves)]

    arguments, adjacency = inputs(2, 1, 6, 4), edges(6, 6)
    want = step()
    with torch.autocast("cpu", torch.bfloat16):
        got = step()
    assert all(map(torch.equal, got, want))


def test_inputs_are_not_changed() -> None:
    arguments = (*inputs(2, 1, 4, 3), edges(4, 4))
    before = [tensor.clone() for tensor in arguments]
    graph_attention(*arguments)
    assert all(map(torch.equal, arguments, before))


def test_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = module._graph_attention
    monkeypatch.setattr(
        module, "_graph_attention", lambda *args: (taken.append(args[-1]), real(*args))[1]
    )
    with use_backend("torch"):
        graph_attention(*inputs(1, 1, 3, 2), edges(3, 3))
        graph_attention(*inputs(1, 1, 3, 2), edges(3, 3), backend="definition")
    assert taken == ["torch", "definition"]
    with pytest.raises(ValueError, match="graph_attention: backend='pyg'"):
        graph_attention(*inputs(1, 1, 3, 2), edges(3, 3), backend="pyg")
    with pytest.raises(ValueError, match="cannot serve this call: .*got torch.float64"):
        graph_attention(*inputs(1, 1, 3, 2), edges(3, 3), backend="triton")


def test_errors_name_the_argument() -> None:
    values, target, source = inputs(2, 1, 4, 3)
    adjacency = edges(4, 4)
    with pytest.raises(ValueError, match=r"values must have shape \(B, H, N, C\), got \(1, 4, 3\)"):
        graph_attention(values[0], target, source, adjacency)
    with pytest.raises(ValueError, match=r"source_score must have shape .*N=4.*got \(2, 1, 3\)"):
        graph_attention(values, target, source[..., 1:], adjacency)
    with pytest.raises(ValueError, match=r"adjacency must have shape \(N=4, N=4\).*got \(4, 3\)"):
        graph_attention(values, target, source, adjacency[:, 1:])
    with pytest.raises(ValueError, match=r"adjacency must have shape \(B=2, .*got \(3, 4, 4\)"):
        graph_attention(values, target, source, edges(3, 4, 4))
    with pytest.raises(ValueError, match=r"adjacency must have shape \(B=2, .*got \(2, 5, 5\)"):
        graph_attention(values, target, source, edges(2, 5, 5))
    good = {"values": values, "target_score": target, "source_score": source}
    for name, tensor in good.items():
        with pytest.raises(ValueError, match=f"^{name} must be floating point, got torch.int64"):
            graph_attention(**good | {name: tensor.long()}, adjacency=adjacency)
        other_sizes = () if name == "values" else (tensor[:1], tensor.repeat(1, 2, 1))
        for bad in (tensor[0], *other_sizes):
            with pytest.raises(ValueError, match=f"^{name} must have shape .* got "):
                graph_attention(**good | {name: bad}, adjacency=adjacency)
        if name != "values":
            with pytest.raises(ValueError, match=f"^{name} must be on cpu, got meta"):
                graph_attention(**good | {name: tensor.to("meta")}, adjacency=adjacency)
    with pytest.raises(ValueError, match="^adjacency must be on cpu, got meta"):
        graph_attention(**good, adjacency=adjacency.to("meta"))

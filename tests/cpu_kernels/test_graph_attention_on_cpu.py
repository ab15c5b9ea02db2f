"""graph_attention on a CPU: the formula, its gradients, NaN and infinities, graphs, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.cpu_agreement import DTYPES, assert_close, assert_same_on_more_threads, strided, wide
from torch import Tensor

from aurel.kernels.cpu import graph_attention as kernels

SLOPE = 0.2
SIZES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 1, 12, 130), (1, 2, 40, 16)]


def problem(
    batch: int, heads: int, nodes: int, channels: int, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return values and scores, and the gradients of output and weights."""
    torch.manual_seed(batch + heads + nodes + channels)
    values, grad = torch.randn(2, batch, heads, nodes, channels)
    target, source = 2 * torch.randn(2, batch, heads, nodes)
    grad_weights = torch.randn(batch, heads, nodes, nodes)
    inputs = [x.to(dtype) for x in (values, target, source)]
    return inputs, grad.to(dtype), grad_weights.to(dtype)


def random_edges(*shape: int) -> Tensor:
    """Return a graph, (N, N) or one for each image, in which node 0 has no neighbor."""
    edges = torch.rand(*shape) < 0.5
    edges[..., 0, :] = False
    return edges


def oracle(values: Any, target: Any, source: Any, adjacency: Any) -> tuple[Any, Any]:
    """Return output and weights, edge by edge."""
    batch, heads, nodes, _ = values.shape
    out, weights = np.zeros_like(values), np.zeros((batch, heads, nodes, nodes))
    for b, h, i in np.ndindex(batch, heads, nodes):
        row = adjacency[i] if adjacency.ndim == 2 else adjacency[b, i]
        neighbors = np.flatnonzero(row)
        scores = target[b, h, i] + source[b, h, neighbors]
        scores = np.where(scores > 0, scores, SLOPE * scores)
        if len(neighbors) > 0:
            e = np.exp(scores - scores.max())
            weights[b, h, i, neighbors] = e / e.sum()
        for j in neighbors:
            out[b, h, i] += weights[b, h, i, j] * values[b, h, j]
    return out, weights


def definition(values: Tensor, target: Tensor, source: Tensor, adjacency: Tensor) -> Any:
    """Return output and weights, differentiable; rows without an edge are zero."""
    pairs = torch.nn.functional.leaky_relu(target.unsqueeze(3) + source.unsqueeze(2), SLOPE)
    edges = adjacency if adjacency.dim() == 2 else adjacency.unsqueeze(1)
    weights = pairs.exp() * edges
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)
    return weights @ values, weights


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_output_and_gradients(
    size: tuple[int, int, int, int], dtype: torch.dtype, shared: bool
) -> None:
    inputs, grad, grad_weights = problem(*size, dtype)
    adjacency = random_edges(*(() if shared else size[:1]), size[2], size[2])
    got = kernels.forward(*inputs, adjacency, SLOPE, True)
    for value, expected in zip(got, oracle(*wide(*inputs, adjacency)), strict=True):
        assert value.dtype == dtype
        assert_close(value, expected)
    leaves = [x.double().requires_grad_() for x in inputs]
    outputs = definition(*leaves, adjacency)
    for used in ((grad, grad_weights), (grad, None), (None, grad_weights)):
        cotangents = [torch.zeros(()) if each is None else each.double() for each in used]
        loss = sum((out * g).sum() for out, g in zip(outputs, cotangents, strict=True))
        want = torch.autograd.grad(loss, leaves, retain_graph=True)
        gradients = kernels.backward(*used, *inputs, adjacency, SLOPE)
        for value, expected in zip(gradients, want, strict=True):
            assert value.dtype == dtype
            assert_close(value, expected)


def test_weights_are_not_written_unless_requested() -> None:
    inputs, _, _ = problem(2, 2, 5, 6, torch.float32)
    adjacency = random_edges(2, 5, 5)
    out, weights = kernels.forward(*inputs, adjacency, SLOPE, False)
    assert weights.shape == (0,)
    assert torch.equal(out, kernels.forward(*inputs, adjacency, SLOPE, True)[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_reaches_the_targets_of_its_edges_only(value: float) -> None:
    inputs, grad, _ = problem(1, 2, 8, 20, torch.float32)
    adjacency = random_edges(1, 8, 8)
    inputs[0][0, 1, 3, 17] = value
    with np.errstate(invalid="ignore"):
        want, _ = oracle(*wide(*inputs, adjacency))
    out, _ = kernels.forward(*inputs, adjacency, SLOPE, False)
    assert_close(out, want)
    assert out.isfinite().logical_not().sum() == adjacency[0, :, 3].sum()
    _, grad_target, _ = kernels.backward(grad, None, *inputs, adjacency, SLOPE)
    reached = adjacency[0, :, 3]
    assert torch.equal(grad_target[0, 1].isnan(), reached)
    assert grad_target[0, 0].isfinite().all()


def test_a_gradient_reaches_the_sources_of_its_edges_only() -> None:
    inputs, grad, _ = problem(1, 1, 8, 20, torch.float32)
    adjacency = random_edges(1, 8, 8)
    adjacency[0, 5] = torch.tensor([True, False] * 4)
    grad[0, 0, 5, 4] = torch.nan
    grad_values, grad_target, grad_source = kernels.backward(grad, None, *inputs, adjacency, SLOPE)
    assert torch.equal(grad_values[0, 0, :, 4].isnan(), adjacency[0, 5])
    assert torch.equal(grad_target[0, 0].isnan(), torch.arange(8) == 5)
    assert torch.equal(grad_source[0, 0].isnan(), adjacency[0, 5])


@pytest.mark.parametrize("score", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite(score: float) -> None:
    inputs, _, _ = problem(1, 1, 6, 4, torch.float64)
    adjacency = random_edges(1, 6, 6)
    inputs[2][0, 0, 2] = score
    with np.errstate(invalid="ignore"):
        want = oracle(*wide(*inputs, adjacency))
    for got, expected in zip(kernels.forward(*inputs, adjacency, SLOPE, True), want, strict=True):
        assert_close(got, expected)


def test_scores_far_apart_do_not_overflow() -> None:
    inputs, _, _ = problem(1, 1, 6, 4, torch.float32)
    inputs[1] *= 1000
    inputs[2] *= 1000
    adjacency = random_edges(1, 6, 6)
    for got, want in zip(
        kernels.forward(*inputs, adjacency, SLOPE, True),
        oracle(*wide(*inputs, adjacency)),
        strict=True,
    ):
        assert_close(got, want)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 1, 0, 4), (2, 2, 3, 0)])
def test_empty(shape: tuple[int, int, int, int]) -> None:
    inputs, grad, grad_weights = problem(*shape, torch.float32)
    adjacency = torch.ones(shape[0], shape[2], shape[2], dtype=torch.bool)
    out, weights = kernels.forward(*inputs, adjacency, SLOPE, True)
    assert out.shape == inputs[0].shape and weights.shape == grad_weights.shape
    gradients = kernels.backward(grad, grad_weights, *inputs, adjacency, SLOPE)
    for x, each in zip(inputs, gradients, strict=True):
        assert each.shape == x.shape


def test_strided_inputs() -> None:
    inputs, grad, _ = problem(2, 3, 5, 7, torch.float32)
    adjacency = random_edges(2, 5, 5)
    want = kernels.forward(*inputs, adjacency, SLOPE, True)
    gradients = kernels.backward(grad, None, *inputs, adjacency, SLOPE)
    moved = [strided(x) for x in inputs]
    turned = adjacency.mT.contiguous().mT
    for got, expected in zip(kernels.forward(*moved, turned, SLOPE, True), want, strict=True):
        assert torch.equal(got, expected)
    for got, expected in zip(
        kernels.backward(strided(grad), None, *moved, turned, SLOPE), gradients, strict=True
    ):
        assert torch.equal(got, expected)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, grad, grad_weights = problem(3, 2, 13, 50, torch.float32)
    adjacency = random_edges(3, 13, 13)
    assert_same_on_more_threads(
        monkeypatch,
        lambda: [
            *kernels.forward(*inputs, adjacency, SLOPE, True),
            *kernels.backward(grad, grad_weights, *inputs, adjacency, SLOPE),
        ],
    )

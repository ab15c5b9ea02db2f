"""gated_edge_aggregate on a CPU: the formula, its gradients, absent nodes, infinities, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.cpu_agreement import DTYPES, assert_close, assert_same_on_more_threads, strided, wide
from torch import Tensor

from aurel.kernels.cpu import gated_edge_aggregate as kernels

SIZES = [(1, 1, 1), (2, 3, 5), (3, 7, 129), (1, 12, 300)]


def problem(batch: int, nodes: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(batch + nodes + channels)
    edge = 3 * torch.randn(batch, nodes, nodes, channels)
    values, grad = torch.randn(2, batch, nodes, channels)
    return [edge.to(dtype), values.to(dtype), grad.to(dtype)]


def oracle(edge: Any, values: Any, grad: Any, mask: Any = None) -> tuple[Any, Any, Any]:
    """Return output and gradients of edges and values, target by target, over the valid nodes."""
    out, grad_edge, grad_values = np.zeros_like(values), np.zeros_like(edge), np.zeros_like(values)
    for image in range(len(values)):
        present = np.arange(values.shape[1]) if mask is None else np.flatnonzero(mask[image])
        for i in present:
            gate = 1 / (1 + np.exp(-edge[image, i, present]))
            weight = np.exp(gate) / np.exp(gate).sum(0)
            v = values[image, present]
            out[image, i] = (weight * v).sum(0)
            g = weight * grad[image, i]
            grad_values[image, present] += g
            grad_edge[image, i, present] = g * (v - out[image, i]) * gate * (1 - gate)
    return out, grad_edge, grad_values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_output_and_gradients(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    edge, values, grad = problem(*size, dtype)
    want = oracle(*wide(edge, values, grad))
    got = (kernels.forward(edge, values, None), *kernels.backward(grad, edge, values, None))
    for value, expected in zip(got, want, strict=True):
        assert value.dtype == dtype
        assert_close(value, expected)


def test_absent_nodes_have_no_effect_whatever_is_stored_there() -> None:
    edge, values, grad = problem(4, 6, 20, torch.float32)
    mask = torch.rand(4, 6) < 0.6
    mask[0], mask[1] = False, True
    pairs = (mask.unsqueeze(1) & mask.unsqueeze(2)).unsqueeze(-1)
    want = oracle(*wide(edge, values, grad, mask))
    edge, values, grad = (
        edge.where(pairs, torch.nan),
        values.where(mask.unsqueeze(-1), torch.inf),
        grad.where(mask.unsqueeze(-1), torch.nan),
    )
    got = (kernels.forward(edge, values, mask), *kernels.backward(grad, edge, values, mask))
    for value, expected in zip(got, want, strict=True):
        assert_close(value, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_and_infinite_edges_have_a_closed_or_an_open_gate(dtype: torch.dtype) -> None:
    edge, values, grad = problem(1, 4, 3, dtype)
    edge[0, 0, :, 0] = torch.tensor([torch.inf, -torch.inf, 1e4, -1e4])
    edge[0, 1, :, 1] = torch.tensor([90.0, -90.0, 800.0, -800.0])
    with np.errstate(over="ignore"):
        want = oracle(*wide(edge, values, grad))
    got = (kernels.forward(edge, values, None), *kernels.backward(grad, edge, values, None))
    for value, expected in zip(got, want, strict=True):
        assert_close(value, expected)


def test_nan_reaches_the_target_and_channel_of_its_edge_only() -> None:
    edge, values, _ = problem(2, 5, 33, torch.float32)
    clean = kernels.forward(edge, values, None)
    edge[1, 2, 3, 30] = torch.nan
    got = kernels.forward(edge, values, None)
    assert got[1, 2, 30].isnan()
    got[1, 2, 30] = clean[1, 2, 30]
    assert torch.equal(got, clean)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape: tuple[int, int, int]) -> None:
    edge, values, grad = problem(*shape, torch.float32)
    assert kernels.forward(edge, values, None).shape == values.shape
    grad_edge, grad_values = kernels.backward(grad, edge, values, None)
    assert grad_edge.shape == edge.shape and grad_values.shape == values.shape


def test_strided_inputs() -> None:
    inputs = problem(2, 5, 19, torch.float32)
    edge, values, grad = (strided(x) for x in inputs)
    want = oracle(*wide(*inputs))
    got = (kernels.forward(edge, values, None), *kernels.backward(grad, edge, values, None))
    for value, expected in zip(got, want, strict=True):
        assert_close(value, expected)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    edge, values, grad = problem(5, 7, 150, torch.float32)
    mask = torch.rand(5, 7) < 0.7
    assert_same_on_more_threads(
        monkeypatch,
        lambda: [
            kernels.forward(edge, values, mask),
            *kernels.backward(grad, edge, values, mask),
        ],
    )

"""pair_pool on a CPU: the formula, its gradients, sizes around the tiles, groups of sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.cpu_agreement import assert_close, assert_same_on_more_threads, strided, wide
from torch import Tensor

from aurel.kernels.cpu import pair_columns
from aurel.kernels.cpu import pair_pool as kernels

# (B, N, D, E), on both sides of the tiles of 3, 4, 5 and 7 rows and of 16 lanes.
SIZES = [
    (1, 1, 1, 1),
    (2, 3, 5, 4),
    (1, 2, 7, 17),
    (3, 4, 16, 3),
    (13, 2, 9, 8),
    (1, 5, 33, 50),
    (2, 4, 49, 49),
]


def problem(
    batch: int, nodes: int, tokens: int, width: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Return query, key and gram."""
    torch.manual_seed(batch + nodes + tokens + width)
    query, key = torch.randn(2, batch, nodes, tokens, width) * width**-0.25
    gram = torch.randn(batch, nodes, tokens, tokens) / tokens
    return [query.to(dtype), key.to(dtype), gram.to(dtype)]


def oracle(query: Any, key: Any, gram: Any) -> tuple[Any, Any]:
    """Return mean and scatter, pair by pair."""
    batch, nodes, tokens, _ = query.shape
    mean, scatter = np.zeros((batch, nodes, nodes, tokens)), np.zeros((batch, nodes, nodes))
    for b, i, j in np.ndindex(batch, nodes, nodes):
        scores = query[b, j] @ key[b, i].T
        attention = np.exp(scores - scores.max(1, keepdims=True))
        attention /= attention.sum(1, keepdims=True)
        mean[b, i, j] = attention.mean(0)
        deviation = attention - mean[b, i, j]
        scatter[b, i, j] = np.trace(deviation @ gram[b, i] @ deviation.T)
    return mean, scatter


def gradients(
    inputs: list[Tensor], grad_mean: Tensor, grad_scatter: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the gradients of the definition in float64."""
    leaves = [x.double().requires_grad_() for x in inputs]
    query, key = leaves[:2]
    attention = torch.einsum("bjde,bipe->bijdp", query, key).softmax(-1)
    mean = attention.mean(3)
    loss = (mean * grad_mean).sum()
    if grad_scatter is not None:
        deviation = attention - mean.unsqueeze(3)
        scatter = torch.einsum("bijdp,bipq,bijdq->bij", deviation, leaves[2], deviation)
        loss = loss + (scatter * grad_scatter).sum()
    return torch.autograd.grad(loss, leaves)


def check(inputs: list[Tensor]) -> None:
    mean, scatter = kernels.forward(*inputs)
    for value, want in zip((mean, scatter), oracle(*wide(*inputs)), strict=True):
        assert_close(value, want)
    grad_mean, grad_scatter = torch.randn_like(mean), torch.randn_like(scatter)
    got = kernels.backward(grad_mean, grad_scatter, mean, *inputs)
    for value, want in zip(got, gradients(inputs, grad_mean, grad_scatter), strict=True):
        assert value.dtype == inputs[0].dtype
        assert_close(value, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_moments_and_gradients(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    check(problem(*size, dtype))


@pytest.mark.parametrize("size", SIZES)
def test_without_a_gram(size: tuple[int, int, int, int]) -> None:
    query, key, _ = problem(*size)
    mean, scatter = kernels.forward(query, key, None)
    assert scatter.shape == (0,)
    assert_close(mean, oracle(*wide(*problem(*size)))[0])
    grad = torch.randn_like(mean)
    *got, grad_gram = kernels.backward(grad, scatter, mean, query, key, None)
    assert grad_gram.shape == (0,)
    for value, want in zip(got, gradients([query, key], grad, None), strict=True):
        assert_close(value, want)


def test_sources_in_several_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_columns, "_COLUMNS", 40)
    assert pair_columns.group_size(7, 9) == 4
    check(problem(2, 7, 9, 6))


def test_rows_that_would_share_a_cache_set() -> None:
    assert pair_columns.stride_of(768, np.dtype(np.float32)) % 256 != 0
    check(problem(1, 48, 16, 2))


def test_scores_far_apart_do_not_overflow() -> None:
    query, key, gram = problem(1, 3, 6, 5)
    inputs = [200 * query, key, gram]
    for got, want in zip(kernels.forward(*inputs), oracle(*wide(*inputs)), strict=True):
        torch.testing.assert_close(got.double(), torch.as_tensor(want), rtol=1e-3, atol=1e-4)


def test_nan_reaches_the_pairs_of_its_node_only() -> None:
    query, key, gram = problem(1, 4, 9, 5)
    query[0, 2, 3, 1] = torch.nan
    mean, scatter = kernels.forward(query, key, gram)
    assert mean[0, :, 2].isnan().all() and scatter[0, :, 2].isnan().all()
    rest = [0, 1, 3]
    assert mean[0, :, rest].isfinite().all() and scatter[0, :, rest].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5)])
def test_empty(shape: tuple[int, int, int, int]) -> None:
    inputs = problem(*shape)
    batch, nodes, tokens, _ = shape
    mean, scatter = kernels.forward(*inputs)
    assert mean.shape == (batch, nodes, nodes, tokens)
    assert torch.equal(scatter, torch.zeros(batch, nodes, nodes))
    for x, each in zip(inputs, kernels.backward(mean, scatter, mean, *inputs), strict=True):
        assert torch.equal(each, torch.zeros_like(x))


def test_without_width_all_tokens_are_attended_equally() -> None:
    query, key, gram = (torch.zeros(2, 3, 4, 0), torch.zeros(2, 3, 4, 0), torch.randn(2, 3, 4, 4))
    mean, scatter = kernels.forward(query, key, gram)
    assert torch.equal(mean, torch.full((2, 3, 3, 4), 0.25))
    assert torch.equal(scatter, torch.zeros(2, 3, 3))
    grads = kernels.backward(mean, scatter, mean, query, key, gram)
    assert [each.shape for each in grads] == [query.shape, key.shape, gram.shape]


def test_strided_inputs() -> None:
    check([strided(x) for x in problem(2, 3, 6, 5)])


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = problem(2, 7, 9, 8)

    def compute() -> list[Tensor]:
        mean, scatter = kernels.forward(*inputs)
        grads = kernels.backward(mean.cos(), scatter.cos(), mean, *inputs)
        return [mean, scatter, *grads]

    assert_same_on_more_threads(monkeypatch, compute)

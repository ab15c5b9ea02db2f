"""edge_update on a CPU: the formula, statistics and gradients through them, absent pairs, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.cpu_agreement import DTYPES, assert_close, assert_same_on_more_threads, strided, wide
from torch import Tensor

from aurel.kernels.cpu import edge_update as kernels

EPS = 1e-3
SIZES = [(2, 1, 1), (1, 1, 3), (2, 3, 5), (3, 5, 129), (1, 9, 200)]


def problem(batch: int, nodes: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    """Return edges, projected, target, source, weight, bias and the gradient of the output."""
    torch.manual_seed(batch + nodes + channels)
    edges, projected, grad = torch.randn(3, batch, nodes, nodes, channels)
    target, source = torch.randn(2, batch, nodes, channels)
    weight, bias = torch.randn(2, nodes, nodes)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    narrow = [x.to(dtype) for x in (edges, projected, target, source)]
    return [*narrow, weight.to(kept), bias.to(kept), grad.to(dtype)]


def definition(
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    present: Tensor,
    given: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute each pair from the rows of the images that have it; differentiable."""
    update = projected + target.unsqueeze(2) + source.unsqueeze(1)
    out, means, variances = torch.zeros_like(edges), [], []
    for i in range(edges.shape[1]):
        for j in range(edges.shape[1]):
            images = present[:, i, j]
            rows = update[images, i, j]
            if given is not None:
                mean, var = given[0][i, j], given[1][i, j]
            elif len(rows) == 0:
                mean = var = torch.zeros((), dtype=edges.dtype)
            else:
                mean, var = rows.mean(), rows.var(correction=0)
            new = weight[i, j] * (rows - mean) / (var + EPS).sqrt() + bias[i, j]
            out = out.index_put(
                (images.nonzero()[:, 0], torch.tensor(i), torch.tensor(j)),
                edges[images, i, j] + new.relu(),
            )
            means.append(mean)
            variances.append(var)
    shape = weight.shape
    return out, torch.stack(means).view(shape), torch.stack(variances).view(shape)


def check(
    inputs: list[Tensor], mask: Tensor | None = None, given: tuple[Tensor, Tensor] | None = None
) -> None:
    """Assert that output, statistics and gradients are those of the definition in float64."""
    *rest, grad = inputs
    mean, var = (None, None) if given is None else given
    out, *statistics = kernels.forward(*rest, mean, var, mask, EPS)  # type: ignore[call-arg, misc]
    used = statistics if given is None else given
    gradients = kernels.backward(grad, *rest[1:], *used, mask, EPS, given is not None)  # type: ignore[call-arg, misc]

    batch, nodes = rest[2].shape[:2]
    present = torch.ones(batch, nodes, nodes, dtype=torch.bool)
    if mask is not None:
        present = mask.unsqueeze(2) & mask.unsqueeze(1)
    pairs = present.unsqueeze(3)
    ends = torch.ones(batch, nodes, 1, dtype=torch.bool) if mask is None else mask.unsqueeze(2)
    where = [pairs, pairs, ends, ends]
    clean = [x.double().where(at, 0.0) for x, at in zip(rest, where, strict=False)]
    leaves = [x.requires_grad_() for x in (*clean, *(x.double().clone() for x in rest[4:]))]
    fixed = None if given is None else (given[0].double(), given[1].double())
    want, *moments = definition(*leaves, present, fixed)  # type: ignore[call-arg, misc]
    assert out.dtype == rest[0].dtype
    assert_close(out, want.detach())
    if given is None:
        for got, reference in zip(statistics, moments, strict=True):
            assert_close(got, reference.detach())
    else:
        assert all(each.shape == (0,) for each in statistics)
    cotangent = grad.double().where(pairs, 0.0)
    expected = torch.autograd.grad(want, leaves[1:], cotangent, materialize_grads=True)
    for x, got, reference in zip(rest[1:], gradients, expected, strict=True):
        assert got.dtype == x.dtype
        assert_close(got, reference)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_batch_statistics(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    check(problem(*size, dtype))


@pytest.mark.parametrize("masked", [False, True])
def test_given_statistics(masked: bool) -> None:
    inputs = problem(3, 4, 17, torch.float32)
    mask = torch.rand(3, 4) < 0.6 if masked else None
    check(inputs, mask, (torch.randn(4, 4), torch.rand(4, 4) + 0.1))


def test_absent_pairs_have_no_effect_whatever_is_stored_there() -> None:
    inputs = problem(4, 5, 20, torch.float32)
    mask = torch.rand(4, 5) < 0.6
    mask[:, 3] = False
    mask[0] = False
    absent = ~(mask.unsqueeze(2) & mask.unsqueeze(1)).unsqueeze(3)
    nodes = ~mask.unsqueeze(2)
    for index, where, value in (
        (0, absent, torch.nan),
        (1, absent, torch.inf),
        (2, nodes, torch.nan),
        (3, nodes, torch.inf),
        (6, absent, torch.nan),
    ):
        inputs[index] = inputs[index].masked_fill(where, value)
    check(inputs, mask)


def test_statistics_of_large_values_keep_their_digits() -> None:
    edges, projected, target, source, weight, bias, _ = problem(4, 3, 64, torch.float32)
    projected = projected + 1000 * torch.arange(1.0, 10.0).view(3, 3, 1)
    _, mean, var = kernels.forward(
        edges, projected, target, source, weight, bias, None, None, None, EPS
    )
    p, t, s = wide(projected, target, source)
    update = p + t[:, :, None] + s[:, None]
    # The sum of float32 terms near 9000 is rounded to about 5e-4 before anything else.
    np.testing.assert_allclose(mean, update.mean((0, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, update.var((0, 3)), rtol=2e-4)


def test_wider_edges_than_updates() -> None:
    edges, projected, target, source, weight, bias, grad = problem(2, 3, 7, torch.float32)
    wider = [edges.double(), projected, target, source, weight.double(), bias.double()]
    out, mean, var = kernels.forward(*wider, None, None, None, EPS)  # type: ignore[misc]
    assert (out.dtype, mean.dtype, var.dtype) == (torch.float64,) * 3
    grads = kernels.backward(grad.double(), *wider[1:], mean, var, None, EPS, False)  # type: ignore[misc]
    assert [each.dtype for each in grads] == [torch.float32] * 3 + [torch.float64] * 2


def test_nan_reaches_the_edges_of_its_pair_only() -> None:
    inputs = problem(2, 3, 5, torch.float32)
    rest: list[Any] = [*inputs[:6], torch.zeros(3, 3), torch.ones(3, 3), None, EPS]
    clean = kernels.forward(*rest)[0]
    rest[1][1, 0, 2, 3] = torch.nan
    got = kernels.forward(*rest)[0]
    assert got[1, 0, 2, 3].isnan()
    got[1, 0, 2, 3] = clean[1, 0, 2, 3]
    assert torch.equal(got, clean)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape: tuple[int, int, int]) -> None:
    *rest, grad = problem(*shape, torch.float32)
    out, mean, var = kernels.forward(*rest, None, None, None, EPS)  # type: ignore[call-arg, misc]
    assert out.shape == rest[0].shape
    assert not mean.any() and not var.any()
    grads = kernels.backward(grad, *rest[1:], mean, var, None, EPS, False)  # type: ignore[call-arg, misc]
    for x, each in zip(rest[1:], grads, strict=True):
        assert each.shape == x.shape and not each.any()


def test_strided_inputs() -> None:
    check([strided(x) for x in problem(2, 4, 19, torch.float32)])


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    *rest, grad = problem(5, 6, 150, torch.float32)
    mask = torch.rand(5, 6) < 0.7

    def compute() -> list[Tensor]:
        out, mean, var = kernels.forward(*rest, None, None, mask, EPS)  # type: ignore[call-arg, misc]
        grads = kernels.backward(grad, *rest[1:], mean, var, mask, EPS, False)  # type: ignore[call-arg, misc]
        return [out, mean, var, *grads]

    assert_same_on_more_threads(monkeypatch, compute)

"""`pair_pool` against its equations in numpy, and the properties of every op."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops.pair_pool import pair_pool, pair_pool_reference

SIZES = [(1, 1, 1, 1), (2, 3, 5, 4), (1, 7, 2, 3), (3, 2, 7, 7)]


def inputs(
    batch: int, nodes: int, tokens: int, width: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    query, key = torch.randn(2, batch, nodes, tokens, width, dtype=dtype)
    values = torch.randn(batch, nodes, tokens, 6, dtype=dtype)
    return [query.clone(), key.clone(), values @ values.mT]


def oracle(query: np.ndarray, key: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    batch, nodes, tokens, _ = query.shape
    mean = np.zeros((batch, nodes, nodes, tokens))
    scatter = np.zeros((batch, nodes, nodes))
    for b in range(batch):
        for i in range(nodes):
            for j in range(nodes):
                scores = query[b, j] @ key[b, i].T
                weights = np.exp(scores - scores.max(1, keepdims=True))
                weights /= weights.sum(1, keepdims=True)
                mean[b, i, j] = weights.mean(0)
                deviation = weights - weights.mean(0)
                scatter[b, i, j] = np.trace(deviation @ gram[b, i] @ deviation.T)
    return mean, scatter


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("function", [pair_pool, pair_pool_reference])
def test_equals_the_equations(size: tuple[int, ...], function) -> None:
    tensors = inputs(*size)
    mean, scatter = function(*tensors)
    want_mean, want_scatter = oracle(*(tensor.numpy() for tensor in tensors))
    np.testing.assert_allclose(mean, want_mean, rtol=1e-12)
    np.testing.assert_allclose(scatter, want_scatter, rtol=1e-10, atol=1e-14)
    alone, no_scatter = function(*tensors[:2])
    assert torch.equal(alone, mean) and no_scatter is None


def test_scatter_is_that_of_attended_values() -> None:
    query, key, _ = inputs(2, 3, 5, 4)
    values = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    scores = torch.einsum("bjde,bipe->bijdp", query, key)
    attended = torch.einsum("bijdp,bipc->bijdc", scores.softmax(-1), values)
    center = attended.mean(3, keepdim=True)
    # A constant added to all tokens' values moves the mean only.
    shifted = values - values.mean(2, keepdim=True)
    for gram in (values @ values.mT, shifted @ shifted.mT):
        mean, scatter = pair_pool(query, key, gram)
        torch.testing.assert_close(mean @ values, center.squeeze(3))
        torch.testing.assert_close(scatter, (attended - center).square().sum((3, 4)))


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
@pytest.mark.parametrize("block", [2**5, 2**8, 2**30], ids=["targets", "images", "whole"])
def test_gradients_are_those_of_the_definition(
    size: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `aurel.ops.pair_pool` as an attribute is the function.
    monkeypatch.setattr(import_module("aurel.ops.pair_pool"), "_CPU_BLOCK", block)
    tensors = [tensor.requires_grad_() for tensor in inputs(*size)]
    cotangents = [torch.randn_like(out) for out in pair_pool_reference(*tensors)]
    grads = [
        torch.autograd.grad(function(*tensors), tensors, cotangents)
        for function in (pair_pool, pair_pool_reference)
    ]
    for got, expected in zip(*grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("budget", "count"), [(20, 5 * 7), (100, 5 * 4), (300, 5 * 2), (1000, 3), (5000, 1)]
)
def test_blocks_hold_every_pair_once_and_about_a_budget(
    budget: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("aurel.ops.pair_pool")
    monkeypatch.setattr(module, "_CPU_BLOCK", budget)
    blocks = [*module._blocks(torch.empty(5, 7, 3, 1))]
    seen = torch.zeros(5, 7)
    for block in blocks:
        seen[block] += 1
        weights_of_a_target = 7 * 3 * 3
        assert (seen[block].numel() - 1) * weights_of_a_target < budget
    assert torch.equal(seen, torch.ones(5, 7)) and len(blocks) == count


def test_gradcheck_with_any_gram() -> None:
    query, key, _ = inputs(2, 2, 3, 2)
    gram = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    for tensors in ((query, key, gram), (query, key)):
        assert torch.autograd.gradcheck(
            lambda *given: [out for out in pair_pool(*given) if out is not None],
            [tensor.requires_grad_() for tensor in tensors],
        )


def test_low_precision_is_computed_in_float32() -> None:
    tensors = inputs(2, 3, 5, 4, torch.float32)
    halves = [tensor.bfloat16() for tensor in tensors]
    expected = pair_pool(*(half.float() for half in halves))
    definition = pair_pool_reference(*halves)
    for out, want in zip(
        definition, pair_pool_reference(*(h.float() for h in halves)), strict=True
    ):
        assert torch.equal(out, want)
    for outs in (pair_pool(*halves), _under_autocast(halves)):
        for out, want in zip(outs, expected, strict=True):
            assert out.dtype == torch.float32
            assert torch.equal(out, want)


def _under_autocast(tensors: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    with torch.autocast("cpu", torch.bfloat16):
        return pair_pool(*(tensor.float() for tensor in tensors))


def test_backward_under_autocast_keeps_float32() -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs(2, 3, 5, 4, torch.float32)]

    def total() -> Tensor:
        mean, scatter = pair_pool(*tensors)
        return mean.square().sum() + scatter.sum()

    plain = torch.autograd.grad(total(), tensors)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = torch.autograd.grad(total(), tensors)
    for a, b in zip(plain, mixed, strict=True):
        assert torch.equal(a, b)


def test_any_memory_layout() -> None:
    query, key, gram = inputs(2, 3, 5, 4)
    expected = pair_pool(query, key, gram)
    strided = (
        query.transpose(1, 2).contiguous().transpose(1, 2),
        key.mT.contiguous().mT,
        torch.stack((gram, gram), -1)[..., 0],
    )
    for out, want in zip(pair_pool(*strided), expected, strict=True):
        torch.testing.assert_close(out, want)


@pytest.mark.parametrize("size", [(0, 3, 4, 2), (2, 0, 4, 2)], ids=["no image", "no node"])
def test_empty(size: tuple[int, ...]) -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs(*size)]
    mean, scatter = pair_pool(*tensors)
    assert mean.shape == (size[0], size[1], size[1], 4) and scatter.shape == mean.shape[:3]
    (mean.sum() + scatter.sum()).backward()
    assert all(tensor.grad.shape == tensor.shape for tensor in tensors)


def test_nan_stays_with_its_pairs() -> None:
    query, key, gram = inputs(2, 4, 3, 2)
    query[0, 1, 0, 0] = torch.nan
    mean, scatter = pair_pool(query, key, gram)
    bad = torch.zeros(2, 4, 4, dtype=torch.bool)
    bad[0, :, 1] = True
    assert torch.equal(mean.isnan().any(-1), bad) and torch.equal(scatter.isnan(), bad)


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_permuting_nodes_permutes_pairs(order: list[int]) -> None:
    torch.manual_seed(0)
    query, key, gram = inputs(2, 4, 3, 2)
    mean, scatter = pair_pool(query, key, gram)
    moved = pair_pool(query[:, order], key[:, order], gram[:, order])
    torch.testing.assert_close(moved[0], mean[:, order][:, :, order])
    torch.testing.assert_close(moved[1], scatter[:, order][:, :, order])


def test_messages() -> None:
    query, key, gram = inputs(2, 3, 5, 4)
    with pytest.raises(ValueError, match=r"query must have shape \(B, N, D, E\), got \(3, 5, 4\)"):
        pair_pool(query[0], key, gram)
    with pytest.raises(ValueError, match=r"key must have shape \(B=2, N=3, D=5, E=4\)"):
        pair_pool(query, key[:, :2], gram)
    with pytest.raises(ValueError, match="gram must have shape"):
        pair_pool(query, key, gram[..., :2])
    good = {"query": query, "key": key, "gram": gram}
    for name, tensor in good.items():
        with pytest.raises(ValueError, match=f"^{name} must be floating point, got torch.int64"):
            pair_pool(**good | {name: tensor.long()})
        with pytest.raises(ValueError, match=f"^{name} must have shape .* got "):
            pair_pool(**good | {name: tensor[0]})
        others = (tensor[:1], tensor[:, :2], tensor[:, :, :2]) if name != "query" else ()
        for bad in (*others, *((key[..., :2],) if name == "key" else ())):
            with pytest.raises(ValueError, match=f"^{name} must have shape .* got "):
                pair_pool(**good | {name: bad})
        if name != "query":
            with pytest.raises(ValueError, match=f"^{name} must be on cpu, got meta"):
                pair_pool(**good | {name: tensor.to("meta")})
    with pytest.raises(ValueError, match="pair_pool: backend='triton' cannot serve this call"):
        pair_pool(query, key, gram, backend="triton")

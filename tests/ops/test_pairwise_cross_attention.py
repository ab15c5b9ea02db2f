"""`pairwise_cross_attention` against its equations in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aurel.ops.backend import use_backend
from aurel.ops.pairwise_cross_attention import (
    pairwise_cross_attention,
    pairwise_cross_attention_reference,
)

SIZES = [(1, 1, 1, 1, 1), (2, 3, 5, 4, 6), (1, 5, 2, 3, 7), (3, 2, 7, 2, 3)]


def inputs(
    batch: int, nodes: int, tokens: int, width: int, channels: int, dtype=torch.float64
) -> list[Tensor]:
    query, key = torch.randn(2, batch, nodes, tokens, width, dtype=dtype)
    return [query.clone(), key.clone(), torch.randn(batch, nodes, tokens, channels, dtype=dtype)]


def oracle(query: np.ndarray, key: np.ndarray, value: np.ndarray, scale: float) -> tuple:
    batch, nodes, _, channels = value.shape
    mean, moment = np.zeros((batch, nodes, nodes, channels)), np.zeros((batch, nodes, nodes))
    for b, i, j in np.ndindex(batch, nodes, nodes):
        weights = np.exp(query[b, j] @ key[b, i].T * scale)
        attended = weights / weights.sum(1, keepdims=True) @ value[b, i]
        mean[b, i, j] = attended.mean(0)
        moment[b, i, j] = (attended**2).sum()
    return mean, moment


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_equations(size: tuple[int, ...]) -> None:
    tensors = inputs(*size)
    expected = oracle(*(tensor.numpy() for tensor in tensors), 0.3)
    for outs in (
        pairwise_cross_attention(*tensors, scale=0.3),
        pairwise_cross_attention_reference(*tensors, 0.3),
    ):
        for out, want in zip(outs, expected, strict=True):
            np.testing.assert_allclose(out, want, rtol=1e-11, atol=1e-13)


def test_gradients_are_those_of_the_definition() -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs(2, 3, 5, 4, 6)]
    reference = pairwise_cross_attention_reference(*tensors, 0.5)
    cotangents = [torch.randn_like(out) for out in reference]
    expected = torch.autograd.grad(reference, tensors, cotangents)
    outs = pairwise_cross_attention(*tensors, scale=0.5)
    for got, want in zip(torch.autograd.grad(outs, tensors, cotangents), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda *given: pairwise_cross_attention(*given, scale=0.5),
        [tensor.detach()[:1, :2, :3].requires_grad_() for tensor in tensors],
    )


def test_large_values_in_float32() -> None:
    query, key, value = inputs(2, 4, 9, 4, 16, torch.float32)
    for shift in (0.0, 1000.0):
        exact = pairwise_cross_attention_reference(
            query.double(), key.double(), (value + shift).double(), 0.5
        )
        outs = pairwise_cross_attention(query, key, value + shift, scale=0.5)
        for out, want in zip(outs, exact, strict=True):
            assert (out - want).abs().max() < 1e-6 * want.abs().max()


def test_dtypes() -> None:
    query, key, value = inputs(2, 3, 5, 4, 6, torch.float32)
    mean, moment = pairwise_cross_attention(query, key, value, scale=0.5)
    half = [tensor.bfloat16() for tensor in (query, key, value)]
    half_mean, half_moment = pairwise_cross_attention(*half, scale=0.5)
    assert half_mean.dtype == torch.bfloat16 and half_moment.dtype == torch.float32
    torch.testing.assert_close(half_mean.float(), mean, rtol=0.05, atol=0.05)
    exact = pairwise_cross_attention_reference(*(tensor.float() for tensor in half), 0.5)
    rounded, moments = pairwise_cross_attention_reference(*half, 0.5)
    assert torch.equal(rounded, exact[0].bfloat16()) and torch.equal(moments, exact[1])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pairwise_cross_attention(query, key, value, scale=0.5)
    assert torch.equal(mixed[0], mean) and torch.equal(mixed[1], moment)
    assert pairwise_cross_attention(half[0], key, value, scale=0.5)[0].dtype == torch.float32


def test_compiles_in_one_graph_and_exports_with_any_batch() -> None:
    class Attention(nn.Module):
        def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
            return pairwise_cross_attention(*tensors, scale=0.5)

    tensors = [tensor.requires_grad_() for tensor in inputs(2, 3, 5, 4, 6)]
    expected = Attention()(*tensors)
    outs = torch.compile(Attention(), fullgraph=True, backend="aot_eager")(*tensors)
    cotangents = [torch.randn_like(out) for out in outs]
    grads = (torch.autograd.grad(each, tensors, cotangents) for each in (outs, expected))
    for got, want in zip([*outs, *next(grads)], [*expected, *next(grads)], strict=True):
        torch.testing.assert_close(got, want)

    sizes = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(Attention(), tuple(tensors), dynamic_shapes=((sizes,) * 3,))
    more = inputs(3, 3, 5, 4, 6)
    for got, want in zip(program.module()(*more), Attention()(*more), strict=True):
        torch.testing.assert_close(got, want)


def test_meta_tensors_have_the_shapes_of_the_results() -> None:
    expected = pairwise_cross_attention(*inputs(2, 3, 5, 4, 6), scale=0.5)
    with use_backend("auto"):
        outs = pairwise_cross_attention(*(t.to("meta") for t in inputs(2, 3, 5, 4, 6)), scale=0.5)
    for out, want in zip(outs, expected, strict=True):
        assert (out.shape, out.dtype) == (want.shape, want.dtype)


def test_masked_nodes_equal_absent_ones() -> None:
    tensors = inputs(2, 4, 3, 2, 5)
    mask = torch.tensor([[True, False, True, True], [True, True, True, True]])
    expected = pairwise_cross_attention(*(t[:1, [0, 2, 3]] for t in tensors), scale=0.5)
    for tensor in tensors:
        tensor[0, 1] = torch.nan
        tensor.requires_grad_()
    outs = pairwise_cross_attention(*tensors, scale=0.5, mask=mask)
    for out, want in zip(outs, expected, strict=True):
        torch.testing.assert_close(out[:1, [0, 2, 3]][:, :, [0, 2, 3]], want)
        assert not out[0, 1].any() and not out[0, :, 1].any() and out.isfinite().all()
    sum(out.sum() for out in outs).backward()
    assert all(t.grad.isfinite().all() and not t.grad[0, 1].any() for t in tensors)


def test_messages() -> None:
    query, key, value = inputs(2, 3, 5, 4, 6)
    with pytest.raises(ValueError, match=r"value must have shape \(B=2, N=3, D=5, C\)"):
        pairwise_cross_attention(query, key, value[:, :2], scale=1.0)
    with pytest.raises(ValueError, match="mask must be bool"):
        pairwise_cross_attention(query, key, value, scale=1.0, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"^query must have shape \(B, N, D, E\), got"):
        pairwise_cross_attention(query[0], key, value, scale=1.0)
    with pytest.raises(ValueError, match=r"^key must have shape \(B=2, N=3, D=5, E=4\), got"):
        pairwise_cross_attention(query, key[0], value, scale=1.0)
    good = {"query": query, "key": key, "value": value, "scale": 1.0}
    for name, tensor in zip(good, (query, key, value), strict=False):
        with pytest.raises(ValueError, match=f"^{name} must be floating point, got torch.int64"):
            pairwise_cross_attention(**good | {name: tensor.long()})
        with pytest.raises(ValueError, match=f"^{name} must have shape .* got "):
            pairwise_cross_attention(**good | {name: tensor[0]})
        others = (tensor[:1], tensor[:, :2], tensor[:, :, :2]) if name != "query" else ()
        for bad in (*others, *((key[..., :2],) if name == "key" else ())):
            with pytest.raises(ValueError, match=f"^{name} must have shape .* got "):
                pairwise_cross_attention(**good | {name: bad})
        if name != "query":
            with pytest.raises(ValueError, match=f"^{name} must be on cpu, got meta"):
                pairwise_cross_attention(**good | {name: tensor.to("meta")})

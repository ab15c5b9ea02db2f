"""edge_update kernels: the definition, its gradients, statistics, absent nodes, broken edges."""

from __future__ import annotations

import functools
from copy import deepcopy

import pytest
import torch
from agreement import assert_agree, check
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import DEVICE, DTYPES, QUIET
from torch import Tensor
from torch.library import opcheck

from aurel.layers.gated_edge_gcn import GatedEdgeGCN
from aurel.ops.backend import use_backend
from aurel.ops.edge_update import (
    _edge_update,
    _edge_update_backward,
    edge_update,
    edge_update_reference,
)

pytestmark = QUIET

triton = functools.partial(edge_update, backend="triton")


def problem(
    batch: int, nodes: int, channels: int, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor]:
    """Edges, projection, targets, sources, weight and bias; and a cotangent."""
    edges, projected, grad = torch.randn(3, batch, nodes, nodes, channels, device=DEVICE)
    target, source = torch.randn(2, batch, nodes, channels, device=DEVICE)
    weight, bias = torch.randn(2, nodes, nodes, device=DEVICE)
    values = [tensor.to(dtype) for tensor in (edges, projected, target, source)]
    return [*values, weight, bias], grad


def moments(nodes: int) -> tuple[Tensor, Tensor]:
    mean, var = torch.rand(2, nodes, nodes, device=DEVICE)
    return mean, var + 0.5


def compare(
    tensors: list[Tensor],
    grad: Tensor,
    statistics: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | None = None,
) -> None:
    """New edges and gradients against the definition; values at a ReLU's corner are kept away."""
    wide = None if statistics is None else tuple(each.double() for each in statistics)
    exact = edge_update_reference(*(each.double() for each in tensors), wide, mask=mask)
    update = (exact[0] - tensors[0].double()).abs()
    grad = grad.where((update == 0) | (update > 1e-4), 0.0).contiguous()
    found = []

    def new_edges(*given: Tensor) -> Tensor:
        out, *moments = triton(*given, statistics, mask=mask)
        found.extend(moments)
        return out

    check(
        new_edges,
        lambda *given: edge_update_reference(*given, wide, mask=mask)[0],
        tensors,
        [grad],
    )
    for got, want in zip(found, exact[1:], strict=True):
        assert got.dtype == torch.float32
        assert_agree(got, want)


@settings(max_examples=8, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(2, 40)),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_equals_the_definition(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    masked: bool,
    strided: bool,
    told: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    tensors, grad = problem(*shape, dtype)
    mask = torch.rand(shape[:2], device=DEVICE) < 0.7 if masked else None
    if strided:
        tensors = [tensor.mT.contiguous().mT for tensor in tensors]
    compare(tensors, grad, moments(shape[1]) if told else None, mask)


@pytest.mark.parametrize("nodes", [17, 33])
def test_larger_blocks(nodes: int) -> None:
    compare(*problem(1, nodes, 5))


def test_more_channels_than_a_strip_and_more_images_than_a_block() -> None:
    compare(*problem(17, 2, 130))


def test_ends_as_parts_of_wider_rows() -> None:
    tensors, grad = problem(2, 5, 6)
    wide = torch.randn(2, 5, 24, device=DEVICE)
    tensors[2:4] = wide.chunk(4, -1)[1:3]
    compare(tensors, grad)


def test_edges_of_another_dtype_than_the_rest() -> None:
    tensors, _ = problem(2, 5, 6)
    half = [tensors[0], *(tensor.bfloat16() for tensor in tensors[1:4]), *tensors[4:]]
    out, mean, _ = triton(*half)
    want = edge_update_reference(*(tensor.double() for tensor in half))
    assert out.dtype == torch.float32
    assert_agree(out, want[0])
    assert_agree(mean, want[1])


def test_a_large_common_value_costs_the_variance_no_digits() -> None:
    tensors, _ = problem(16, 3, 70)
    tensors[1] += 1000
    _, mean, var = triton(*tensors)
    _, want_mean, want_var = edge_update_reference(*(tensor.double() for tensor in tensors))
    torch.testing.assert_close(mean.double(), want_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), want_var, rtol=1e-5, atol=0)


def test_where_no_node_exists_all_is_zero() -> None:
    tensors, grad = problem(2, 5, 3)
    mask = torch.zeros(2, 5, dtype=torch.bool, device=DEVICE)
    mask[1, [1, 4]] = True
    for tensor in tensors[:4]:
        tensor[0] = tensor[1, 0] = torch.nan
    leaves = [tensor.requires_grad_() for tensor in tensors]
    out, mean, var = triton(*leaves, mask=mask)
    pairs = mask[1][:, None] & mask[1]
    assert out.isfinite().all() and not out[0].any() and not out[1][~pairs].any()
    assert out[1][pairs].all()
    assert not mean[~pairs].any() and not var[~pairs].any() and var[pairs].all()
    grads = torch.autograd.grad(out, leaves, grad)
    assert all(each.isfinite().all() for each in grads)
    assert not any(each[0].any() for each in grads[:4])
    assert not any(each[~pairs].any() for each in grads[4:])


@pytest.mark.parametrize("told", [False, True], ids=["batch", "given"])
def test_a_broken_edge_stays_with_its_pair(told: bool) -> None:
    tensors, grad = problem(2, 4, 3)
    tensors[1][0, 2, 1, 0] = torch.nan
    leaves = [tensor.requires_grad_() for tensor in tensors]
    out, _, _ = triton(*leaves, moments(4) if told else None)
    bad = torch.zeros_like(out, dtype=torch.bool)
    bad[:, 2, 1] = not told
    bad[0, 2, 1, 0] = True
    assert torch.equal(out.isnan(), bad)
    grad_edges, grad_projected, *_ = torch.autograd.grad(out, leaves, grad)
    assert grad_edges.isfinite().all()
    assert torch.equal(grad_projected.isnan(), bad & (not told))


@pytest.mark.parametrize("told", [False, True], ids=["batch, mask", "given"])
def test_opcheck(told: bool) -> None:
    tensors, grad = problem(2, 4, 3)
    statistics = moments(4)
    mask = None if told else torch.tensor([[True, False, True, True]] * 2, device=DEVICE)
    _, *update, weight, bias = tensors
    pairs = (weight, bias, *statistics, mask, 1e-5)
    opcheck(_edge_update_backward, (grad, update, *pairs, told, "triton"))
    leaves = [tensor.requires_grad_() for tensor in tensors]
    known = statistics if told else (None, None)
    opcheck(_edge_update, (*leaves, *known, mask, 1e-5, True, "triton"))


def test_nothing_to_do() -> None:
    for shape in ((0, 3, 4), (2, 0, 4)):
        tensors, grad = problem(*shape)
        leaves = [tensor.requires_grad_() for tensor in tensors]
        out, mean, _ = triton(*leaves)
        grads = torch.autograd.grad(out, leaves, grad)
        assert out.shape == grads[1].shape == grad.shape and mean.shape == leaves[4].shape
        assert not any(each.any() for each in grads)


def test_sizes_that_are_not_served() -> None:
    tensors = [torch.zeros(1, 257, 257, 1, device=DEVICE)] * 2
    tensors += [torch.zeros(1, 257, 1, device=DEVICE)] * 2
    tensors += [torch.zeros(257, 257, device=DEVICE)] * 2
    with pytest.raises(ValueError, match="up to 256 nodes, got 257"):
        triton(*tensors)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_layer_gives_the_same_on_both_paths(training: bool) -> None:
    layer = GatedEdgeGCN(6, 5).to(DEVICE).train(training)
    x = torch.randn(3, 5, 6, device=DEVICE, requires_grad=True)
    edges = torch.randn(3, 5, 5, 6, device=DEVICE, requires_grad=True)
    results = []
    for backend in ("torch", "triton"):
        own = deepcopy(layer)
        with use_backend(backend):
            outs = own(x, edges)
        wanted = [x, edges, *own.parameters()]
        grads = torch.autograd.grad([out.square().sum() for out in outs], wanted)
        results.append([*outs, *grads, *own.buffers()])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(
            got, want, rtol=1e-4, atol=1e-4 * float(want.detach().abs().max())
        )


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_every_run_gives_the_same_bits() -> None:
    tensors, grad = problem(16, 27, 512)
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def run() -> list[Tensor]:
        outs = triton(*leaves)
        return [*outs, *torch.autograd.grad(outs[0], leaves, grad)]

    first = run()
    for _ in range(9):
        assert all(map(torch.equal, run(), first))

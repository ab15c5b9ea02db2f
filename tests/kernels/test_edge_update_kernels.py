"""edge_update kernels: the definition, its gradients, statistics, absent nodes, NaN."""

from __future__ import annotations

import functools
from copy import deepcopy

import pytest
import torch
from helpers.agreement import assert_agree, check
from helpers.plain import DEVICE, DTYPES, QUIET
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from aurel.kernels.triton import edge_update as kernels
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
    """Return edges, projected edges, targets, sources, weight and bias; and a cotangent."""
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
    """Compare new edges and gradients with the definition, without values near the ReLU's kink."""
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
    known: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    tensors, grad = problem(*shape, dtype)
    mask = torch.rand(shape[:2], device=DEVICE) < 0.7 if masked else None
    if strided:
        tensors = [tensor.mT.contiguous().mT for tensor in tensors]
    compare(tensors, grad, moments(shape[1]) if known else None, mask)


def test_more_nodes_than_the_smallest_tile() -> None:
    compare(*problem(2, 17, 5))


def test_one_node_and_one_channel() -> None:
    compare(*problem(9, 1, 1))


def test_more_channels_than_a_strip_and_more_images_than_a_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(kernels.JOIN, "BLOCK_B", 4)
    mask = torch.rand(9, 2, device=DEVICE) < 0.7
    compare(*problem(9, 2, 130), mask=mask)


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


def test_a_large_common_value_does_not_cost_the_variance_digits() -> None:
    tensors, _ = problem(16, 3, 70)
    tensors[1] += 1000
    _, mean, var = triton(*tensors)
    _, want_mean, want_var = edge_update_reference(*(tensor.double() for tensor in tensors))
    torch.testing.assert_close(mean.double(), want_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), want_var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("known", [False, True], ids=["batch", "given"])
def test_absent_pairs_are_not_read_and_get_zeros(known: bool) -> None:
    tensors, grad = problem(3, 5, 3)
    mask = torch.zeros(3, 5, dtype=torch.bool, device=DEVICE)
    mask[1, [1, 4]] = mask[2, [1, 2, 4]] = True
    absent = ~(mask[:, :, None] & mask[:, None])
    statistics = moments(5) if known else None
    clean = [each.clone() for each in tensors]
    wide = None if statistics is None else tuple(each.double() for each in statistics)
    leaves = [each.double().requires_grad_() for each in clean]
    want = edge_update_reference(*leaves, wide, mask=mask)
    want_grads = torch.autograd.grad(want[0], leaves[1:], grad.double())
    for each in (*tensors[:2], grad):
        each[absent] = torch.nan
    for each in tensors[2:4]:
        each[~mask] = torch.nan
    given = statistics or (None, None)
    out, mean, var = kernels.forward(*tensors, *given, mask, 1e-5)
    assert_agree(out, want[0].detach())
    assert not out[absent].any() and out[~absent].all()
    if known:
        assert mean.shape == var.shape == (0,)
    else:
        assert_agree(mean, want[1])
        assert_agree(var, want[2])
    used = statistics or (mean, var)
    grads = kernels.backward(grad, *tensors[1:], *used, mask, 1e-5, known)
    for got, expected in zip(grads, want_grads, strict=True):
        assert_agree(got, expected)
    assert not grads[0][absent].any()


@pytest.mark.parametrize("known", [False, True], ids=["batch", "given"])
def test_nan_of_an_edge_stays_with_its_pair(known: bool) -> None:
    tensors, grad = problem(2, 4, 3)
    tensors[1][0, 2, 1, 0] = torch.nan
    leaves = [tensor.requires_grad_() for tensor in tensors]
    out, _, _ = triton(*leaves, moments(4) if known else None)
    bad = torch.zeros_like(out, dtype=torch.bool)
    bad[:, 2, 1] = not known
    bad[0, 2, 1, 0] = True
    assert torch.equal(out.isnan(), bad)
    grad_edges, grad_projected, *_ = torch.autograd.grad(out, leaves, grad)
    assert grad_edges.isfinite().all()
    assert torch.equal(grad_projected.isnan(), bad & (not known))


@pytest.mark.parametrize("known", [False, True], ids=["batch, mask", "given"])
def test_opcheck(known: bool) -> None:
    tensors, grad = problem(1, 2, 3)
    statistics = moments(2)
    mask = None if known else torch.tensor([[True, False]], device=DEVICE)
    rest = (*statistics, mask, 1e-5, known, "triton")
    opcheck(_edge_update_backward.op, (grad, *tensors[1:], *rest))
    leaves = [tensor.requires_grad_() for tensor in tensors]
    given = statistics if known else (None, None)
    opcheck(_edge_update.op, (*leaves, *given, mask, 1e-5, "triton"))


def test_empty_inputs() -> None:
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
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
        inputs = [x, edges, *own.parameters()]
        grads = torch.autograd.grad([out.square().sum() for out in outs], inputs)
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

"""graph_attention kernels: the definition, its gradients, isolated and non-finite nodes, tiles."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from helpers.agreement import check
from helpers.plain import DEVICE, DTYPES, QUIET
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.kernels.triton import graph_attention as kernels
from aurel.kernels.triton.launch import Launch
from aurel.layers.cross_region_gat import CrossRegionGAT
from aurel.ops.backend import use_backend
from aurel.ops.graph_attention import graph_attention, graph_attention_reference

pytestmark = QUIET

triton = functools.partial(graph_attention, backend="triton")


def problem(
    batch: int, heads: int, nodes: int, channels: int, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Inputs, a graph in which node 0 has no source, and cotangents of both outputs."""
    shapes = ((batch, heads, nodes, channels), (batch, heads, nodes), (batch, heads, nodes))
    inputs = [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes]
    adjacency = torch.rand(batch, nodes, nodes, device=DEVICE) < 0.4
    adjacency[:, 0] = False
    weights = (batch, heads, nodes, nodes)
    return inputs, adjacency, [torch.randn(s, device=DEVICE) for s in (shapes[0], weights)]


def compare(
    inputs: list[Tensor], adjacency: Tensor, cotangents: list[Tensor], slope: float = 0.2
) -> None:
    check(
        lambda *tensors: triton(*tensors, adjacency, negative_slope=slope),
        lambda *tensors: graph_attention_reference(*tensors, adjacency, slope),
        inputs,
        cotangents,
    )


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 18), st.integers(1, 36)),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.2, 0.0, 1.5]),
    st.integers(0, 2**31),
)
def test_equals_the_definition(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    per_sample: bool,
    strided: bool,
    slope: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    inputs, adjacency, cotangents = problem(*shape, dtype)
    adjacency = adjacency if per_sample else adjacency[0]
    if strided:
        inputs = [tensor.mT.contiguous().mT for tensor in inputs]
        adjacency = adjacency.mT.contiguous().mT
    compare(inputs, adjacency, cotangents, slope)


def edge_sums(weights: Tensor, connected: Tensor, values: Tensor) -> np.ndarray:
    """Sum weight times value over the edges of each row, term by term in float64.

    Args:
        weights: (N, N).
        connected: (N, N) bool.
        values: (N, C).
    """
    out = np.zeros(values.shape)
    wide = values.double().cpu().numpy()
    with np.errstate(invalid="ignore"):
        for i, j in connected.nonzero().tolist():
            out[i] += float(weights[i, j]) * wide[j]
    return out


def small_tiles(patch: pytest.MonkeyPatch, small: bool) -> None:
    """Serve graphs of any size by the kernels for large ones."""
    if small:
        patch.setattr(kernels, "whole_graph", lambda: 0)


tiled_or_not = pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiles"])


@tiled_or_not
def test_several_tiles_and_strips(tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, tiled)
    compare(*problem(1, 2, 41, 70))


@tiled_or_not
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(tiled: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, tiled)
    compare(*problem(2, 1, 17, 5, dtype))


@pytest.mark.parametrize("nodes", [1, 65])
def test_one_node_and_more_than_a_tile(nodes: int) -> None:
    inputs, adjacency, cotangents = problem(1, 1, nodes, 1)
    adjacency[:] |= torch.eye(nodes, dtype=torch.bool, device=DEVICE)
    compare(inputs, adjacency, cotangents)


@tiled_or_not
def test_heads_split_off_the_channels_are_read_in_place(
    tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, tiled)
    monkeypatch.setattr(Tensor, "contiguous", lambda x: x if x.is_contiguous() else pytest.fail())
    wide = torch.randn(2, 7, 20, device=DEVICE)
    values = wide[..., :12].view(2, 7, 3, 4).transpose(1, 2)
    target, source = torch.randn(2, 2, 7, 3, device=DEVICE).transpose(2, 3)
    grad = torch.randn(2, 7, 3, 4, device=DEVICE).transpose(1, 2)
    adjacency = torch.rand(2, 7, 7, device=DEVICE) < 0.6
    out, _ = kernels.forward(values, target, source, adjacency, 0.2, False)
    grads = kernels.backward(grad, None, values, target, source, adjacency, 0.2)
    monkeypatch.undo()
    leaves = [each.double().clone().requires_grad_() for each in (values, target, source)]
    want, _ = graph_attention_reference(*leaves, adjacency)
    expected = torch.autograd.grad(want, leaves, grad.double())
    for got, exact in zip((out, *grads), (want.detach(), *expected), strict=True):
        assert got.is_contiguous()
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


@tiled_or_not
@pytest.mark.parametrize("used", [(True, False), (False, True), (True, True)])
def test_outputs_that_were_not_used(
    used: tuple[bool, bool], tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, tiled)
    inputs, adjacency, cotangents = problem(2, 2, 18, 9)
    given = [grad if is_used else None for grad, is_used in zip(cotangents, used, strict=True)]
    got = kernels.backward(*given, *inputs, adjacency, 0.2)
    leaves = [each.double().requires_grad_() for each in inputs]
    outputs = graph_attention_reference(*leaves, adjacency)
    kept = [(out, grad) for out, grad in zip(outputs, given, strict=True) if grad is not None]
    want = torch.autograd.grad(
        [out for out, _ in kept],
        leaves,
        [grad.double() for _, grad in kept],
        allow_unused=True,
        materialize_grads=True,
    )
    for value, expected in zip(got, want, strict=True):
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)


@tiled_or_not
def test_infinities_follow_edges_as_in_a_sum(tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, tiled)
    (values, target, source), adjacency, _ = problem(1, 1, 18, 5)
    adjacency = adjacency[0]
    source[..., 11] = -1e4  # its weight is zero where a row has another source
    values[0, 0, [2, 7, 11], 0] = torch.tensor([torch.inf, -torch.inf, torch.inf], device=DEVICE)
    values[0, 0, 5, 1], values[0, 0, 9, 2] = torch.nan, -torch.inf
    out, weights = kernels.forward(values, target, source, adjacency, 0.2, True)
    want = edge_sums(weights[0, 0], adjacency, values[0, 0])
    assert np.isposinf(want).any() and np.isneginf(want).any() and np.isnan(want).any()
    np.testing.assert_allclose(out[0, 0].cpu().numpy(), want, rtol=1e-5, atol=1e-5)
    # dz sums over targets in the same way.
    grad = values.roll(3, 2)
    grad_values, _, _ = kernels.backward(
        grad, None, torch.randn_like(values), target, source, adjacency, 0.2
    )
    want = edge_sums(weights[0, 0].mT, adjacency.mT, grad[0, 0])
    assert np.isinf(want).any() and np.isnan(want).any()
    np.testing.assert_allclose(grad_values[0, 0].cpu().numpy(), want, rtol=1e-5, atol=1e-5)


def test_large_scores_do_not_overflow() -> None:
    (values, target, source), adjacency, cotangents = problem(1, 1, 7, 3)
    compare([values, 1e4 * target, 1e4 * source], adjacency, cotangents)


@tiled_or_not
@pytest.mark.parametrize("bad_value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["values", "scores", "gradient"])
def test_a_value_that_is_not_finite_stays_with_its_edges(
    where: str, bad_value: float, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, tiled)
    inputs, _, (grad, grad_weights) = problem(2, 1, 18, 5)
    connected = torch.eye(18, dtype=torch.bool, device=DEVICE)
    connected[[1, 17], 4] = True

    def run(values: Tensor, target: Tensor, source: Tensor, grad: Tensor) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in (values, target, source)]
        out, weights = triton(*leaves, connected)
        grads = torch.autograd.grad((out, weights), leaves, (grad, grad_weights))
        return [out.detach(), weights.detach(), *grads]

    clean = run(*inputs, grad)
    values, target, source = (tensor.clone() for tensor in inputs)
    grad = grad.clone()
    if where == "values":
        values[0, :, 4, 2] = bad_value
    elif where == "scores":
        source[0, :, 4] = target[0, :, 4] = bad_value
    else:
        grad[0, :, 17, 2] = bad_value
    broken = run(values, target, source, grad)
    # Node 4 and the targets of its edges are reached; backward from 17, only 17 and 4.
    others = [i for i in range(18) if i not in (1, 4, 17)]
    for before, after in zip(clean, broken, strict=True):
        assert torch.equal(after[1], before[1])
        assert torch.equal(after[0][:, others], before[0][:, others])
    index = {"values": 0, "scores": 0, "gradient": 2}[where]
    assert not broken[index][0][:, 4].isfinite().all(-1).any()


def test_empty_inputs() -> None:
    for shape in ((0, 2, 4, 3), (2, 0, 4, 3), (2, 2, 0, 3), (2, 2, 4, 0), (1, 1, 70, 0)):
        inputs = [torch.randn(s, device=DEVICE) for s in (shape, shape[:3], shape[:3])]
        adjacency = torch.ones(shape[2], shape[2], dtype=torch.bool, device=DEVICE)
        out, weights = kernels.forward(*inputs, adjacency, 0.2, True)
        assert out.shape == shape and weights.shape == (*shape[:3], shape[2])
        torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:3], device=DEVICE))
        grads = kernels.backward(out, weights, *inputs, adjacency, 0.2)
        assert [grad.shape for grad in grads] == [each.shape for each in inputs]


def test_weights_take_no_memory_unless_requested() -> None:
    inputs, adjacency, _ = problem(2, 2, 5, 3)
    assert kernels.forward(*inputs, adjacency, 0.2, False)[1].numel() == 0
    assert kernels.forward(*inputs, adjacency, 0.2, True)[1].shape == (2, 2, 5, 5)


def test_cross_region_gat_uses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []

    def call(launch: Launch, *tensors: torch.Tensor) -> None:
        launched.append(launch.kernel)
        run(launch, *tensors)

    run = Launch.__call__
    monkeypatch.setattr(Launch, "__call__", call)
    layer = CrossRegionGAT(8, (0, 0, 1, 1, 2), heads=2).to(DEVICE)
    x = torch.randn(2, 5, 8, device=DEVICE, requires_grad=True)
    active, mask = torch.rand(2, 2, 5, device=DEVICE) < 0.7
    results = []
    for backend in ("torch", "triton"):
        with use_backend(backend):
            out = layer(x, active, mask=mask)
            grads = torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])
        results.append([out, *grads])
        assert len(launched) == (2 if backend == "triton" else 0)
    for got, want in zip(*results[::-1], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)

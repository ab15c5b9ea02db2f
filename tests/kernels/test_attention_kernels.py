"""graph_attention kernels: the definition, its gradients, lone nodes, broken nodes, tiles."""

from __future__ import annotations

import functools

import pytest
import torch
from agreement import check
from aurel_kernels import graph_attention as kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import DEVICE, DTYPES, QUIET
from torch import Tensor

from aurel.layers.cross_region_gat import CrossRegionGAT
from aurel.ops.backend import use_backend
from aurel.ops.graph_attention import graph_attention, graph_attention_reference

pytestmark = QUIET

triton = functools.partial(graph_attention, backend="triton")


def problem(
    batch: int, heads: int, nodes: int, channels: int, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Inputs, a graph in which node 0 listens to nobody, and cotangents of both outputs."""
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


def test_several_tiles_and_strips() -> None:
    compare(*problem(1, 2, 33, 70))


def test_weights_that_nobody_asked_for() -> None:
    inputs, adjacency, cotangents = problem(2, 2, 18, 9)
    check(
        lambda *tensors: triton(*tensors, adjacency, return_weights=False),
        lambda *tensors: graph_attention_reference(*tensors, adjacency)[0],
        inputs,
        cotangents[:1],
    )


def test_large_scores_do_not_overflow() -> None:
    (values, target, source), adjacency, cotangents = problem(1, 1, 7, 3)
    compare([values, 1e4 * target, 1e4 * source], adjacency, cotangents)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["values", "scores", "gradient"])
def test_a_broken_node_reaches_only_who_listens(where: str, poison: float) -> None:
    inputs, _, (grad, grad_weights) = problem(2, 1, 18, 5)
    listens = torch.eye(18, dtype=torch.bool, device=DEVICE)
    listens[[1, 17], 4] = True

    def run(values: Tensor, target: Tensor, source: Tensor, grad: Tensor) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in (values, target, source)]
        out, weights = triton(*leaves, listens)
        grads = torch.autograd.grad((out, weights), leaves, (grad, grad_weights))
        return [out.detach(), weights.detach(), *grads]

    clean = run(*inputs, grad)
    values, target, source = (tensor.clone() for tensor in inputs)
    grad = grad.clone()
    if where == "values":
        values[0, :, 4, 2] = poison
    elif where == "scores":
        source[0, :, 4] = target[0, :, 4] = poison
    else:
        grad[0, :, 17, 2] = poison
    broken = run(values, target, source, grad)
    # 4 itself, who listens to it, and, going back from 17, nobody but 17 and 4.
    spared = [i for i in range(18) if i not in (1, 4, 17)]
    for before, after in zip(clean, broken, strict=True):
        assert torch.equal(after[1], before[1])
        assert torch.equal(after[0][:, spared], before[0][:, spared])
    hit = {"values": 0, "scores": 0, "gradient": 2}[where]
    assert not broken[hit][0][:, 4].isfinite().all(-1).any()


def test_nothing_to_do() -> None:
    for shape in ((0, 2, 4, 3), (2, 0, 4, 3), (2, 2, 0, 3)):
        inputs = [torch.randn(s, device=DEVICE) for s in (shape, shape[:3], shape[:3])]
        adjacency = torch.ones(shape[2], shape[2], dtype=torch.bool, device=DEVICE)
        out, weights = triton(*inputs, adjacency)
        assert out.shape == shape and weights.shape == (*shape[:3], shape[2])


def test_weights_take_no_memory_where_nobody_asks() -> None:
    inputs, adjacency, _ = problem(2, 2, 5, 3)
    assert kernels.forward(*inputs, adjacency, 0.2, False)[1].numel() == 0
    assert kernels.forward(*inputs, adjacency, 0.2, True)[1].shape == (2, 2, 5, 5)


def test_cross_region_gat_runs_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []
    for name in ("forward", "backward"):
        kernel = getattr(kernels, name)
        monkeypatch.setattr(
            kernels, name, lambda *args, kernel=kernel: launched.append(kernel) or kernel(*args)
        )
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

"""Convolutions on edges of the caller's: hubs, parallel edges, loops, nodes without an edge."""

from __future__ import annotations

import statistics
import sys
import time
from copy import deepcopy
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

pytest.importorskip("torch_geometric")

from aurel.ops.gather_reduce import gather_rows
from aurel.pyg import OnEdges
from aurel.pyg.edges import by_target
from aurel.pyg.reduce_edges import reduce_edges

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from pyg_layers import PYG, Apply, star  # noqa: E402

sys.path.remove(str(BENCHMARKS))

WIDTH, OUT = 8, 12
REDUCE = {"max": np.max, "sum": np.sum, "mean": np.mean}


def random_multigraph(nodes: int, edges: int, hub: int, generator: np.random.Generator) -> Tensor:
    """Random edges with repetition, loops among them, and `hub` more that lead to node 0."""
    pairs = generator.integers(0, nodes, (2, edges + hub))
    pairs[1, edges:] = 0
    return torch.from_numpy(generator.permutation(pairs, axis=1))


@settings(max_examples=80, deadline=None)
@given(
    nodes=st.integers(1, 12),
    edges=st.integers(0, 30),
    hub=st.sampled_from([0, 40]),
    reduce=st.sampled_from([*REDUCE]),
    ties=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_reductions(nodes: int, edges: int, hub: int, reduce: str, ties: bool, seed: int) -> None:
    """Against loops; the gradient of a maximum goes to the first edge that attains it."""
    rng = np.random.default_rng(seed)
    edge_index = random_multigraph(nodes, edges, hub, rng)
    x = rng.integers(0, 3, (nodes, 4)).astype(float) if ties else rng.normal(size=(nodes, 4))
    weight = rng.normal(size=x.shape)
    expected, grad = np.zeros_like(x), np.zeros_like(x)
    source, target = edge_index.numpy()
    for i in range(nodes):
        listed = source[target == i]
        if len(listed) == 0:
            continue
        expected[i] = REDUCE[reduce](x[listed], axis=0)
        for c in range(4):
            if reduce == "max":
                grad[listed[np.argmax(x[listed, c])], c] += weight[i, c]
            else:
                share = weight[i, c] / (len(listed) if reduce == "mean" else 1)
                np.add.at(grad[:, c], listed, share)
    leaf = torch.from_numpy(x).requires_grad_()
    got = reduce_edges(leaf, *by_target(edge_index, nodes), reduce)
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    (got_grad,) = torch.autograd.grad(got, leaf, torch.from_numpy(weight))
    np.testing.assert_allclose(got_grad.numpy(), grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduce", REDUCE)
def test_nan_stays_with_the_nodes_that_it_reaches(reduce: str) -> None:
    x = torch.randn(50, 2)
    x[7, 0] = torch.nan
    x[:20, 1] = -torch.inf
    source = torch.cat((torch.arange(50), torch.tensor([7, 3])))
    degree = torch.zeros(50, dtype=torch.int64)
    degree[0], degree[4], degree[9] = 50, 1, 1
    out = reduce_edges(x, source, degree, reduce)
    assert out[0, 0].isnan() and out[4, 0].isnan() and out[9, 0] == x[3, 0]
    assert out[9, 1] == -torch.inf
    rest = torch.ones(50, dtype=torch.bool)
    rest[[0, 4, 9]] = False
    assert torch.equal(out[rest], torch.zeros(47, 2))


@pytest.mark.parametrize("reduce", REDUCE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(reduce: str, dtype: torch.dtype) -> None:
    x = torch.rand(3000, 2).to(dtype)
    degree = torch.zeros(3000, dtype=torch.int64)
    degree[5] = 3000
    out = reduce_edges(x, torch.arange(3000), degree, reduce)
    expected = REDUCE[reduce](x.double().numpy(), axis=0)
    assert out.dtype == dtype
    np.testing.assert_allclose(out[5].double().numpy(), expected, rtol=0.005)


@pytest.mark.parametrize("reduce", REDUCE)
def test_second_derivatives(reduce: str) -> None:
    source, degree = by_target(random_multigraph(6, 8, 20, np.random.default_rng(0)), 6)
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        return reduce_edges(x.tanh(), source, degree, reduce).square()

    assert torch.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("conv", "reference"), PYG.items(), ids=lambda value: value.__name__)
@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(2, 12),
    edges=st.integers(2, 30),
    hub=st.sampled_from([0, 60]),
    seed=st.integers(0, 10**6),
)
def test_multigraphs_give_the_numbers_of_pyg(
    conv: type[nn.Module],
    reference: Apply,
    training: bool,
    nodes: int,
    edges: int,
    hub: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    layer = conv(WIDTH, OUT, k=3).double().train(training)
    edge_index = random_multigraph(nodes, edges, hub, np.random.default_rng(seed))
    x = torch.randn(nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    expected = reference(layer, x, edge_index)
    got = OnEdges(deepcopy(layer))
    out = got(x, edge_index)
    torch.testing.assert_close(out, expected, rtol=1e-8, atol=1e-8)
    weight = torch.randn_like(out)
    grads = torch.autograd.grad(out.mul(weight).sum(), [x, *got.parameters()])
    expected_parts = torch.autograd.grad(expected.mul(weight).sum(), [x, *layer.parameters()])
    for actual, other in zip(grads, expected_parts, strict=True):
        torch.testing.assert_close(actual, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("conv", PYG, ids=lambda conv: conv.__name__)
def test_no_edge_at_all(conv: type[nn.Module]) -> None:
    layer = conv(WIDTH, OUT, k=3)
    x = torch.randn(5, WIDTH, requires_grad=True)
    out = OnEdges(layer)(x, torch.zeros(2, 0, dtype=torch.int64))
    lists = torch.full((1, 5, 1), -1)
    torch.testing.assert_close(out, layer.train()(x[None], neighbors=lists)[0])
    out.sum().backward()
    assert x.grad.isfinite().all()


def step(apply: Apply, layer: nn.Module, x: Tensor, edge_index: Tensor) -> None:
    out = apply(layer, x, edge_index)
    torch.autograd.grad(out.sum(), [x, *layer.parameters()])


def on_edges(layer: nn.Module, x: Tensor, edge_index: Tensor) -> Tensor:
    return OnEdges(layer)(x, edge_index)


@pytest.mark.parametrize(("conv", "reference"), PYG.items(), ids=lambda value: value.__name__)
def test_time_on_a_hub(conv: type[nn.Module], reference: Apply) -> None:
    """A node with 2000 edges takes a few times as long as there, not hundreds of times."""
    layer, edge_index = conv(64, 64, k=3), star(2000)
    x = torch.randn(2001, 64, requires_grad=True)
    seconds: dict[Apply, list[float]] = {on_edges: [], reference: []}
    for _ in range(7):
        for apply, taken in seconds.items():
            start = time.perf_counter()
            step(apply, layer, x, edge_index)
            taken.append(time.perf_counter() - start)
    ratio = statistics.median(seconds[on_edges]) / statistics.median(seconds[reference])
    assert ratio < 6, f"{ratio:.1f} times as long as PyTorch Geometric's layer"


def peak(apply: Apply, layer: nn.Module, x: Tensor, edge_index: Tensor) -> int:
    """Return the most bytes that a step holds at once."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        step(apply, layer, x, edge_index)
    events = profiler.profiler.kineto_results.events()
    allocations = [event for event in events if event.name() == "[memory]"]
    allocations.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in allocations))


@pytest.mark.parametrize(("conv", "reference"), PYG.items(), ids=lambda value: value.__name__)
def test_memory_on_a_hub(conv: type[nn.Module], reference: Apply) -> None:
    """Padded lists alone would take 2001 times 2000 numbers, and edges 64 times that."""
    layer, edge_index = conv(64, 64, k=3), star(2000)
    x = torch.randn(2001, 64, requires_grad=True)
    step(on_edges, layer, x, edge_index)  # what is compiled or cached at the first call
    got, expected = (peak(apply, layer, x, edge_index) for apply in (on_edges, reference))
    assert expected > x.numel() * x.element_size()
    assert got < 3 * expected, f"{got} bytes, PyTorch Geometric's layer {expected}"


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_gradients_of_halves_add_up_in_float32(reduce: str) -> None:
    x = torch.ones(10, 1, dtype=torch.bfloat16, requires_grad=True)
    degree = torch.zeros(10, dtype=torch.int64)
    degree[0] = 3000
    out = reduce_edges(x, torch.zeros(3000, dtype=torch.int64), degree, reduce)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad[0].item() == pytest.approx(3000 if reduce == "sum" else 1, rel=0.01)


def test_gradients_of_rows_of_halves_add_up_in_float32() -> None:
    x = torch.ones(4, 2, dtype=torch.bfloat16, requires_grad=True)
    rows = gather_rows(x, torch.zeros(3000, dtype=torch.int64))
    assert rows.dtype == torch.bfloat16 and torch.equal(rows, torch.ones_like(rows))
    (grad,) = torch.autograd.grad(rows.sum(), x)
    assert grad[0].tolist() == [3008, 3008]  # the bfloat16 next to 3,000

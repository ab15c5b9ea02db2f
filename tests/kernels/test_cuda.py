"""What only a GPU can show: large sizes, graphs, compilation, streams, runs that repeat."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from plain import METRICS
from torch import Tensor

from aurel.ops.knn_graph import knn_graph
from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import neighbor_aggregate
from aurel.ops.topk_aggregate import topk_aggregate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def max_relative(x: Tensor) -> Tensor:
    return knn_max_relative(x, 4)[0]


def mean(x: Tensor) -> Tensor:
    return neighbor_aggregate(x, knn_graph(x, 4), "mean")


def exact(x: Tensor) -> Tensor:
    return topk_aggregate(x, x, 4)[0]


def ties(x: Tensor) -> Tensor:
    return topk_aggregate(x, x, 4, ties="all")[0]


OPS = [max_relative, mean, exact, ties]
op_cases = pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)


def nodes(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Integer-valued features: exact in any order of summation."""
    return torch.randint(-3, 4, shape, device="cuda", dtype=torch.int8).to(dtype)


def step(op: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    out = op(x)
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    return out.detach(), grad


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("shape", "k"),
    [((64, 41, 512), 9), ((16, 196, 192), 9), ((1, 1024, 2048), 16), ((1, 4097, 65), 64)],
)
def test_large_graphs(shape: tuple[int, int, int], k: int, metric: str) -> None:
    x = nodes(*shape)
    got = knn_max_relative(x, k, metric, loop=False, backend="triton")
    want = knn_max_relative(x, k, metric, loop=False, backend="torch")
    assert torch.equal(got[1], want[1]) and torch.equal(got[0], want[0])


def test_the_largest_graph_needs_no_array_of_pairs() -> None:
    x = nodes(4, 16_384, 8)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    neighbors = knn_graph(x, 3, backend="triton")
    assert torch.cuda.max_memory_allocated() - before < 4 * 16_384 * 100
    assert ((neighbors >= 0) & (neighbors < 16_384)).all()


def test_addresses_beyond_32_bits() -> None:
    x = nodes(2**31 // (64 * 2048) + 2, 64, 2048, dtype=torch.float16)
    got, _ = knn_max_relative(x, 2, "dot", backend="triton")
    want, _ = knn_max_relative(x[-1:].clone(), 2, "dot", backend="triton")
    assert torch.equal(got[-1:], want)


@op_cases
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(op: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = nodes(8, 41, 128, dtype=dtype)
    out, grad = step(op, x)
    want, want_grad = step(op, x.float())
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), want, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(grad.float(), want_grad, rtol=2e-2, atol=2e-2)


@op_cases
def test_autocast(op: Callable[[Tensor], Tensor]) -> None:
    x = nodes(8, 18, 64)
    with torch.autocast("cuda", torch.bfloat16):
        out, grad = step(op, x)
    want, want_grad = step(op, x)
    assert torch.equal(out, want) and torch.equal(grad, want_grad)


@op_cases
def test_tf32_does_not_choose(op: Callable[[Tensor], Tensor]) -> None:
    x = 100 + torch.randn(8, 41, 128, device="cuda")
    want = step(op, x)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        got = step(op, x)
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(map(torch.equal, got, want))


@op_cases
@pytest.mark.parametrize("shape", [(16, 41, 256), (2, 64, 100)])
def test_twenty_runs_give_the_same_bits(op: Callable[[Tensor], Tensor], shape) -> None:
    x = torch.randn(shape, device="cuda")
    first = step(op, x)
    for _ in range(20):
        assert all(map(torch.equal, step(op, x), first))


@pytest.mark.parametrize("shape", [(2, 300, 100), (1, 2048, 64)])
def test_twenty_runs_of_larger_graphs_give_the_same_bits(shape) -> None:
    x = torch.randn(shape, device="cuda")
    for op in (max_relative, mean, exact):
        first = step(op, x)
        for _ in range(20):
            assert all(map(torch.equal, step(op, x), first))


@op_cases
def test_two_streams(op: Callable[[Tensor], Tensor]) -> None:
    inputs = [torch.randn(32, 41, 256, device="cuda") for _ in range(2)]
    want = [step(op, x) for x in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    got = []
    for stream, x in zip(streams, inputs, strict=True):
        with torch.cuda.stream(stream):
            got.append(step(op, x))
    torch.cuda.synchronize()
    for one, other in zip(got, want, strict=True):
        assert all(map(torch.equal, one, other))


@op_cases
@pytest.mark.parametrize("count", [41, 300])
def test_cuda_graph(op: Callable[[Tensor], Tensor], count: int) -> None:
    if op is ties and count > 64:
        pytest.skip("ties='all' is served by torch there")
    x = torch.randn(4, count, 64, device="cuda", requires_grad=True)

    def run() -> tuple[Tensor, Tensor]:
        out = op(x)
        return out, torch.autograd.grad(out, x, torch.ones_like(out))[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # compiles the kernels
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, captured, step(op, x)))


@op_cases
def test_compiles_without_a_break(op: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(4, 18, 64, device="cuda")
    got = step(torch.compile(op, fullgraph=True), x)
    assert all(map(torch.equal, got, step(op, x)))


def test_triton_is_the_default() -> None:
    x = nodes(2, 12, 16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        knn_max_relative(x, 4)
        torch.cuda.synchronize()
    assert any("knn_aggregate_kernel" in event.name for event in profile.events())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_current() -> None:
    x = nodes(2, 12, 16)
    assert torch.equal(max_relative(x.to("cuda:1")).cpu(), max_relative(x).cpu())

"""Properties that only a GPU can show: large sizes, graphs, compilation, streams, equal runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from helpers.plain import METRICS
from torch import Tensor, nn

from aurel.cuda_graphs import capture
from aurel.graph import RelationGraph
from aurel.ops.chain_marginals import chain_marginals
from aurel.ops.edge_update import edge_update
from aurel.ops.gated_edge_aggregate import gated_edge_aggregate
from aurel.ops.graph_attention import graph_attention
from aurel.ops.knn_graph import knn_graph
from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import neighbor_aggregate
from aurel.ops.pair_pool import pair_pool
from aurel.ops.pairwise_marginals import pairwise_marginals
from aurel.ops.topk_aggregate import topk_aggregate
from aurel.output import AUOutput

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def max_relative(x: Tensor) -> Tensor:
    return knn_max_relative(x, 4)[0]


def mean(x: Tensor) -> Tensor:
    return neighbor_aggregate(x, knn_graph(x, 4), "mean")


def exact(x: Tensor) -> Tensor:
    return topk_aggregate(x, x, 4)[0]


def ties(x: Tensor) -> Tensor:
    return topk_aggregate(x, x, 4, ties="all")[0]


def attention(x: Tensor) -> Tensor:
    heads = x.unflatten(2, (2, -1)).transpose(1, 2)
    position = torch.arange(x.shape[1], device=x.device)
    edges = (position[:, None] - position) % 3 != 1
    return graph_attention(heads, heads[..., 0], heads[..., 1], edges, return_weights=False)[0]


def attention_weights(x: Tensor) -> Tensor:
    heads = x.unsqueeze(1)
    edges = torch.ones(x.shape[0], x.shape[1], x.shape[1], device=x.device).tril(-1)
    out, weights = graph_attention(heads, heads[..., 0], heads[..., 1], edges)
    return out.mean(-1) + weights.square().sum(-1)


def pair(x: Tensor) -> Tensor:
    return pooled(x.unflatten(2, (-1, 4)))


def pair_tiles(x: Tensor) -> Tensor:
    return pooled(torch.cat((x[..., :64], x[..., :36]), 2).unsqueeze(-1))


def pooled(tokens: Tensor) -> Tensor:
    """Return one number a pair; halves that are small integers are exact up to the op."""
    level = tokens.sum(-1) / 16
    gram = level.unsqueeze(-1) * level.unsqueeze(-2)
    weights, scatter = pair_pool(tokens / 8, tokens, gram)
    assert scatter is not None
    return (weights.square().sum(-1) + scatter).to(tokens.dtype)


def gated(x: Tensor) -> Tensor:
    edges = x.unsqueeze(1) / 4 + x.unsqueeze(2) / 8
    return gated_edge_aggregate(edges, x)


def updated(x: Tensor) -> Tensor:
    """Update edges: sums of integers are exact in halves, and no value is at the ReLU's kink."""
    edges = x.unsqueeze(1).expand(-1, x.shape[1], -1, -1)
    position = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
    weight = 1 + (position[:, None] - position).cos() / 2
    return edge_update(edges, edges, x, 2 * x, weight, weight.sin() / 16)[0].mean(2)


OPS = [
    max_relative,
    mean,
    exact,
    ties,
    attention,
    attention_weights,
    pair,
    pair_tiles,
    gated,
    updated,
]
op_cases = pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)


def nodes(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return integer-valued features: exact in any order of summation."""
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


@pytest.mark.parametrize("shape", [(64, 4, 41, 64), (4, 2, 1024, 64), (1, 1, 4097, 65)])
@pytest.mark.parametrize("weights", [True, False])
def test_large_attention(shape: tuple[int, ...], weights: bool) -> None:
    shapes = (shape, shape[:3], shape[:3])
    leaves = [torch.randn(s, device="cuda", requires_grad=True) for s in shapes]
    edges = torch.rand(shape[0], shape[2], shape[2], device="cuda") < 0.2
    edges[:, 3] = False
    cotangents = [torch.randn(shape, device="cuda")]
    if weights:
        cotangents.append(torch.randn(*shape[:3], shape[2], device="cuda"))

    def run(backend: str) -> list[Tensor]:
        given = graph_attention(*leaves, edges, return_weights=weights, backend=backend)
        outs = [out for out in given if out is not None]
        return [*outs, *torch.autograd.grad(outs, leaves, cotangents)]

    for got, want in zip(run("triton"), run("torch"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert (run("triton")[0][:, :, 3] == 0).all()


def test_attention_holds_no_array_of_heads_and_pairs() -> None:
    values = torch.randn(1, 8, 8192, 16, device="cuda", requires_grad=True)
    edges = torch.ones(8192, 8192, dtype=torch.bool, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out, _ = graph_attention(
        values, values[..., 0], values[..., 1], edges, return_weights=False, backend="triton"
    )
    out.sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 10 * values.nbytes


@pytest.mark.parametrize(
    "shape",
    [(32, 12, 49, 49), (2, 41, 64, 64), (4, 12, 49, 256), (2, 12, 144, 144), (1, 3, 300, 70)],
)
def test_large_pairs(shape: tuple[int, ...]) -> None:
    values = torch.randn(*shape[:3], 32, device="cuda")
    inputs = (*0.3 * torch.randn(2, *shape, device="cuda"), values @ values.mT)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    pairs = (shape[0], shape[1], shape[1])
    cotangents = [torch.randn(*pairs, *s, device="cuda") for s in (shape[2:3], ())]

    def run(backend: str, dtype: torch.dtype) -> list[Tensor]:
        outs = pair_pool(*(leaf.to(dtype) for leaf in leaves), backend=backend)
        grads = torch.autograd.grad(outs, leaves, [each.to(dtype) for each in cotangents])
        return [*outs, *grads]

    for got, want in zip(run("triton", torch.float32), run("torch", torch.float64), strict=True):
        error = (got.double() - want.double()).norm() / want.double().norm()
        assert error < 1e-5


def test_attention_beyond_32_bits() -> None:
    values = nodes(2**31 // (64 * 2048) + 2, 1, 64, 2048, dtype=torch.float16)
    edges = torch.ones(64, 64, device="cuda").tril(-1)

    def attend(values: Tensor) -> Tensor:
        scores = values[..., 0], values[..., 1]
        return graph_attention(values, *scores, edges, return_weights=False, backend="triton")[0]

    assert torch.equal(attend(values)[-1:], attend(values[-1:].clone()))


def test_pairs_beyond_32_bits() -> None:
    tokens = torch.randn(2**31 // 64**3 + 2, 64, 64, 1, device="cuda")
    got, _ = pair_pool(tokens, tokens, backend="triton")
    want, _ = pair_pool(tokens[-1:], tokens[-1:], backend="triton")
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
def test_tf32_changes_no_result(op: Callable[[Tensor], Tensor]) -> None:
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
    for op in (max_relative, mean, exact, attention, attention_weights):
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
    for one, other in zip(got, step(op, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
@pytest.mark.parametrize("masked", [False, True], ids=["all present", "mask"])
@pytest.mark.parametrize("shape", [(64, 41, 512), (16, 128, 100), (2, 256, 37)])
def test_edge_ops_equal_torch(shape: tuple[int, int, int], masked: bool, given: bool) -> None:
    batch, count, width = shape
    edges, projected, grad = torch.randn(3, batch, count, count, width, device="cuda")
    target, source = torch.randn(2, batch, count, width, device="cuda")
    weight, bias = torch.rand(2, count, count, device="cuda")
    statistics = (bias, weight + 0.5) if given else None
    mask = torch.rand(batch, count, device="cuda") < 0.8 if masked else None
    leaves = [edges, projected, target, source, weight + 0.5, bias]
    # The two may round a value at the kink of the ReLU to different sides of it.
    flat = [torch.zeros_like(edges), *leaves[1:]]
    signs = [
        edge_update(*flat, statistics, mask=mask, backend=backend)[0] > 0
        for backend in ("triton", "torch")
    ]
    grad = grad.where(signs[0] == signs[1], 0.0)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    results = []
    for backend in ("triton", "torch"):
        new, mean, var = edge_update(*leaves, statistics, mask=mask, backend=backend)
        out = gated_edge_aggregate(new, source, mask=mask, backend=backend)
        grads = torch.autograd.grad((new, out), leaves, (grad, grad[:, 0]))
        results.append([new, mean, var, out, *grads])
    for got, want in zip(*results, strict=True):
        # Through the gated sum some of that remains.
        far = (got - want).abs() > 1e-4 * want.abs().max()
        assert far.float().mean() < 1e-5 and got.isfinite().all()


@pytest.mark.parametrize(("batch", "count"), [(4096, 12), (300, 15), (8, 20)])
def test_sums_over_states_of_many_nodes(batch: int, count: int) -> None:
    """In float32, and in another order of sums than the products of matrices in float64."""
    logits = torch.randn(batch, count, device="cuda")
    couplings = torch.randn(count, count, device="cuda") / 2
    mask = torch.rand(batch, count, device="cuda") < 0.9
    results = []
    for backend in ("triton", "torch"):
        leaves = [logits.detach().requires_grad_(), couplings.detach().requires_grad_()]
        found = pairwise_marginals(*leaves, mask=mask, backend=backend)
        total = (found.logits.sin().sum() + found.log_partition.sum()) / batch
        results.append([found.log_partition, found.logits, *torch.autograd.grad(total, leaves)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize(("batch", "frames", "units"), [(64, 64, 12), (1, 500, 8), (2, 20, 13)])
def test_chains_of_many_states(batch: int, frames: int, units: int) -> None:
    """Messages and gradients, all by `chain_scan`."""
    logits = torch.randn(batch, frames, units, device="cuda")
    couplings, stay = torch.randn(units, units, device="cuda") / 2, torch.rand(units, device="cuda")
    results = []
    for backend in ("triton", "torch"):
        leaves = [each.double().requires_grad_() for each in (logits, couplings, stay)]
        found = chain_marginals(*leaves, backend=backend)
        total = found[0].sum() + found[1].sin().sum()
        results.append([*found, *torch.autograd.grad(total, leaves)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


def test_triton_is_the_default() -> None:
    x = nodes(2, 12, 16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        knn_max_relative(x, 4)
        torch.cuda.synchronize()
    # Names of kernels of torch and its libraries are mangled.
    names = [event.name for event in profile.events()]
    assert any(re.match("[a-z][a-z0-9_]*_kernel", name) for name in names)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_current() -> None:
    x = nodes(2, 12, 16)
    assert torch.equal(max_relative(x.to("cuda:1")).cpu(), max_relative(x).cpu())


class TwoLayers(nn.Module):
    """Neighbors, attention and batch statistics in one module that returns a nested output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 32), nn.Linear(32, 1)
        self.norm = nn.BatchNorm1d(32)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> AUOutput:
        h = self.norm(self.first(x).mT).mT
        relative, neighbors = knn_max_relative(h, 3, mask=mask)
        logits = self.last(relative + h).squeeze(-1)
        graph = RelationGraph(neighbors=neighbors)
        return AUOutput(logits.sigmoid(), logits=logits, graphs=(graph,))


@pytest.mark.parametrize("masked", [False, True])
def test_captured_inference(masked: bool) -> None:
    model = TwoLayers().cuda().eval()
    shape = (4, 12, 32)
    mask = torch.rand(shape[:2], device="cuda") < 0.8 if masked else None
    with torch.no_grad():
        step = capture(model, torch.zeros(shape, device="cuda"), mask)
        for _ in range(3):
            x = torch.randn(shape, device="cuda")
            got, want = step(x, mask), model(x, mask)
            torch.testing.assert_close(got.probs, want.probs)
            assert torch.equal(got.graphs[0].neighbors, want.graphs[0].neighbors)
            assert got.edge_logits is None
    with pytest.raises(ValueError, match="argument 0 must be"):
        step(torch.zeros(5, 12, 32, device="cuda"), mask)
    with pytest.raises(ValueError, match="no backward pass was captured"):
        step(torch.zeros(shape, device="cuda", requires_grad=True), mask)


def test_captured_training() -> None:
    model = TwoLayers().cuda()
    plain = deepcopy(model)
    step = capture(model, torch.zeros(4, 12, 32, device="cuda", requires_grad=True))
    assert all(map(torch.equal, model.buffers(), plain.buffers()))
    for _ in range(3):
        x = torch.randn(4, 12, 32, device="cuda")
        results = []
        for run, owner in ((step, model), (plain, plain)):
            leaf = x.clone().requires_grad_()
            owner.zero_grad(set_to_none=True)
            out = run(leaf)
            out.logits.square().sum().backward()
            grads = [leaf.grad, *(parameter.grad for parameter in owner.parameters())]
            results.append([out.probs.detach().clone(), *(grad.clone() for grad in grads)])
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean)


def test_a_launch_from_the_cache_on_another_stream() -> None:
    x = torch.randn(8, 41, 64, device="cuda")
    want = max_relative(x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        got = max_relative(x)
    torch.cuda.synchronize()
    assert torch.equal(got, want)


@pytest.mark.parametrize("offset", [0, 1])
def test_an_address_that_is_not_aligned(offset: int) -> None:
    """Each alignment has a compiled kernel of its own; both are called from the cache."""
    storage = nodes(4 * 12 * 16 + 1)
    x = storage[offset : offset + 4 * 12 * 16].view(4, 12, 16)
    for _ in range(2):
        assert torch.equal(max_relative(x), max_relative(x.clone()))

"""The calls that Triton kernels serve, and the messages for those that they do not serve."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from helpers.plain import DEVICE, QUIET, integers
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

from aurel.ops import backend
from aurel.ops.chain_marginals import chain_marginals
from aurel.ops.edge_update import edge_update
from aurel.ops.gated_edge_aggregate import gated_edge_aggregate
from aurel.ops.graph_attention import graph_attention
from aurel.ops.knn_graph import knn_graph
from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import neighbor_aggregate
from aurel.ops.pair_pool import pair_pool
from aurel.ops.pairwise_cross_attention import pairwise_cross_attention
from aurel.ops.pairwise_marginals import pairwise_marginals
from aurel.ops.registration import OPERATORS, kernel
from aurel.ops.topk_aggregate import topk_aggregate
from aurel.ops.triton_support import _cached_obstacle, environment_obstacle, triton_obstacle

pytestmark = QUIET


@pytest.fixture(autouse=True)
def _fresh_caches() -> Iterator[None]:
    """Clear the caches, since these tests change the environment."""
    for cached in (_cached_obstacle, kernel):
        cached.cache_clear()
    yield
    for cached in (_cached_obstacle, kernel):
        cached.cache_clear()


def refusal(op, *args, **options) -> str:
    name = "pair_pool" if op is pairwise_cross_attention else op.__name__
    with pytest.raises(ValueError, match=f"^{name}: backend='triton' cannot serve") as caught:
        op(*args, backend="triton", **options)
    return str(caught.value)


def test_sizes_and_dtypes_that_are_not_served() -> None:
    x = integers(1, 70, 2)
    assert "k up to 64, got 65" in refusal(knn_graph, x, 65)
    assert "up to 2048 channels, got 2049" in refusal(knn_max_relative, integers(1, 2, 2049), 1)
    assert "up to 16384 nodes, got 16385" in refusal(knn_graph, integers(1, 16385, 1), 1)
    assert "got torch.float64" in refusal(knn_graph, x.double(), 3)
    assert "got torch.float64" in refusal(topk_aggregate, x, x.double(), 3)
    assert "ties='all' serves up to 64 nodes, got 70" in refusal(
        topk_aggregate, x, x, 3, ties="all"
    )
    lists = torch.zeros(1, 70, 65, dtype=torch.int64, device=DEVICE)
    assert "k up to 64, got 65" in refusal(neighbor_aggregate, x, lists)
    wide, score = integers(1, 1, 3, 2049), integers(1, 1, 3)
    edges = torch.ones(3, 3, dtype=torch.bool, device=DEVICE)
    assert "up to 2048 channels, got 2049" in refusal(graph_attention, wide, score, score, edges)
    assert "got torch.float64" in refusal(
        graph_attention, wide[..., :5], score.double(), score, edges
    )
    tokens = integers(1, 1, 1025, 1)
    assert "up to 1024 tokens, got 1025" in refusal(pair_pool, tokens, tokens)
    edges, ends, pairs = integers(1, 257, 257, 1), integers(1, 257, 1), integers(257, 257)
    assert "up to 256 nodes, got 257" in refusal(gated_edge_aggregate, edges, ends)
    tensors = (edges, edges, ends, ends, pairs, pairs)
    assert "up to 256 nodes, got 257" in refusal(edge_update, *tensors)
    narrow = (
        edges[:, :2, :2].double(),
        *(tensor[:, :2] for tensor in (edges[:, :, :2], ends, ends)),
    )
    assert "got torch.float64" in refusal(edge_update, *narrow, pairs[:2, :2], pairs[:2, :2])
    assert "up to 1024 tokens, got 1025" in refusal(
        pairwise_cross_attention, tokens, tokens, tokens, scale=1.0
    )
    assert "got torch.float64" in refusal(pair_pool, tokens.double(), tokens)
    fields, couplings = integers(2, 21), integers(21, 21)
    assert "1 to 20 binary nodes, got 21" in refusal(pairwise_marginals, fields, couplings)
    few = (fields[:, :3], couplings[:3, :3])
    assert "no marginals of pairs" in refusal(pairwise_marginals, *few, pairs=True)
    assert "got torch.float64" in refusal(pairwise_marginals, few[0], few[1].double())
    clip, stay = integers(1, 2, 14), integers(14)
    assert "13 binary units, got 14" in refusal(chain_marginals, clip, integers(14, 14), stay)


def test_devices_and_versions_that_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    x = integers(1, 2, 2)
    assert triton_obstacle((x,), lambda: None) is None
    assert triton_obstacle((x,), lambda: "too many nodes") == "too many nodes"
    assert triton_obstacle((x,), None) == "there is no Triton kernel for it"
    obstacle = environment_obstacle(torch.device("mps"))
    assert obstacle == "the kernels need a CUDA or ROCm device, got mps"
    monkeypatch.setattr(triton, "__version__", "3.3.1")
    _cached_obstacle.cache_clear()
    assert environment_obstacle(torch.device(DEVICE)) == "the kernels need Triton 3.4, got 3.3.1"
    for version in ("3.4.0", "3.10.1+git0123abcd", "4.0"):
        monkeypatch.setattr(triton, "__version__", version)
        _cached_obstacle.cache_clear()
        assert environment_obstacle(torch.device(DEVICE)) is None
    monkeypatch.setitem(sys.modules, "triton", None)
    obstacle = environment_obstacle(torch.device("cuda"))
    assert obstacle is not None and obstacle.startswith("Triton cannot be imported")


def test_processors_that_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, launch = torch.device("cpu"), import_module("aurel.kernels.triton.launch")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(launch, "INTERPRETED", True)
    assert environment_obstacle(cpu) is None
    monkeypatch.setattr(launch, "INTERPRETED", False)
    _cached_obstacle.cache_clear()
    assert environment_obstacle(cpu) == "Triton was imported before TRITON_INTERPRET was set"
    expected = (
        "the tensors are on a CPU; the kernels need a GPU, or Triton's interpreter "
        "(TRITON_INTERPRET=1 before the start of Python)"
    )
    for value in ("0", ""):
        monkeypatch.setenv("TRITON_INTERPRET", value)
        assert environment_obstacle(cpu) == expected
    monkeypatch.delenv("TRITON_INTERPRET")
    assert environment_obstacle(cpu) == expected


@pytest.mark.parametrize(
    ("major", "hip", "served"), [(7, None, False), (8, None, True), (9, None, True), (7, "6", True)]
)
def test_graphics_processors_that_are_not_served(
    major: int, hip: str | None, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compute capability is a number of NVIDIA's GPUs; AMD's are not checked."""
    capability = {torch.device("cuda", 1): SimpleNamespace(major=major)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", capability.__getitem__)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(import_module("aurel.kernels.triton.launch"), "INTERPRETED", False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    expected = "the kernels need compute capability 8.0 at least, got 7"
    assert environment_obstacle(torch.device("cuda", 1)) == (None if served else expected)


def test_auto_falls_back_with_one_warning_a_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_reported", set())
    monkeypatch.setattr(backend._default, "backend", "auto")
    with FakeTensorMode(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokens = torch.empty(1, 1, 1025, 1, device="cuda")
        values = torch.empty(1, 1, 3, 2049, device="cuda")
        score = values[..., 0]
        edges = torch.empty(1, 257, 257, 1, device="cuda")
        for _ in range(2):
            pair_pool(tokens, tokens)
            gated_edge_aggregate(edges, edges[:, 0])
            graph_attention(values, score, score, torch.empty(3, 3, device="cuda"))
    assert [str(warning.message) for warning in caught] == [
        "pair_pool runs without its Triton kernel: the kernels serve up to 1024 tokens, got 1025",
        "gated_edge_aggregate runs without its Triton kernel: "
        "the kernels serve up to 256 nodes, got 257",
        "graph_attention runs without its Triton kernel: "
        "the kernels serve up to 2048 channels, got 2049",
    ]


def test_on_a_cpu_triton_is_not_chosen_and_no_kernel_imported() -> None:
    code = """
import sys, torch
from aurel import ops
def nodes(*shape):
    return torch.randn(1, 5, *shape, requires_grad=True)
x = nodes(3)
lists = ops.knn_graph(x, 2)
outs = [
    ops.knn_max_relative(x, 2)[0],
    *(ops.neighbor_aggregate(x, lists, reduce) for reduce in ("max", "mean")),
    *(ops.topk_aggregate(x, x, 2, ties=ties)[0] for ties in ("exact", "all")),
    *ops.graph_attention(x[:, None], x[:, None, :, 0], x[:, None, :, 1], torch.ones(5, 5)),
    ops.gated_edge_aggregate(nodes(5, 3), x),
    ops.edge_update(nodes(5, 3), nodes(5, 3), x, x, nodes()[0].expand(5, 5), torch.ones(5, 5))[0],
    *ops.pair_pool(nodes(2, 2), nodes(2, 2), nodes(2, 2)),
    *ops.pairwise_marginals(nodes(), torch.ones(5, 5))[:3],
]
sum(out.sum() for out in outs).backward()
try:
    ops.knn_graph(x, 2, backend="triton")
except ValueError as error:
    assert "TRITON_INTERPRET=1" in str(error), error
else:
    raise AssertionError("served on a CPU")
assert "aurel.kernels.triton.launch" not in sys.modules
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON", "AUREL"))}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def kernel_runs() -> dict[str, Callable[[], torch.Tensor]]:
    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=DEVICE, requires_grad=True)

    served = {"backend": "triton"}
    x, edges, tokens, heads = leaf(1, 4, 3), leaf(1, 4, 4, 3), leaf(1, 4, 2, 3), leaf(1, 1, 4, 3)
    lists = torch.zeros(1, 4, 2, dtype=torch.int64, device=DEVICE)
    weight, score = leaf(4, 4), leaf(1, 1, 4)
    return {
        "knn_graph": lambda: knn_graph(x, 2, **served),
        "knn_max_relative": lambda: knn_max_relative(x, 2, **served)[0],
        "neighbor_aggregate": lambda: neighbor_aggregate(x, lists, **served),
        "topk_aggregate": lambda: topk_aggregate(x, x, 2, **served)[0],
        "graph_attention": lambda: graph_attention(heads, score, score, weight, **served)[0],
        "pair_pool": lambda: pair_pool(tokens, tokens, **served)[0],
        "pairwise_marginals": lambda: pairwise_marginals(weight, weight, **served).logits,
        "gated_edge_aggregate": lambda: gated_edge_aggregate(edges, x, **served),
        "edge_update": lambda: edge_update(edges, edges, x, x, weight, weight, **served)[0],
    }


@pytest.mark.parametrize("name", kernel_runs())
def test_a_call_for_triton_reaches_the_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: object) -> None:
        raise RuntimeError("reached")

    run, kernels = kernel_runs()[name], import_module(f"aurel.kernels.triton.{name}")
    out = run()
    for half in ("forward", "backward"):
        if name != "knn_graph" or half == "forward":  # the choice has no gradient
            monkeypatch.setattr(kernels, half, reached)
            kernel.cache_clear()
            with pytest.raises(RuntimeError, match="^reached$"):
                run() if half == "forward" else out.sum().backward()


def calls() -> list:
    """Return calls of each operator, and of its gradient where shapes differ."""
    x, source = torch.randn(2, 6, 5, device=DEVICE), torch.randn(2, 8, 5, device=DEVICE)
    lists = torch.randint(-1, 6, (2, 6, 3), device=DEVICE)
    mask = torch.rand(2, 6, device=DEVICE) < 0.8
    leaf, source_leaf = x.clone().requires_grad_(), source.clone().requires_grad_()
    edges = torch.rand(1, 4, 4, device=DEVICE) < 0.5
    shapes = ((1, 2, 4, 3), (1, 2, 4), (1, 2, 4))
    attention = [torch.randn(shape, device=DEVICE) for shape in shapes]
    attention_leaves = [tensor.clone().requires_grad_() for tensor in attention]
    grad, each = torch.randn(shapes[0], device=DEVICE), torch.randn(1, 2, 4, 4, device=DEVICE)
    pair = [torch.randn(1, 2, 3, width, device=DEVICE) for width in (2, 2, 3)]
    pair_leaves = [tensor.clone().requires_grad_() for tensor in pair]
    mean, scatter = torch.rand(1, 2, 2, 3, device=DEVICE), torch.rand(1, 2, 2, device=DEVICE)
    empty = grad.new_empty(0)
    fields, couplings = torch.randn(3, 4, device=DEVICE), torch.randn(4, 4, device=DEVICE)
    present = torch.rand(3, 4, device=DEVICE) < 0.8
    binary = tuple(tensor.clone().requires_grad_() for tensor in (fields, couplings))
    sums = (fields[:, 0], fields.sin(), empty)
    states = torch.rand(2, 4, 8, device=DEVICE).double()
    changes = torch.rand(2, 3, 3, device=DEVICE).double()
    own, other = (None, None, mask, None), (source, None, mask, None)
    chosen = (3, "l2", True, 1)
    return [
        ("knn_graph", (x, *own, *chosen)),
        ("knn_graph", (x, *other, *chosen)),
        ("knn_max_relative", (leaf, *own, *chosen, True)),
        ("knn_max_relative", (leaf, source_leaf, *other[1:], *chosen, True)),
        ("neighbor_aggregate", (leaf, lists, "max", True)),
        ("neighbor_aggregate", (leaf, lists, "mean", False)),
        ("topk_aggregate", (x, leaf, None, 3, "dot", "exact")),
        ("topk_aggregate", (x, leaf, mask, 3, "dot", "all")),
        ("graph_attention", (*attention_leaves, edges, 0.2, True)),
        ("graph_attention", (*attention_leaves, edges[0], 0.2, False)),
        ("graph_attention_backward", (grad, each, *attention, edges, 0.2)),
        ("graph_attention_backward", (grad, None, *attention, edges[0], 0.2)),
        ("pair_pool", tuple(pair_leaves)),
        ("pair_pool", (*pair_leaves[:2], None)),
        ("pair_pool_backward", (mean, scatter, mean, *pair)),
        ("pair_pool_backward", (mean, empty, mean, *pair[:2], None)),
        ("pairwise_marginals", (*binary, None, False)),
        ("pairwise_marginals", (*binary, present, False)),
        ("pairwise_marginals_backward", (*sums, *sums, fields, couplings, None)),
        ("pairwise_marginals_backward", (*sums, *sums, fields, couplings, present)),
        ("chain_scan", (states, None, states[:, 0, 0], changes, False)),
        ("chain_scan", (states, states.flip(0), states[:, 0, 0], changes[:1], True)),
    ]


@pytest.mark.parametrize(("name", "args"), calls())
def test_opcheck(name: str, args: tuple) -> None:
    opcheck(OPERATORS[name].op, (*args, "triton"))


def neighbor_layer(x: torch.Tensor) -> torch.Tensor:
    out, neighbors = knn_max_relative(x, 3, backend="triton")
    out = out + neighbor_aggregate(x, neighbors, "mean", backend="triton")
    return topk_aggregate(x, out, 2, ties="all", backend="triton")[0]


def attention_layer(x: torch.Tensor) -> torch.Tensor:
    heads, edges = x.unsqueeze(1), x @ x.mT
    out, _ = graph_attention(
        heads, heads[..., 0], heads[..., 1], edges, return_weights=False, backend="triton"
    )
    mean, scatter = pair_pool(out, out, out @ out.mT, backend="triton")
    assert scatter is not None
    return mean + scatter.unsqueeze(-1)


def edge_layer(x: torch.Tensor) -> torch.Tensor:
    edges, pairs = x.unsqueeze(1) * x.unsqueeze(2), x[0] @ x[1].mT
    new, mean, var = edge_update(edges, edges, x, x, pairs, pairs, backend="triton")
    return gated_edge_aggregate(new * var.unsqueeze(2), x + mean.mean(), backend="triton")


@pytest.mark.parametrize("layer", [neighbor_layer, attention_layer, edge_layer])
def test_compiles_without_a_break(layer) -> None:
    x = torch.randn(2, 6, 5, device=DEVICE, requires_grad=True)
    want = layer(x)
    (want_grad,) = torch.autograd.grad(want.square().sum(), x)
    got = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    (got_grad,) = torch.autograd.grad(got.square().sum(), x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_grad, want_grad)

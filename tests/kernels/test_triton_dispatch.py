"""When the Triton kernels serve an op, and what an op says when they cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from plain import DEVICE, QUIET, integers
from torch.library import opcheck

from aurel.ops.knn_graph import _knn_graph, knn_graph
from aurel.ops.knn_max_relative import _knn_max_relative, knn_max_relative
from aurel.ops.neighbor_aggregate import _neighbor_aggregate, neighbor_aggregate
from aurel.ops.topk_aggregate import _topk_aggregate, topk_aggregate
from aurel.ops.triton_support import environment_obstacle, triton_obstacle

pytestmark = QUIET


def refusal(op, *args, **options) -> str:
    with pytest.raises(ValueError, match="backend='triton' cannot serve this call") as caught:
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


def test_devices_and_versions_that_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    assert triton_obstacle(integers(1, 2, 2)) is None
    obstacle = environment_obstacle(torch.device("mps"))
    assert obstacle == "the kernels need a CUDA or ROCm device, got mps"
    monkeypatch.setattr(triton, "__version__", "3.3.1")
    assert environment_obstacle(torch.device(DEVICE)) == "the kernels need Triton 3.4, got 3.3.1"
    monkeypatch.setitem(sys.modules, "triton", None)
    obstacle = environment_obstacle(torch.device("cuda"))
    assert obstacle is not None and obstacle.startswith("Triton cannot be imported")


def test_on_a_cpu_triton_is_not_chosen_and_no_kernel_imported() -> None:
    code = """
import sys, torch
from aurel.ops import knn_graph
x = torch.randn(1, 5, 3)
knn_graph(x, 2)
try:
    knn_graph(x, 2, backend="triton")
except ValueError as error:
    assert "TRITON_INTERPRET=1" in str(error), error
else:
    raise AssertionError("served on a CPU")
assert "aurel_kernels.launch" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def calls() -> list:
    x = torch.randn(2, 6, 5, device=DEVICE)
    lists = torch.randint(-1, 6, (2, 6, 3), device=DEVICE)
    mask = torch.rand(2, 6, device=DEVICE) < 0.8
    leaf = x.clone().requires_grad_()
    return [
        pytest.param(_knn_graph, (x, mask, 3, "l2", True, "triton"), id="knn"),
        pytest.param(
            _knn_max_relative, (leaf, mask, 3, "l2", True, True, "triton"), id="max_relative"
        ),
        pytest.param(_neighbor_aggregate, (leaf, lists, "max", True, "triton"), id="max"),
        pytest.param(_neighbor_aggregate, (leaf, lists, "mean", True, "triton"), id="mean"),
        pytest.param(_topk_aggregate, (x, leaf, None, 3, "dot", "exact", "triton"), id="exact"),
        pytest.param(_topk_aggregate, (x, leaf, mask, 3, "dot", "all", "triton"), id="all"),
    ]


@pytest.mark.parametrize(("op", "args"), calls())
def test_opcheck(op, args) -> None:
    opcheck(op, args)


def test_compiles_without_a_break() -> None:
    def layer(x: torch.Tensor) -> torch.Tensor:
        out, neighbors = knn_max_relative(x, 3, backend="triton")
        out = out + neighbor_aggregate(x, neighbors, "mean", backend="triton")
        return topk_aggregate(x, out, 2, ties="all", backend="triton")[0]

    x = torch.randn(2, 6, 5, device=DEVICE, requires_grad=True)
    want = layer(x)
    (want_grad,) = torch.autograd.grad(want.square().sum(), x)
    got = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    (got_grad,) = torch.autograd.grad(got.square().sum(), x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_grad, want_grad)

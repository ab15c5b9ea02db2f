"""The work of ragged ops depends on the nodes, not on the numbers of their graphs."""

from __future__ import annotations

import resource
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from helpers.every_backend import every_backend

from aurel.ops import ragged_knn_graph, ragged_knn_max_relative


@every_backend
def test_large_numbers_of_graphs_give_the_same_neighbors(backend: str) -> None:
    x, batch = torch.randn(9, 3), torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])
    numbers = torch.tensor([3, 10**9, 2**62])[batch]
    want = ragged_knn_graph(x, batch, 3, backend=backend)
    assert torch.equal(ragged_knn_graph(x, numbers, 3, backend=backend), want)
    among = {"sources": x.flip(0), "source_batch": batch.flip(0).sub(2).neg().sort().values}
    want = ragged_knn_graph(x, batch, 3, **among, backend=backend)
    among["source_batch"] = torch.tensor([3, 10**9, 2**62])[among["source_batch"]]
    assert torch.equal(ragged_knn_graph(x, numbers, 3, **among, backend=backend), want)


MEASURED = """
import resource, sys, time
import torch
from aurel.ops import ragged_knn_graph, ragged_knn_max_relative
x = torch.randn(2, 3)
for backend in sys.argv[1:]:
    ragged_knn_max_relative(x, torch.tensor([0, 1]), 1, backend=backend)
for backend in sys.argv[1:]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for last in (20_000_000, 1_000_000_000, 2**62):
        ragged_knn_max_relative(x, torch.tensor([0, last]), 1, backend=backend)
    seconds = time.process_time() - start
    mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert seconds < 1 and mebibytes < 64, (backend, seconds, mebibytes)
"""


def test_large_numbers_cost_neither_time_nor_memory() -> None:
    """In a process of its own, so that nothing else uses its memory."""
    backends = ["definition", "torch", *(["numba"] if find_spec("numba") else [])]
    subprocess.run([sys.executable, "-c", MEASURED, *backends], check=True)


@pytest.mark.parametrize("backend", ["torch"])
def test_small_graphs_are_not_padded_to_a_large_one(backend: str) -> None:
    """Padded to the largest, 2000 graphs would need 2000 * 1000 places."""
    sizes = torch.tensor([1000, *[3] * 2000])
    batch = torch.arange(len(sizes)).repeat_interleave(sizes)
    x = torch.randn(len(batch), 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out, lists = ragged_knn_max_relative(x, batch, 2, backend=backend)
    assert torch.equal(batch[lists], batch[:, None].expand(-1, 2)) and out.isfinite().all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024

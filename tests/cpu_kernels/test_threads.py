"""Work shared among threads: the same bits for any caller, in any process."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from helpers.cpu_agreement import assert_same_on_more_threads, thread_count
from torch import Tensor

from aurel.kernels.cpu import threads
from aurel.kernels.cpu.ranges import ranged
from aurel.ops import knn_graph, knn_max_relative, neighbor_aggregate, topk_aggregate


def graphs() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(16, 27, 64)


def run_all(x: Tensor) -> list[Tensor]:
    """Return outputs and gradients of the ops that choose neighbors."""
    x = x.clone().requires_grad_()
    out, neighbors = knn_max_relative(x, 4, backend="numba")
    mean = neighbor_aggregate(x, neighbors, "mean", backend="numba")
    top, _ = topk_aggregate(x.detach(), x, 4, backend="numba")
    (grad,) = torch.autograd.grad((out.square() + mean * top).sum(), x)
    return [out.detach(), neighbors, mean.detach(), top.detach(), grad]


def in_a_process(code: str) -> str:
    """Return what a new process prints, which must end by itself and without error."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same_on_more_threads(monkeypatch, lambda: run_all(graphs()))
    large = torch.randn(2, 200, 9)
    assert_same_on_more_threads(monkeypatch, lambda: [knn_graph(large, 5, backend="numba")])


@ranged
def count_visits(start, stop, visits):
    for i in range(start, stop):
        visits[i] += 1


@ranged
def demand_memory(start, stop, size, out):
    out[start] = np.empty(size)[0]


in_both = pytest.mark.parametrize("team", ["OpenMP", "Python"])


def in_team(team: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share all work, among threads of the OpenMP library of torch or of Python."""
    monkeypatch.setattr(threads, "_WORTH", 1)
    if team == "Python":
        monkeypatch.setattr(threads, "_team", lambda process: (0, 0))


@in_both
@pytest.mark.parametrize("count", [0, 1, 2, 5, 64])
def test_ranges_make_up_the_whole(team: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_team(team, monkeypatch)
    visits = np.zeros(count, np.int64)
    with thread_count(3):
        threads.run(count_visits, count, 100, visits)
    assert (visits == 1).all()


@in_both
def test_an_error_reaches_the_caller(team: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_team(team, monkeypatch)
    with thread_count(3), pytest.raises(MemoryError):
        threads.run(demand_memory, 8, 100, 1 << 58, np.zeros(8))
    assert_same_on_more_threads(monkeypatch, lambda: run_all(graphs()))


@in_both
def test_results_are_those_of_one_thread(team: str, monkeypatch: pytest.MonkeyPatch) -> None:
    want = run_all(graphs())
    in_team(team, monkeypatch)
    with thread_count(3):
        got = run_all(graphs())
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_little_work_stays_in_the_calling_thread() -> None:
    calls: list[tuple[int, ...]] = []
    with thread_count(3):
        threads.run(lambda *args: calls.append(args), 8, 10)
    assert calls == [(0, 0, 1, 1, 0, 8)]


@pytest.mark.skipif(sys.platform != "linux", reason="torch has GNU's OpenMP library on Linux")
def test_torch_shares_its_team() -> None:
    assert all(threads._team(threads.os.getpid()))


def test_many_callers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_WORTH", 1)
    x = graphs()
    want = run_all(x)
    results: list[list[Tensor]] = []

    def call() -> None:
        torch.set_num_threads(2)
        for _ in range(5):
            results.append(run_all(x))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
        assert not caller.is_alive()
    assert len(results) == 40
    assert all(torch.equal(a, b) for got in results for a, b in zip(got, want, strict=True))


@pytest.mark.skipif(not hasattr(threads.os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    code = """
import os, torch
from aurel.kernels.cpu import threads
from aurel.ops import knn_graph
threads._WORTH = 1
torch.set_num_threads(2)
x = torch.randn(8, 12, 16)
want = knn_graph(x, 3, backend="numba")
child = os.fork()
if child == 0:
    good = torch.equal(knn_graph(x, 3, backend="numba"), want)
    os._exit(0 if good else 7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.equal(knn_graph(x, 3, backend="numba"), want)
print("done")
"""
    assert in_a_process(code) == "done"


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_workers_of_a_data_loader(start: str, tmp_path) -> None:
    (tmp_path / "graphs_of_workers.py").write_text(
        """
import torch
from aurel.ops import knn_graph

class Graphs(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return knn_graph(torch.arange(24.0).view(1, 12, 2) * (i + 1), 3, backend="numba")[0]
"""
    )
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import torch
from graphs_of_workers import Graphs
if __name__ == "__main__":
    data = Graphs()
    want = torch.stack([data[i] for i in range(4)])
    loader = torch.utils.data.DataLoader(
        data, batch_size=4, num_workers=1, multiprocessing_context={start!r}
    )
    assert all(torch.equal(batch, want) for batch in loader)
    print("done")
"""
    assert in_a_process(code) == "done"

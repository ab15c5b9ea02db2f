"""The `versus` fixture: measure an op and its peers, and add a row to the table.

python -m pytest benchmarks                       # everything, on the CPU
python -m pytest benchmarks/bench_ops.py -k knn --threads 1 --clock cpu
python benchmarks/gpu.py bench --out build/gpu --budget 540
"""

from __future__ import annotations

import datetime
import gc
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import peers
import pytest
import torch
from ceilings import Ceilings, Floor, measure_ceilings
from journal import Journal, in_order, write_run
from machine import processor
from measure import (
    CLOCKS,
    LONG,
    Step,
    Timer,
    disagreement,
    launches,
    median_ms,
    peak_mib,
    take_turns,
)
from table import text_table
from torch import Tensor

AUREL = "aurel"
SELECTION = 0.01  # share of numbers that may differ by near-ties between neighbors
ROUNDING = 1e-3  # share that may differ by ReLUs near 0, in many layers
PATIENCE = 6.0  # seconds for all rounds of a row, if two rounds do not take longer
OUT_OF_TIME, BROKEN = 10, 11  # exit status of a process with rows left for the next one
# On a GPU, torch.compile is a peer only at these numbers of nodes: compiling a row takes seconds.
COMPILED_NODES = (41, 784)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption("--device", default="cpu", help="cpu or cuda")
    group.addoption("--threads", type=int, default=2, help="of PyTorch, on a CPU")
    group.addoption("--clock", default="wall", choices=CLOCKS, help="on a CPU")
    group.addoption("--rounds", type=int, default=15, help="at most; slow rows take fewer")
    group.addoption("--compile", action="store_true", help="torch.compile as a peer on a CPU too")
    group.addoption("--sweep", action="store_true", help="more sizes, for the plots")
    group.addoption("--results", type=Path, help="a .json file for the rows")
    group.addoption("--journal", type=Path, help="a .jsonl file to continue: see `journal`")
    group.addoption("--seconds", type=float, help="start no row after so long")


class Bench:
    """One run of the benchmarks: its device, its ceilings and its rows."""

    def __init__(self, config: pytest.Config) -> None:
        self.device = torch.device(config.getoption("--device"))
        self.timer = Timer(self.device, config.getoption("--clock"))
        self.rounds: int = config.getoption("--rounds")
        self.compile: bool = config.getoption("--compile")
        self.rows: list[dict[str, Any]] = []
        self.results: Path | None = config.getoption("--results")
        path = config.getoption("--journal")
        self.journal = None if path is None else Journal(path)
        limit = config.getoption("--seconds")
        self.deadline = None if limit is None else time.monotonic() + limit
        self._ceilings: Ceilings | None = None

    @property
    def ceilings(self) -> Ceilings:
        if self._ceilings is None:
            self._ceilings = measure_ceilings(self.timer)
        return self._ceilings

    def compiles(self, size: dict[str, int]) -> bool:
        """Return whether torch.compile is a peer at this size."""
        return self.compile or (self.device.type == "cuda" and size["N"] in COMPILED_NODES)

    def describe(self) -> dict[str, Any]:
        """Return the conditions of the run that a reader of the rows must know."""
        on_gpu = self.device.type == "cuda"
        ceilings = self.ceilings
        about = {
            "device": torch.cuda.get_device_name() if on_gpu else processor(),
            "threads": None if on_gpu else torch.get_num_threads(),
            "clock": "cuda events"
            if on_gpu
            else next(name for name, clock in CLOCKS.items() if clock is self.timer.clock),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.date.today().isoformat(),
            "bytes_per_second": ceilings.bytes,
            "operations_per_second": ceilings.operations,
        }
        if on_gpu:
            about["tensor_operations_per_second"] = ceilings.tensor_operations
            about["cache_bytes_per_second"] = ceilings.cache_bytes
            about["cache_size"] = ceilings.cache_size
        return about

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; write it at once, since a run may be stopped."""
        self.rows.append(row)
        if self.journal is not None:
            self.journal.write("row", self.describe() if len(self.rows) == 1 else None, row=row)
        if self.results is not None:
            write_run(self.results, self.describe(), self.rows)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[KEY] = Bench(config)
    if not torch.cuda.is_available() and config.getoption("--device") == "cuda":
        raise pytest.UsageError("--device cuda: there is no CUDA device")
    torch.set_num_threads(config.getoption("--threads"))


KEY = pytest.StashKey[Bench]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    bench = config.stash[KEY]
    if not bench.rows:
        return
    run = {"run": bench.describe(), "rows": bench.rows}
    terminalreporter.write_line("")
    terminalreporter.write_line(text_table(run))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize `size` by the `sizes` mark for this device, and by its sweep."""
    mark = metafunc.definition.get_closest_marker("sizes")
    if mark is None:
        return
    chosen = list(mark.kwargs[metafunc.config.getoption("--device")])
    swept = mark.kwargs.get("sweep", ()) if metafunc.config.getoption("--sweep") else ()
    for size in swept:
        if size not in chosen:
            chosen.append(size)
    metafunc.parametrize(
        "size", chosen, ids=[" ".join(f"{k}{v}" for k, v in size.items()) for size in chosen]
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a journal, select the rows that are not in it, headlines first."""
    journal = config.stash[KEY].journal
    if journal is None:
        return
    items[:] = in_order(items)
    if not {item.nodeid for item in items} <= set(journal.collected()):
        journal.write("collected", ids=[item.nodeid for item in items])
    started = set(journal.started())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in started])
    items[:] = [item for item in items if item.nodeid not in started]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Stop at the time limit; write the start and end of the row to the journal."""
    bench = item.config.stash[KEY]
    if bench.deadline is not None and time.monotonic() > bench.deadline:
        pytest.exit("no time for further rows", returncode=OUT_OF_TIME)
    if bench.journal is None:
        return (yield)
    bench.journal.write("start", id=item.nodeid)
    result = yield
    bench.journal.write("end", id=item.nodeid)
    return result


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Write a failure to the journal; exit if the CUDA context is broken."""
    bench = item.config.stash[KEY]
    if (
        bench.journal is None
        or call.excinfo is None
        or call.excinfo.errisinstance(pytest.skip.Exception)
    ):
        return
    bench.journal.write("fail", id=item.nodeid, error=call.excinfo.exconly()[-1000:])
    if bench.device.type == "cuda":
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            pytest.exit(f"the CUDA context is broken: {error}", returncode=BROKEN)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Set the random seed, and turn garbage collection off during the measurement."""
    torch.manual_seed(0)
    for name in ("last_exc", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)  # its frames contain the tensors of a failed row
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.config.stash[KEY]


@pytest.fixture
def versus(bench: Bench, benchmark: Any) -> Callable[..., None]:
    """Return `compare`, which measures all sides in turns, adds a row and compares the results."""

    def compare(
        op: str,
        size: dict[str, int],
        mode: str,
        steps: dict[str, Step],
        floor: Floor | None = None,
        *,
        allowed: float = 0.0,
        tolerance: float = 1e-3,
    ) -> None:
        expected = steps[AUREL]()
        differing = {
            name: disagreement(step(), expected, tolerance)
            for name, step in steps.items()
            if name != AUREL
        }
        del expected
        timer = bench.timer
        own = {AUREL: timer.prepare(steps[AUREL])}
        others = {name: timer.prepare(step) for name, step in steps.items() if name != AUREL}
        times = take_turns(timer, own | others, calls=1)
        total = sum(seconds[0] for seconds in times.values())
        turn = sum(each if each > LONG else 4 * each for (each,) in times.values())
        rounds = max(2, min(bench.rounds, int(PATIENCE / max(turn, 1e-9))))
        times = {name: [] for name in times}

        def peers_turn() -> None:
            for name, seconds in take_turns(timer, others).items():
                times[name] += seconds
            if total < LONG:
                own[AUREL].run()

        benchmark.pedantic(
            lambda: times[AUREL].append(timer.seconds(own[AUREL])), setup=peers_turn, rounds=rounds
        )
        own.clear()  # captured graphs use as much memory as their steps
        others.clear()
        row: dict[str, Any] = {
            "op": op,
            "size": size,
            "mode": mode,
            "rounds": rounds,
            "ms": {name: round(median_ms(seconds), 5) for name, seconds in times.items()},
            "differing": {name: float(f"{share:.2g}") for name, share in differing.items()},
            "floor_ms": floor and round(bench.ceilings.milliseconds(floor), 6),
            "peak_mib": {n: round(peak_mib(step, bench.device), 3) for n, step in steps.items()},
        }
        if bench.device.type == "cuda":
            row["launches"] = launches(steps[AUREL])
            row["floor_level"] = floor and bench.ceilings.level(floor)
        benchmark.extra_info.update(row)
        bench.add(row)
        for name, share in differing.items():
            limit = max(allowed, ROUNDING)
            assert share <= limit, f"{name} and {AUREL} differ in {share:.2%} of the numbers"

    return compare


@pytest.fixture
def versus_functions(versus: Callable[..., None], bench: Bench) -> Callable[..., None]:
    """Return `compare` for functions of the same tensors, in "forward" or "training" mode."""

    def compare(
        op: str,
        size: dict[str, int],
        mode: str,
        inputs: Sequence[Tensor],
        functions: dict[str, Callable[..., Tensor]],
        floor: Floor | None = None,
        *,
        compiled: str | None = None,
        selects: bool = False,
    ) -> None:
        functions = dict(functions)
        if not peers.cluster_serves(bench.device):
            functions.pop("cluster", None)
        if compiled is not None and bench.compiles(size):
            torch._dynamo.reset()
            functions["compile"] = torch.compile(functions[compiled], dynamic=False)
        steps = {
            name: forward(function, inputs) if mode == "forward" else training(function, inputs)
            for name, function in functions.items()
        }
        versus(op, size, mode, steps, floor, allowed=SELECTION if selects else 0.0)

    return compare


def forward(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Step:
    def step() -> Tensor:
        with torch.no_grad():
            return function(*inputs)

    return step


def training(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Step:
    """Return forward and backward with respect to all floating-point inputs."""
    given = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    leaves = [x for x in given if x.requires_grad]
    with torch.no_grad():
        out = function(*given)
    cotangent = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=out.dtype)
    cotangent = cotangent.view(out.shape)

    def step() -> list[Tensor]:
        out = function(*given)
        grads = torch.autograd.grad(out, leaves, cotangent, allow_unused=True)
        return [out.detach(), *(grad for grad in grads if grad is not None)]

    return step

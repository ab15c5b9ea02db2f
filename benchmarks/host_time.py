"""Measure the time that Python takes to launch an op, without a GPU.

    python benchmarks/host_time.py
    python benchmarks/host_time.py --save LABEL        # also append to results/host_time.jsonl

Kernels are compiled for sm_90 and launched by a driver that does nothing, on tensors of a CPU.
Everything else, from the arguments of the op to the call of the driver, runs as on a GPU; the call
of the driver and the creation of tensors on a GPU are not included. Times are microseconds of
processor time, the least of several repetitions, measured in turns.

"short" is an eager call; "operator" the same call through the `torch.library` operator, which
compilation and export use. The next columns are saved runs. "add" is `torch.add` of four numbers on
a CPU, to compare machines.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from machine import processor
from torch import Tensor

from aurel import ops
from aurel.ops.pair_pool import pair_pool

SAVED = Path(__file__).parent / "results" / "host_time.jsonl"
CALLS, REPETITIONS = 100, 9

Call = Callable[[], Any]
Micros = dict[str, dict[str, float]]  # of a forward pass, and of a training step, by op


def cases() -> Iterator[tuple[str, Call, list[Tensor]]]:
    """Yield the name of an op, a call, and the tensors that it has gradients for."""
    triton: Any = {"backend": "triton"}
    x = torch.zeros(1, 12, 16)
    leaf = x.clone().requires_grad_()
    neighbors = torch.zeros(1, 12, 4, dtype=torch.int64)
    heads, score = torch.zeros(1, 1, 12, 16, requires_grad=True), torch.zeros(1, 1, 12)
    adjacency = torch.ones(12, 12, dtype=torch.bool)
    tokens = torch.zeros(1, 12, 16, 16, requires_grad=True)
    edges, pairs = torch.zeros(1, 12, 12, 16, requires_grad=True), torch.ones(12, 12)
    yield "knn_graph", lambda: ops.knn_graph(x, 4, **triton), []
    yield "knn_max_relative", lambda: ops.knn_max_relative(leaf, 4, **triton), [leaf]
    yield "neighbor_aggregate", lambda: ops.neighbor_aggregate(leaf, neighbors, **triton), [leaf]
    yield "topk_aggregate", lambda: ops.topk_aggregate(x, leaf, 4, **triton), [leaf]
    given = (heads, score, score, adjacency)
    attention = lambda: ops.graph_attention(*given, return_weights=False, **triton)  # noqa: E731
    yield "graph_attention", attention, [heads]
    yield "pair_pool", lambda: pair_pool(tokens, tokens, tokens, **triton), [tokens]
    yield "gated_edge_aggregate", lambda: ops.gated_edge_aggregate(edges, x, **triton), [edges]
    ends = (x, x, pairs, pairs)
    yield "edge_update", lambda: ops.edge_update(edges, edges, *ends, **triton), [edges]


def training(call: Call, leaves: list[Tensor]) -> Call:
    """Return a forward and a backward pass of the first output."""

    def step() -> None:
        out = call()
        out = out[0] if isinstance(out, tuple) else out
        torch.autograd.grad(out, leaves, torch.ones_like(out), allow_unused=True)

    return step


def forward(call: Call) -> Call:
    def step() -> None:
        with torch.no_grad():
            call()

    return step


def microseconds(step: Call) -> float:
    """Return the processor time of one call, the least of a few."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(CALLS):
            step()
        best = min(best, (time.process_time() - start) / CALLS)
    return 1e6 * best


@contextmanager
def operators() -> Iterator[None]:
    """Within the block, call every op by its `torch.library` operator."""
    from aurel.ops.registration import Operator

    short = Operator.__call__
    Operator.__call__ = lambda self, *args: self.op(*args)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Operator.__call__ = short  # type: ignore[method-assign]


def use_idle_driver() -> Any:
    """Run kernels on tensors of a CPU with a driver that does nothing; return the driver."""
    import triton

    from aurel.kernels.triton.stand_in import IdleDriver
    from aurel.ops import triton_support

    driver = IdleDriver("sm_90")
    triton.runtime.driver.set_active(driver)
    triton_support._environment_obstacle = lambda device: None
    return driver


def measure() -> tuple[Micros, Micros, dict[str, tuple[int, int]]]:
    """Return times of eager calls and of operators, and the number of launches of both passes."""
    driver = use_idle_driver()
    steps: dict[str, dict[str, Call]] = {}
    launches = {}
    for name, call, leaves in cases():
        steps[name] = {"forward": forward(call)}
        if leaves:
            steps[name]["training"] = training(call, leaves)
        counts = []
        for step in steps[name].values():
            step()  # compiles
            driver.launches.clear()
            step()
            counts.append(len(driver.launches))
        launches[name] = counts[0], counts[-1]
    short: Micros = {name: {} for name in steps}
    slow: Micros = {name: {} for name in steps}
    for _ in range(REPETITIONS // 3):
        for name, kinds in steps.items():
            for kind, step in kinds.items():
                driver.launches.clear()
                take(short[name], kind, microseconds(step))
                with operators():
                    take(slow[name], kind, microseconds(step))
    return short, slow, launches


def take(values: dict[str, float], kind: str, value: float) -> None:
    """Update the least value of a kind."""
    values[kind] = round(min(values.get(kind, value), value), 1)


def addition() -> float:
    """Return the microseconds of `torch.add` on a CPU."""
    four = torch.zeros(4)
    return round(min(microseconds(lambda: torch.add(four, four)) for _ in range(REPETITIONS)), 2)


def table(
    short: Micros, slow: Micros, launches: dict[str, tuple[int, int]], saved: list[dict[str, Any]]
) -> str:
    """Return a line for each op and pass, with the ratio of each other column to "short"."""
    head = "".join(f"{each['label']:>20}" for each in saved)
    lines = [f"{'op':<22}{'pass':<10}{'launches':>8}{'short':>8}{'operator':>18}{head}"]
    for name, kinds in short.items():
        for i, kind in enumerate(kinds):
            own = kinds[kind]
            others = [slow[name][kind], *(each["us"].get(name, {}).get(kind) for each in saved)]
            cells = [
                "" if other is None else f"{other:.1f} ({other / own:.1f}x)" for other in others
            ]
            line = f"{name:<22}{kind:<10}{launches[name][i]:>8}{own:>8.1f}{cells[0]:>18}"
            lines.append(line + "".join(f"{cell:>20}" for cell in cells[1:]))
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", metavar="LABEL", help="append this run to the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder  # before Triton is imported
        short, slow, launches = measure()
    saved = [json.loads(line) for line in SAVED.read_text().splitlines()] if SAVED.exists() else []
    add = addition()
    print(f"{processor()}, torch {torch.__version__}, add {add:.2f} us; saved runs, add:")
    for each in saved:
        print(f"  {each['label']}, {each['date']}, {each['device']}: {each['add']:.2f} us")
    print(table(short, slow, launches, saved))
    if options.save:
        run = {
            "label": options.save,
            "date": datetime.date.today().isoformat(),
            "device": processor(),
            "torch": torch.__version__,
            "add": add,
            "us": short,
        }
        with SAVED.open("a") as file:
            file.write(json.dumps(run) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Time and memory of `MultiDimensionalEdges` against its materialising definition, on a CPU.

    python benchmarks/multi_dimensional_edges.py --threads 2 --rounds 3 --sizes 8x12 2x27

Both sides run forward and backward in training mode, in turn, in one process. The two are compared
before they are timed. Wall time is what a user waits; CPU time, summed over threads, is what to
read on a machine that has other work. Peak memory is what the allocator held at once beyond inputs
and parameters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.layers.reference_edges import materialized_edges

Step = Callable[[], list[Tensor]]
CALLS_OF_OURS = 3


def main() -> None:
    """Print one row a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=49)
    parser.add_argument("--sizes", nargs="+", default=["8x12", "2x27"], metavar="BxN")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(
        f"forward + backward, C={options.channels}, D={options.tokens}, {options.threads} threads, "
        f"torch {torch.__version__}; medians of {options.rounds} rounds"
    )
    print(
        f"{'B x N':>7} | {'definition':>20} | {'aurel':>20} | {'ratio':>13} | "
        f"{'peak MiB':>17} | {'ratio':>5} | disagreement"
    )
    print(
        f"{'':>7} | {'wall':>9} {'CPU ms':>10} | {'wall':>9} {'CPU ms':>10} | {'wall':>6} "
        f"{'CPU':>6} | {'def.':>8} {'aurel':>8} |"
    )
    for size in options.sizes:
        batch, nodes = (int(number) for number in size.split("x"))
        _row(batch, nodes, options.tokens, options.channels, options.rounds)


def _row(batch: int, nodes: int, tokens: int, channels: int, rounds: int) -> None:
    definition, ours = _steps(batch, nodes, tokens, channels)
    wanted = definition()
    error = max(_difference(a, b) for a, b in zip(ours(), wanted, strict=True))
    if error > 1e-3:
        raise SystemExit(f"{batch}x{nodes}: the two sides differ by {error:.1e}")
    del wanted
    slow, fast = [], []
    for _ in range(rounds):
        slow.append(_timed(definition))
        fast += [_timed(ours) for _ in range(CALLS_OF_OURS)]
    (slow_wall, slow_cpu), (fast_wall, fast_cpu) = (
        tuple(statistics.median(times) * 1e3 for times in zip(*runs, strict=True))
        for runs in (slow, fast)
    )
    slow_peak, fast_peak = _peak_mib(definition), _peak_mib(ours)
    print(
        f"{batch:>3} x{nodes:>3} | {slow_wall:9.1f} {slow_cpu:10.1f} | "
        f"{fast_wall:9.1f} {fast_cpu:10.1f} | {slow_wall / fast_wall:5.1f}x "
        f"{slow_cpu / fast_cpu:5.1f}x | {slow_peak:8.1f} {fast_peak:8.1f} | "
        f"{slow_peak / fast_peak:4.1f}x | {error:.1e}",
        flush=True,
    )


def _steps(batch: int, nodes: int, tokens: int, channels: int) -> tuple[Step, Step]:
    """Return one training step of each side; each gives the edges and all gradients."""
    layer = MultiDimensionalEdges(channels, nodes)
    other = deepcopy(layer)
    # In memory the token comes before the node, as `AUSpecificFeatures` leaves it.
    node_tokens = torch.rand(batch, tokens, nodes, channels).transpose(1, 2).requires_grad_()
    face_tokens = torch.rand(batch, tokens, channels).requires_grad_()
    cotangent = torch.randn(batch, nodes, nodes, channels)

    def step(edges: Tensor, module: MultiDimensionalEdges) -> list[Tensor]:
        parameters = [
            parameter
            for name, parameter in module.named_parameters()
            if not name.endswith("key.bias")  # zero gradient: nothing to compare but rounding
        ]
        wanted = [node_tokens, face_tokens, *parameters]
        grads = torch.autograd.grad(edges, wanted, cotangent)
        return [edges.detach(), *grads]

    def definition() -> list[Tensor]:
        edges = materialized_edges(other, node_tokens, face_tokens).mean(2)
        return step(edges.view(cotangent.shape), other)

    def ours() -> list[Tensor]:
        return step(layer(node_tokens, face_tokens), layer)

    return definition, ours


def _difference(x: Tensor, wanted: Tensor) -> float:
    """Return the largest difference in units of the largest wanted value."""
    return float((x - wanted).abs().max() / wanted.abs().max())


def _timed(step: Step) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_mib(step: Step) -> float:
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        step()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    held = peak = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted(
        (event for event in events if event.name() == "[memory]"), key=lambda e: e.start_ns()
    ):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


if __name__ == "__main__":
    main()

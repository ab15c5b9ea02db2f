"""Time `knn_max_relative` on a CPU beside plain PyTorch and torch-cluster with torch-scatter.

    python benchmarks/knn_max_relative.py --threads 1 --clock cpu

All sides are first checked to compute the same. Then they take turns in one process: two untimed
runs (what one side leaves in caches and allocator is not charged to the next), three timed ones;
medians are printed. The CPU clock counts the seconds that the process computes: other programs
disturb it less, but with several threads it is not the time one waits.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from aurel.ops.knn_max_relative import knn_max_relative

try:
    import torch_cluster
    import torch_scatter
except ImportError:
    torch_cluster = torch_scatter = None

Side = Callable[[Tensor, int], Tensor]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def ours(x: Tensor, k: int) -> Tensor:
    return knn_max_relative(x, k)[0]


def eager(x: Tensor, k: int) -> Tensor:
    """What one writes without a library: bmm, topk, gather, amax."""
    batch, nodes, channels = x.shape
    with torch.no_grad():
        products = torch.bmm(x, x.mT)
        squares = products.diagonal(dim1=1, dim2=2)
        distances = squares[:, None] - 2 * products
        neighbors = distances.topk(k, dim=2, largest=False).indices
    index = neighbors.reshape(batch, nodes * k, 1).expand(-1, -1, channels)
    return x.gather(1, index).view(batch, nodes, k, channels).amax(2) - x


def cluster_scatter(x: Tensor, k: int) -> Tensor:
    """Ragged graphs: torch_cluster finds the edges, torch_scatter takes the maximum."""
    batch, nodes, _ = x.shape
    rows = x.flatten(0, 1)
    graph = torch.arange(batch).repeat_interleave(nodes)
    source, target = torch_cluster.knn_graph(rows.detach(), k, graph, loop=True)
    relative = rows[source] - rows[target]
    out, _ = torch_scatter.scatter_max(relative, target, dim=0, dim_size=len(rows))
    return out.view(x.shape)


def forward(side: Side, x: Tensor, k: int) -> Callable[[], Tensor]:
    return lambda: side(x, k)


def forward_backward(side: Side, x: Tensor, k: int) -> Callable[[], Tensor]:
    leaf = x.clone().requires_grad_()
    cotangent = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)
    return lambda: torch.autograd.grad(side(leaf, k), leaf, cotangent)[0]


def median_times(
    runs: dict[str, Callable[[], Tensor]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the median milliseconds of each run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            run()
            for _ in range(3):
                start = clock()
                run()
                times[name].append((clock() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--nodes", type=int, nargs="+", default=[12, 18, 27, 41])
    parser.add_argument("--k", type=int, nargs="+", default=[4, 9])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    sides: dict[str, Side] = {"aurel": ours, "eager": eager}
    if torch_cluster is None:
        print("torch-cluster + torch-scatter: not installed")
    else:
        sides["cluster"] = cluster_scatter
    print(
        f"B={args.batch} C={args.channels} float32, torch {torch.__version__}, "
        f"{args.threads} thread(s), {args.clock} clock, median of {3 * args.rounds}, milliseconds"
    )
    print(f"{'':18s}{'N':>4s}{'k':>4s}" + "".join(f"{name:>10s}{'':>8s}" for name in sides))
    gc.disable()
    for mode in (forward, forward_backward):
        for nodes in args.nodes:
            for k in args.k:
                x = torch.randn(args.batch, nodes, args.channels)
                # In float64: rounding in float32 could settle near-ties differently.
                want = mode(ours, x.double(), k)()
                for side in sides.values():
                    torch.testing.assert_close(mode(side, x.double(), k)(), want)
                runs = {name: mode(side, x, k) for name, side in sides.items()}
                times = median_times(runs, args.rounds, CLOCKS[args.clock])
                ratios = [(ms, f"{ms / times['aurel']:.1f}x") for ms in times.values()]
                cells = "".join(f"{ms:10.2f}{ratio:>8s}" for ms, ratio in ratios)
                print(f"{mode.__name__:18s}{nodes:4d}{k:4d}{cells}", flush=True)


if __name__ == "__main__":
    main()

"""Measure time and memory of several computations of the same result, in turns in one process."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Step = Callable[[], object]

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LONG = 0.1  # seconds; a step that takes longer is not run untimed before it is timed
REGION = 5e-3  # seconds of work in one measurement: short steps are repeated
CAPTURED = 20  # steps of a CUDA graph at most


@dataclass(frozen=True)
class Prepared:
    """Runs a step several times at each call."""

    run: Step
    steps: int = 1


class Timer:
    """Times a step on one device.

    On a CPU it reads a clock: "wall", or "cpu" for the processor time of the process, which
    depends less on other programs. A short step is repeated. On a GPU it captures up to `CAPTURED`
    steps in one CUDA graph, if possible: this measures the work without its launch from Python, and
    the steps share the launch of the graph. Events are recorded around replays of a few
    milliseconds.
    """

    def __init__(self, device: torch.device, clock: str = "wall") -> None:
        self.device = device
        self.clock = CLOCKS[clock]

    def prepare(self, step: Step) -> Prepared:
        """Return the function that measures `step`; everything is compiled after `prepare`."""
        if self.device.type != "cuda":
            return repeated(step, repetitions(self.seconds(Prepared(step))))
        return captured(step, self._region_steps(step)) or Prepared(step)

    def seconds(self, prepared: Prepared) -> float:
        """Run the step and return how long it took."""
        if self.device.type != "cuda":
            start = self.clock()
            prepared.run()
            return (self.clock() - start) / prepared.steps
        once = self._between_events(prepared.run, 1)
        return self._between_events(prepared.run, repetitions(once)) / prepared.steps

    def _region_steps(self, step: Step) -> int:
        """Return the number of steps in a graph: `CAPTURED`, or fewer if a step takes long."""
        step()  # compiles
        step()
        return min(CAPTURED, repetitions(self._between_events(step, 1)))

    def _between_events(self, step: Step, repeats: int) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            step()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3 / repeats


def repetitions(seconds: float) -> int:
    """Return how often to repeat what takes `seconds` in one measurement."""
    return max(1, min(1000, round(REGION / max(seconds, 1e-9))))


def repeated(step: Step, steps: int) -> Prepared:
    """Return `steps` runs of a step, one after the other."""

    def run() -> None:
        for _ in range(steps):
            step()

    return Prepared(run, steps)


def captured(step: Step, steps: int) -> Prepared | None:
    """Return the replay of `steps` steps as a CUDA graph, or None if they cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    current = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            for _ in range(steps):
                step()
    except RuntimeError:  # it waits for the device, for example to read a size
        with contextlib.suppress(RuntimeError):
            torch.cuda.synchronize()
        # A capture that fails leaves its stream, and a random generator that still records.
        torch.cuda.set_stream(current)
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.zeros(1, device="cuda")
        return None
    return Prepared(graph.replay, steps)


def take_turns(timer: Timer, sides: dict[str, Prepared], calls: int = 3) -> dict[str, list[float]]:
    """Run every side a few times, one after the other, and return the seconds of each run."""
    times: dict[str, list[float]] = {}
    for name, side in sides.items():
        first = timer.seconds(side)
        # The first run, with caches and allocator in the state of another step, is not counted.
        times[name] = [first] if first > LONG else [timer.seconds(side) for _ in range(calls)]
    return times


def launches(step: Step) -> int:
    """Return the number of kernels that one run starts on a GPU."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())


def peak_mib(step: Step, device: torch.device) -> float:
    """Return the peak memory of one run beyond the memory before it, in MiB."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        step()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    held = peak = 0
    memory = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(memory, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def tensors(result: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a tensor or a nest of tuples and lists."""
    if isinstance(result, Tensor):
        if result.is_floating_point():
            yield result.detach()
    elif isinstance(result, tuple | list):
        for part in result:
            yield from tensors(part)


def disagreement(result: object, expected: object, tolerance: float) -> float:
    """Return the share of numbers that differ by more than `tolerance` of the largest one."""
    wrong = total = 0
    for got, value in zip(tensors(result), tensors(expected), strict=True):
        gap = (got.double() - value.double()).abs()
        wrong += int((~(gap <= tolerance * value.abs().max().clamp_min(1e-12))).sum())
        total += value.numel()
    return wrong / max(total, 1)


def median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1e3

"""Count the machine instructions of the kernels at headline sizes, beside those of a past version.

    python -m aurel.kernels.triton.instruction_counts

Every call below is compiled for `TARGET`, without a GPU, and disassembled. A count is static: each
instruction once, whatever the number of passes of its loop and of warps that run it. "in loops" are
those that a branch back to an earlier instruction encloses; where a loop runs once a strip of
channels or columns, they make up most of the work. A call of several kernels has their sum.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton import (
    edge_update,
    gated_edge_aggregate,
    graph_attention,
    knn_max_relative,
    pair_pool,
)
from aurel.kernels.triton.launch import compile_only
from aurel.kernels.triton.stand_in import StandInDriver

TARGET = "sm_90"
BATCH = 64
BEFORE = Path(__file__).with_name("instruction_counts.json")

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*?);")
LABEL = re.compile(r"^(\.L_\w+):")

Name = tuple[str, str]
Counts = tuple[int, int]


def calls() -> Iterator[tuple[Name, Callable[[], object]]]:
    """Yield (operator, size) and the call, on CPU tensors, to be compiled."""
    for nodes, channels, k in ((41, 512, 9), (12, 512, 4), (784, 192, 12), (3136, 96, 9)):
        x = torch.empty(BATCH, nodes, channels)
        forward = partial(knn_max_relative.forward, x, None, None, None, None, k, "l2")
        size = f"N={nodes} C={channels} K={k}"
        yield ("knn_max_relative", size), partial(forward, True, 1, True)
    for nodes, channels, k, dtype in ((41, 512, 9, torch.uint8), (784, 192, 12, torch.int16)):
        grad = torch.empty(BATCH, nodes, channels)
        neighbors = torch.zeros(BATCH, nodes, k, dtype=torch.int64)
        winner = torch.zeros(grad.shape, dtype=dtype)
        backward = partial(knn_max_relative.backward, grad, neighbors, winner, nodes, True)
        yield ("knn_max_relative_backward", f"N={nodes} C={channels} K={k}"), backward
    values, score = torch.empty(BATCH, 4, 41, 128), torch.empty(BATCH, 4, 41)
    inputs = (values, score, score, torch.ones(BATCH, 41, 41, dtype=torch.bool), 0.2)
    yield from both(
        "graph_attention",
        "H=4 N=41 C=128",
        partial(graph_attention.forward, *inputs, False),
        partial(graph_attention.backward, values, None, *inputs),
    )
    tokens, mean = torch.empty(BATCH, 27, 49, 49), torch.empty(BATCH, 27, 27, 49)
    yield from both(
        "pair_pool",
        "N=27 D=49",
        partial(pair_pool.forward, tokens, tokens, tokens),
        partial(pair_pool.backward, mean, mean[..., 0], mean, tokens, tokens, tokens),
    )
    edges, nodes_ = torch.empty(BATCH, 41, 41, 512), torch.empty(BATCH, 41, 512)
    yield from both(
        "gated_edge_aggregate",
        "N=41 C=512",
        partial(gated_edge_aggregate.forward, edges, nodes_, None),
        partial(gated_edge_aggregate.backward, nodes_, edges, nodes_, None),
    )
    pairs: Tensor = torch.empty(41, 41)
    ends = (edges, nodes_, nodes_, pairs, pairs)
    yield from both(
        "edge_update",
        "N=41 C=512",
        partial(edge_update.forward, edges, *ends, None, None, None, 1e-5),
        partial(edge_update.backward, edges, *ends, pairs, pairs, None, 1e-5, False),
    )


def both(
    operator: str, size: str, forward: Callable[[], object], backward: Callable[[], object]
) -> Iterator[tuple[Name, Callable[[], object]]]:
    """Yield the forward and the backward call of an operator, with their names."""
    yield (operator, size), forward
    yield (f"{operator}_backward", size), backward


def count_call(call: Callable[[], object]) -> Counts:
    """Return the instructions of all kernels of a call, and how many of them lie in loops."""
    with compile_only() as record:
        call()
    counts = [count(disassemble(compiled.asm["cubin"])) for _, _, compiled in record]
    return sum(total for total, _ in counts), sum(looped for _, looped in counts)


def disassemble(cubin: bytes) -> str:
    """Return the assembly text of a kernel, by the disassembler in Triton's package."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = [str(tool), "-c", file.name]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout


def count(assembly: str) -> Counts:
    """Return the instructions of a kernel, padding left out, and how many of them lie in loops."""
    labels: dict[str, int] = {}
    total = 0
    looped: set[int] = set()
    for line in assembly.splitlines():
        label, instruction = LABEL.match(line), INSTRUCTION.search(line)
        if label:
            labels[label[1]] = total
        elif instruction and instruction[1] != "NOP":
            label_name = re.search(r"\.L_\w+", instruction[2]) if "BRA" in instruction[1] else None
            # The last instruction of a kernel branches to itself.
            if label_name and labels.get(label_name[0], total) < total:
                looped.update(range(labels[label_name[0]], total + 1))
            total += 1
    return total, len(looped)


def table(counts: dict[Name, Counts], before: dict[str, Any]) -> str:
    """Return the counts beside those of the past version, a line a call."""
    lines = [
        f"static instructions for {TARGET}; before: revision {before['revision']} "
        f"({before['date']}, Triton {before['triton']})",
        f"{'':<48}{'all':<24}{'in loops':<24}".rstrip(),
        f"{'operator':<32}{'size':<16}" + 2 * f"{'before':>7}{'after':>7}{'ratio':>7}   ",
    ]
    for (operator, size), now in counts.items():
        past = before["counts"].get(operator, {}).get(size)
        cells = "   ".join(beside(None if past is None else past[i], now[i]) for i in range(2))
        lines.append(f"{operator:<32}{size:<16}{cells}".rstrip())
    return "\n".join(line.rstrip() for line in lines)


def beside(before: int | None, after: int) -> str:
    """Return the cells of one count: before, after, after over before."""
    ratio = f"{after / before:.2f}" if before else ""
    return f"{'' if before is None else before:>7}{after:>7}{ratio:>7}"


def main() -> int:
    """Print the table."""
    import triton

    triton.runtime.driver.set_active(StandInDriver(TARGET))
    counts = {name: count_call(call) for name, call in calls()}
    print(table(counts, json.loads(BEFORE.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

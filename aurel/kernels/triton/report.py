"""Compile every kernel for every target, without a GPU, and print the resources that it takes.

    python -m aurel.kernels.triton.report              # for all targets
    python -m aurel.kernels.triton.report sm_90 gfx942
    python -m aurel.kernels.triton.report --once sm_90     # each kernel by its first launch alone

The `examples` of each module go through the same launches as any call; a stand-in for the driver
names the target. Exit status 1 if a kernel spills registers or needs more shared memory than there
is.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import pkgutil
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from aurel.kernels.triton.stand_in import TARGETS, StandInDriver

# options that are not printed: the same for all kernels, or printed in another column
HIDDEN = ("num_stages", "LOOP", "UPCAST")


@dataclass(frozen=True)
class Row:
    """Resources of one kernel for one target; memory in bytes."""

    kernel: str
    target: str
    options: str
    registers: int
    spills: int
    shared: int

    def defect(self) -> str | None:
        """Return why this kernel must not be shipped, or None."""
        limit = TARGETS[self.target][3] * 1024
        if self.spills:
            return "spills"
        return "too much shared memory" if self.shared > limit else None


def modules() -> list[Any]:
    """Return the modules of this package that have `examples`."""
    package = import_module("aurel.kernels.triton")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [import_module(f"aurel.kernels.triton.{name}") for name in names]
    return [module for module in found if hasattr(module, "examples")]


def compile_for(target: str, once: bool = False) -> list[Row]:
    """Compile the examples of all modules for one target; with `once`, one launch of a kernel."""
    import triton

    from aurel.kernels.triton.launch import compile_only

    triton.knobs.nvidia.dump_ptxas_log = True
    triton.knobs.compilation.always_compile = True  # a cached kernel has no log
    triton.runtime.driver.set_active(StandInDriver(target))
    log = io.StringIO()
    with compile_only(once) as record, redirect_stdout(log):
        for module in modules():
            for example in module.examples():
                example()
    kernels = {id(compiled): (name, meta, compiled) for name, meta, compiled in record}.values()
    if TARGETS[target][0] == "hip":
        usage = [amd_usage(compiled) for _, _, compiled in kernels]
    else:
        usage = ptxas_usage(log.getvalue())
    return [
        Row(name, target, describe(meta, compiled), *used, compiled.metadata.shared)
        for (name, meta, compiled), used in zip(kernels, usage, strict=True)
    ]


def ptxas_usage(log: str) -> list[tuple[int, int]]:
    """Return registers and spilled bytes of each kernel in a log of ptxas, in order."""
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    registers = re.findall(r"Used (\d+) registers", log)
    return [
        (int(used), int(stores) + int(loads))
        for used, (stores, loads) in zip(registers, spills, strict=True)
    ]


def amd_usage(compiled: Any) -> tuple[int, int]:
    """Return vector registers, and bytes a thread spills to memory, of one kernel.

    (A scalar register that is put into a lane of a vector register is counted among those.)
    """
    assembly = compiled.asm["amdgcn"]

    def count(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", assembly)[1])  # type: ignore[index]

    return count("vgpr_count"), max(
        4 * count("vgpr_spill_count"), count("private_segment_fixed_size")
    )


def describe(meta: dict[str, Any], compiled: Any) -> str:
    """Return the launch options in short, with the type of the first argument."""
    shown = {name: value for name, value in meta.items() if name not in HIDDEN}
    kind = next(iter(compiled.src.signature.values()))
    return " ".join([kind, *(f"{name}={value}" for name, value in shown.items())])


def compile_all(targets: Sequence[str], once: bool = False, workers: int = 2) -> list[Row]:
    """Compile everything for each target, in processes that do not interpret."""
    os.environ.pop("TRITON_INTERPRET", None)
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        os.environ["TRITON_CACHE_DIR"] = cache
        return [row for rows in pool.map(partial(compile_for, once=once), targets) for row in rows]


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--once", action="store_true", help="one launch of each kernel")
    options = parser.parse_args()
    if unknown := [target for target in options.targets if target not in TARGETS]:
        parser.error(f"targets must be among {', '.join(TARGETS)}, got {', '.join(unknown)}")
    rows = compile_all(options.targets or list(TARGETS), options.once)
    print(f"{'kernel':<26}{'target':<8}{'registers':>9}{'spills':>8}{'shared':>8}  options")
    for row in rows:
        numbers = f"{row.registers:>9}{row.spills:>8}{row.shared:>8}"
        print(f"{row.kernel:<26}{row.target:<8}{numbers}  {row.options}")
    defects = [row for row in rows if row.defect()]
    for row in defects:
        print(f"{row.kernel} for {row.target} {row.defect()}: {row.options}", file=sys.stderr)
    print(f"{len(rows)} kernels compiled, {len(defects)} unfit")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())

"""Test the kernels on a CUDA GPU, then measure them: benchmarks/results/<gpu>.json.

    PYTHONPATH=.:kernels python benchmarks/gpu.py

Goes on after a failure, so that one run tells everything; exit status 1 if anything failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


def main() -> int:
    if not torch.cuda.is_available():
        print("there is no CUDA device", file=sys.stderr)
        return 1
    name = torch.cuda.get_device_name()
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    results = f"benchmarks/results/{slug}.json"
    print(f"{name}, torch {torch.__version__}", flush=True)
    # Compiling is most of the work of the tests and waits for one core: all files at a time.
    tests = sorted(ROOT.glob("tests/kernels/test_*.py"))
    checks = {t.stem: [*PYTEST, str(t)] for t in tests if t.stem != "test_compile"}
    if shutil.which("compute-sanitizer"):
        kernels = [sys.executable, "tests/kernels/every_kernel.py"]
        sanitizer = ["compute-sanitizer", "--error-exitcode", "1", "--tool"]
        # Libraries ask the driver for functions that it may lack: such errors are theirs.
        checks["memcheck"] = [*sanitizer, "memcheck", "--report-api-errors", "no", *kernels]
        checks["racecheck"] = [*sanitizer, "racecheck", *kernels]
    measure = ["benchmarks", "--device", "cuda", "--benchmark-quiet", "--results", results]
    failed = [*run(checks), *run({"benchmarks": [*PYTEST, *measure]})]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def run(commands: dict[str, list[str]]) -> list[str]:
    """Run commands side by side, print what each says, and return the names of those that fail."""
    start = time.perf_counter()
    processes = {name: started(command) for name, command in commands.items()}
    failed = []
    for name, process in processes.items():
        print(f"--- {name}: {' '.join(commands[name])}", flush=True)
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
        status = process.wait()
        print(f"--- {name}: status {status}, {time.perf_counter() - start:.0f} s", flush=True)
        failed += [name] if status else []
    return failed


def started(command: list[str]) -> subprocess.Popen[str]:
    """Start a command whose output, errors included, can be read."""
    environment = dict(os.environ)
    if command[0] == "compute-sanitizer":
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # each tensor in memory of its own
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **streams)


if __name__ == "__main__":
    sys.exit(main())

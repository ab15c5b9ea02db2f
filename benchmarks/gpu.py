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
    steps = {
        "correctness": [*PYTEST, "tests/kernels", "--deselect", "tests/kernels/test_compile.py"]
    }
    if shutil.which("compute-sanitizer"):
        for tool in ("memcheck", "racecheck"):
            steps[tool] = [
                *("compute-sanitizer", "--tool", tool, "--error-exitcode", "1"),
                *(sys.executable, "tests/kernels/every_kernel.py"),
            ]
    measure = ["benchmarks", "--device", "cuda", "--benchmark-quiet", "--results", results]
    steps["benchmarks"] = [*PYTEST, *measure]
    failed = [step for step, command in steps.items() if not passed(step, command)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def passed(step: str, command: list[str]) -> bool:
    """Run one step, tell how it ended and how long it took."""
    print(f"--- {step}: {' '.join(command)}", flush=True)
    environment = dict(os.environ)
    if command[0] == "compute-sanitizer":
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # each tensor in memory of its own
    start = time.perf_counter()
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    print(f"--- {step}: status {status}, {time.perf_counter() - start:.0f} s", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())

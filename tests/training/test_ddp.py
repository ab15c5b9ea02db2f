"""Two processes give the result of one.

The model has no batch norm, whose statistics are those of a process unless trainer.sync_batchnorm
is set. Most labels of every third image are unknown, so that processes have other numbers of them.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fit_script
import pytest
import torch

from aurel.models.checkpoint import load_model, read_checkpoint


def start(*arguments: object, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, fit_script.__file__, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    return subprocess.Popen(
        command, env={**environment, "OMP_NUM_THREADS": "1"}, stderr=stderr, text=True
    )


def with_an_odd_test_part(stripes: Path, root: Path) -> Path:
    """Return a copy of the data with 15 test images, which two processes share unevenly."""
    shutil.copytree(stripes, root)
    for file in (root / "list").glob("*train_label*"):
        lines = file.read_text().split("\n")
        lines[::3] = [" ".join([line.split()[0], *["9"] * 11]) for line in lines[::3]]
        file.write_text("\n".join(lines))
    for file in (root / "list").glob("*test*"):
        file.write_text("\n".join(file.read_text().split("\n")[:-1]))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("select_on", ["validation", "test"])
def test_two_processes_train_and_score_as_one(
    select_on: str, stripes: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    root = with_an_odd_test_part(stripes, tmp_path / "BP4D")
    two_processes = start(root, outs[1], 2, select_on)
    fit_script.run(str(root), str(outs[0]), 1, select_on)
    _, stderr = two_processes.communicate(timeout=300)
    assert two_processes.returncode == 0, stderr
    files = [out / "checkpoints" / "last.ckpt" for out in outs]
    one, two = (read_checkpoint(file).state_dict for file in files)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    rows = [list(csv.DictReader((out / "history.csv").open())) for out in outs]
    for row_of_one, row_of_two in zip(*rows, strict=True):
        for column in ("train/loss", "val/f1", "val/auc", "val/accuracy"):
            assert abs(float(row_of_one[column]) - float(row_of_two[column])) < 1e-5, column


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "number"), [(0, "SIGKILL"), (1, "SIGKILL"), (1, "SIGSTOP")])
def test_the_other_process_ends_when_one_is_lost(
    rank: int, number: str, stripes: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    begin = time.monotonic()
    with log.open("w") as stderr:
        first = start(stripes, tmp_path / "run", 2, rank, number, stderr=stderr)
        first.wait(timeout=180)
    pids = [int(line) for line in log.read_text().splitlines() if line.isdigit()]
    assert pids[0] == first.pid and len(pids) == 2
    if number == "SIGSTOP":
        os.kill(pids[1], signal.SIGKILL)
    while running(pids[1]) and time.monotonic() - begin < 180:
        time.sleep(0.1)
    assert not running(pids[1])
    # Lightning kills the first process some seconds after another one, if it still ends itself.
    ends = (-signal.SIGKILL,) if rank == 0 else (2, -signal.SIGKILL)
    assert first.returncode in ends, log.read_text()
    lines = [line for line in log.read_text().splitlines() if line.startswith("aurel: error")]
    assert len(lines) == 1 and "another process of this run ended, or does not" in lines[0]
    assert "Traceback" not in log.read_text()
    load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

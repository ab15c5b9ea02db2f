"""Two processes give the result of one.

The model has no batch norm (whose statistics are those of a process unless trainer.sync_batchnorm
is set) and every label is known (a process takes the mean over its own known labels).
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import fit_script
import torch

from aurel.models.checkpoint import read_checkpoint


def test_two_processes_train_and_score_as_one(stripes: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, fit_script.__file__, str(stripes), str(outs[1]), "2"]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    two_processes = subprocess.Popen(
        command, env={**environment, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    fit_script.run(str(stripes), str(outs[0]), devices=1)
    _, stderr = two_processes.communicate(timeout=300)
    assert two_processes.returncode == 0, stderr
    files = [out / "checkpoints" / "last.ckpt" for out in outs]
    one, two = (read_checkpoint(file).state_dict for file in files)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    rows = [list(csv.DictReader((out / "history.csv").open())) for out in outs]
    for row_of_one, row_of_two in zip(*rows, strict=True):
        for column in ("train/loss", "val/f1", "val/auc"):
            assert abs(float(row_of_one[column]) - float(row_of_two[column])) < 1e-5, column

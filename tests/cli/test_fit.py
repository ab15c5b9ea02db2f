"""Run `aurel fit` and `aurel test` by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from aurel.cli.main import main
from aurel.models.checkpoint import load_model

SMALL = """
model: {name: me_graphau_stage1, backbone: test_resnet, options: {channels: 8}}
data:
  dataset: synthetic
  batch_size: 8
  num_workers: 0
  resize: 36
  crop: 32
  validation: 0.3
  synthetic: {subjects: 9, per_subject: 4, size: 36}
trainer: {max_epochs: 1, accelerator: cpu, devices: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def test_fit_and_then_test(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shared = ["--config", str(recipe), "--out", str(out)]
    assert main(["fit", *shared]) == 0
    output = capsys.readouterr().out
    assert "synthetic, fold 1: 16 training images of 4 subjects, 8 validation images of 2" in output
    assert "epoch  1/1  loss" in output and str(out / "checkpoints" / "best.ckpt") in output
    assert load_model(out / "checkpoints" / "best.ckpt").aus.name == "BP4D"

    assert main(["test", "--config", str(out / "config.yaml")]) == 0
    output = capsys.readouterr().out
    assert "AU24" in output and "mean" in output and "positives" in output
    metrics = json.loads((out / "results.json").read_text())
    assert metrics["fold"] == 1 and metrics["select_on"] == "validation"
    assert metrics["scores"]["AU12"]["known"] == 12
    assert metrics["visible"]["AU12"]["known"] + metrics["hidden"]["AU12"]["known"] == 12

    assert main(["fit", *shared]) == 2
    assert "out must be a folder without a run" in capsys.readouterr().err
    assert main(["fit", *shared, "--ckpt_path", "last", "--trainer.max_epochs", "2"]) == 0
    assert "epoch  2/2" in capsys.readouterr().out

    best = str(out / "checkpoints" / "best.ckpt")
    assert main(["test", *shared, "--ckpt_path", best, "--data.fold", "2"]) == 2
    assert "trained on synthetic fold 1" in capsys.readouterr().err
    assert main(["test", *shared, "--model.name", "sacl"]) == 2
    assert "must hold a sacl, got a me_graphau_stage1" in capsys.readouterr().err
    assert main(["test", *shared, "--data.aus", "[1, 2]"]) == 2
    assert "must be for the AUs of the data, AU01, AU02" in capsys.readouterr().err


def test_selection_on_the_test_fold_is_reported(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--config", str(recipe), "--out", str(tmp_path / "run")]
    assert main(["fit", *shared, "--data.select_on", "test"]) == 0
    assert "warning: the best epoch is chosen on the test fold" in capsys.readouterr().out
    assert main(["test", *shared]) == 0
    assert "warning: the best epoch was chosen on this fold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.name", "sackl"], "that of a model, got 'sackl'"),
        (["--model.name", "sackl", "--data.dataset", "BP4D"], "that of a model, got 'sackl'"),
        (["--model.backbone", "resnet7"], "resnet7"),
        (["--model.options", "{k: 13}"], "k must be"),
        (["--data.dataset", "BP4D"], "data.root must be the folder"),
        (["--trainer.devices", "0"], "trainer: "),
        (["--data.batch_size", "17"], "batch_size must be at most 16"),
        (["--trainer.devices", "3", "--trainer.strategy", "ddp"], "batch_size must be at most 5"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert main(["fit", "--config", str(recipe), "--out", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_one_run(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "aurel.cli.main", "fit", "--config", str(recipe), "--out", str(out)]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    for line in ("model       me", "epoch  1/1", "checkpoint  "):
        assert run.stdout.count(line) == 1
    # 16 images, 8 a process: one process alone would take two steps.
    last = out / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 1
    assert load_model(out / "checkpoints" / "best.ckpt").aus.name == "BP4D"


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "aurel.cli.main", "fit", "--config", str(recipe)]
    command += ["--out", str(out), "--trainer.max_epochs", "5000"]
    # A shell that runs the tests in the background ignores Ctrl-C, and so would its children.
    accept_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = subprocess.Popen(command, **pipes, text=True, preexec_fn=accept_ctrl_c)
    last = out / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 200
    while not last.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=100)
    assert run.returncode == 130, stderr
    assert f"aurel: interrupted; the last checkpoint is {last}" in stderr
    assert "Traceback" not in stderr
    load_model(last)

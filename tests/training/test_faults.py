"""Faults in a run: one clear error, and the last checkpoint is whole."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_runs import options
from lightning.pytorch import Callback, Trainer

from aurel.models.checkpoint import load_model
from aurel.training.run import check_free, checkpoint_file, fit
from aurel.training.run_lock import hold_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")
TESTS = str(Path(__file__).resolve().parents[1])


class Broken(Callback):
    """Make the weights NaN after a step."""

    def __init__(self, step: int, value: float = float("nan")) -> None:
        self.step, self.value = step, value

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            pl_module.model.linear.bias.data.fill_(self.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loss_that_is_nan_stops_the_run_and_keeps_the_batch(
    workers: int, stripes: Path, tmp_path: Path
) -> None:
    run = options(stripes, tmp_path / "run", data__num_workers=workers)
    message = r"loss must be finite, got nan in batch 4 of epoch 2; .*nan_batch.pt"
    with pytest.raises(ValueError, match=message):
        fit(run, callbacks=[Broken(11)])
    kept = torch.load(tmp_path / "run" / "nan_batch.pt", weights_only=True)
    assert kept["image"].shape == (4, 3, 16, 16) and kept["labels"].shape == (4, 12)
    assert (kept["epoch"], kept["batch"], kept["rank"]) == (1, 3, 0)
    assert kept["loss"].isnan()
    assert len(kept["sources"]) == 4
    assert all((stripes / "img" / name).is_file() for name in kept["sources"])
    last = checkpoint_file(tmp_path / "run", "last")
    assert all(torch.isfinite(t).all() for t in load_model(last).state_dict().values())
    fit(run, last)  # the cause is gone: the run continues


def test_an_image_that_holds_nan_is_named_as_the_cause(stripes: Path, tmp_path: Path) -> None:
    class NanImage(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: Any, batch: Any, _: int
        ) -> None:
            batch["image"][0, 0, 0, 0] = float("inf")

    run = options(stripes, tmp_path / "run")
    with pytest.raises(ValueError, match="finite, got nan.*; its images hold NaN or infinite"):
        fit(run, callbacks=[NanImage()])
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_named_with_its_list_and_line(
    workers: int, stripes: Path, tmp_path: Path
) -> None:
    root = tmp_path / "BP4D"
    shutil.copytree(stripes, root)
    (root / "img" / "F002" / "T1" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n half a picture")
    run = options(root, tmp_path / "run", data__num_workers=workers, data__validation=0.0)
    lists = "BP4D_train_img_path_fold1.txt"
    with pytest.raises(ValueError, match=rf"F002/T1/3.png cannot .*{lists}, line 12\)"):
        fit(run)


def test_a_killed_reader_is_one_clear_line(stripes: Path, tmp_path: Path) -> None:
    class KillReaders(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 20:
                for child in children(os.getpid()):
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.5)

    run = options(stripes, tmp_path / "run", data__num_workers=1, data__batch_size=2)
    run.trainer.max_epochs = 3
    with pytest.raises(ChildProcessError, match="a process that reads data ended"):
        fit(run, callbacks=[KillReaders()])
    load_model(checkpoint_file(tmp_path / "run", "last"))


def children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(number) for task in tasks for number in task.read_text().split()]


def test_a_full_disk_names_the_file_and_the_space(stripes: Path, tmp_path: Path) -> None:
    class FullDisk(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.current_epoch == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (3000, unlimited))

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    run = options(stripes, tmp_path / "run", logger="none")
    try:
        with pytest.raises(OSError, match=r"too large .* MB are free; .*(best|last).ckpt"):
            fit(run, callbacks=[FullDisk()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    last = checkpoint_file(tmp_path / "run", "last")
    assert torch.load(last, weights_only=True)["epoch"] == 1
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


HOLD = """
import sys, time
from pathlib import Path
from aurel.training.run_lock import hold_folder
with hold_folder(Path(sys.argv[1])):
    import os
    if os.fork() == 0:  # as a process that reads data, which ends a little later
        time.sleep(2)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_run_into_a_folder_is_refused_until_the_first_is_killed(
    stripes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    run = options(stripes, folder, trainer__max_epochs=1)
    expected = rf"that no other run writes, got .*run: process {first.pid} on .* writes it; wait"
    for second in (lambda: fit(run), lambda: check_free(folder, None)):
        with pytest.raises(ValueError, match=expected):
            second()
    assert not (folder / "checkpoints").exists()
    first.send_signal(signal.SIGKILL)
    first.wait()
    fit(run)  # waits for the process that reads data
    assert checkpoint_file(folder, "last").is_file()
    with hold_folder(folder):
        pass


def test_the_lock_ends_with_the_run_however_it_ends(stripes: Path, tmp_path: Path) -> None:
    run = options(stripes, tmp_path / "run", trainer__max_epochs=1)
    with pytest.raises(ValueError, match="finite"):
        fit(run, callbacks=[Broken(1)])
    fit(run)


def test_threads_do_not_write_one_folder_either(tmp_path: Path) -> None:
    errors: list[str] = []

    def second() -> None:
        try:
            with hold_folder(tmp_path):
                pass
        except ValueError as error:
            errors.append(str(error))

    with hold_folder(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(errors) == 1 and f"process {os.getpid()}" in errors[0]

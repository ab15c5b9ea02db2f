"""Complete runs with a very small model."""

from __future__ import annotations

import csv
import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_runs import options, same, weights
from lightning.pytorch import Callback, Trainer

from aurel.models.checkpoint import load_model, read_checkpoint
from aurel.models.relation_head import RelationHead
from aurel.training.datasets import training_splits
from aurel.training.options import DataOptions, ModelOptions
from aurel.training.run import checkpoint_file, fit, run_folder
from aurel.training.scoring import score

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


class StopAfter(Callback):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.epoch, self.error = epoch, error

    def on_train_batch_end(self, trainer: Trainer, *rest: Any, **more: Any) -> None:
        if trainer.current_epoch == self.epoch and trainer.global_step % 6 == 3:
            raise self.error


def test_a_run_learns_and_writes_all_its_files(stripes: Path, tmp_path: Path) -> None:
    chosen = options(stripes, tmp_path / "run", trainer__max_epochs=12)
    task = fit(chosen)
    assert task.scores["AU01"]["f1"] > 0.8
    folder = run_folder(chosen)
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == [f"{epoch}.0" for epoch in range(12)]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    assert any((folder / "tensorboard").glob("events*"))
    best = read_checkpoint(checkpoint_file(folder, None))
    assert checkpoint_file(folder, None).name == "best.ckpt"
    assert best.aus.name == "BP4D" and best.model == "tiny"
    assert best.metadata["fold"] == 1 and best.metadata["image_size"] == 16
    held = best.metadata["validation_subjects"]
    assert len(held) == 1 and not set(held) & set(best.metadata["train_subjects"])
    model = load_model(checkpoint_file(folder, "best"))
    assert model.trained_on == (chosen.data.dataset,)
    assert model.config.image_size == 16 and not model.training
    tested = score(chosen, checkpoint_file(folder, "best"))
    assert tested.scores["AU01"]["known"] == 16
    assert tested.scores["mean"]["f1"] == pytest.approx(
        sum(row["f1"] for au, row in tested.scores.items() if au != "mean") / 12
    )


@pytest.mark.parametrize(("ema", "workers"), [(None, 0), (0.9, 0), (None, 2)])
def test_a_resumed_run_gives_the_result_of_a_run_without_a_stop(
    stripes: Path, tmp_path: Path, ema: float | None, workers: int
) -> None:
    changes = {"optimizer__ema_decay": ema, "data__num_workers": workers}
    whole = options(stripes, tmp_path / "whole", **changes)
    fit(whole)
    stopped = options(stripes, tmp_path / "stopped", **changes)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, callbacks=[StopAfter(2)])
    last = checkpoint_file(run_folder(stopped), "last")
    assert read_checkpoint(last).metadata["seed"] == 3
    torch.manual_seed(99)
    fit(stopped, resume=last)
    for name in ("last", "best"):
        files = [checkpoint_file(run_folder(run), name) for run in (whole, stopped)]
        assert same(*map(weights, files)), name
    histories = [(run_folder(run) / "history.csv").read_text() for run in (whole, stopped)]
    assert histories[0] == histories[1]


def test_the_average_of_the_weights_is_what_is_saved(stripes: Path, tmp_path: Path) -> None:
    plain, averaged = (
        options(stripes, tmp_path / str(ema), optimizer__ema_decay=ema) for ema in (None, 0.9)
    )
    fit(plain)
    fit(averaged)
    raw, average = (checkpoint_file(run_folder(run), "last") for run in (plain, averaged))
    assert not same(weights(raw), weights(average))
    current = torch.load(average, weights_only=True)["current_model_state"]
    assert same(weights(raw), {key.removeprefix("model."): current[key] for key in current})


def test_a_full_disk_leaves_the_last_complete_epoch(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(stripes, tmp_path / "run")
    really_save, calls = torch.save, []

    def disk_that_fills(content: Any, file: Any) -> None:
        calls.append(content["epoch"])
        if content["epoch"] == 2:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        really_save(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", disk_that_fills)
        with pytest.raises(OSError, match="No space left"):
            fit(chosen)
    assert 2 in calls
    last = checkpoint_file(run_folder(chosen), "last")
    assert torch.load(last, weights_only=True)["epoch"] == 1
    assert not list(last.parent.glob("*.partial*"))
    fit(chosen, resume=last)
    assert torch.load(last, weights_only=True)["epoch"] == 3


def test_a_folder_that_holds_a_run_is_not_overwritten(stripes: Path, tmp_path: Path) -> None:
    chosen = options(stripes, tmp_path / "run", trainer__max_epochs=1)
    fit(chosen)
    with pytest.raises(ValueError, match="folder without a run, got .*: resume .* --ckpt_path"):
        fit(chosen)
    last = checkpoint_file(run_folder(chosen), "last")
    with pytest.raises(ValueError, match="must be a checkpoint of this run, .* another seed;"):
        fit(replace(chosen, seed=4), resume=last)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint .*nowhere.ckpt"):
        checkpoint_file(run_folder(chosen), "nowhere.ckpt")


def test_selection_on_the_test_fold_takes_all_training_people(
    stripes: Path, tmp_path: Path
) -> None:
    chosen = options(stripes, tmp_path / "run", trainer__max_epochs=1, data__select_on="test")
    fit(chosen)
    metadata = read_checkpoint(checkpoint_file(run_folder(chosen), "best")).metadata
    assert metadata["select_on"] == "test" and metadata["validation_subjects"] == []
    assert len(metadata["train_subjects"]) == 5


def test_without_validation_the_last_epoch_is_kept(stripes: Path, tmp_path: Path) -> None:
    chosen = options(stripes, tmp_path / "run", trainer__max_epochs=1, data__validation=0.0)
    fit(chosen)
    assert checkpoint_file(run_folder(chosen), None).name == "last.ckpt"


def test_a_checkpoint_is_not_tested_on_people_it_has_seen(stripes: Path, tmp_path: Path) -> None:
    chosen = options(stripes, tmp_path / "run", trainer__max_epochs=1)
    fit(chosen)
    best = checkpoint_file(run_folder(chosen), "best")
    other = tmp_path / "lists"
    other.mkdir()
    for kind in ("img_path", "label"):
        text = (stripes / "list" / f"BP4D_train_{kind}_fold1.txt").read_text()
        for fold in (1, 2):
            (other / f"BP4D_test_{kind}_fold{fold}.txt").write_text(text)
    fold2 = replace(chosen, data=replace(chosen.data, lists=str(other), fold=2))
    with pytest.raises(ValueError, match="data.fold must be 1, .*got 2: .*trained on BP4D fold 1"):
        score(fold2, best)
    seen = replace(chosen, data=replace(chosen.data, lists=str(other)))
    with pytest.raises(ValueError, match="no subject in common, got 5"):
        score(seen, best)


def test_training_and_test_people_must_differ(stripes: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in ("train", "test"):
        for kind in ("img_path", "label"):
            text = (stripes / "list" / f"BP4D_train_{kind}_fold1.txt").read_text()
            (lists / f"BP4D_{split}_{kind}_fold1.txt").write_text(text)
    with pytest.raises(ValueError, match="train and test must have no subject in common, got 5"):
        training_splits(DataOptions(root=str(stripes), lists=str(lists)))


@pytest.mark.parametrize("unknown", [False, True])
def test_accumulated_gradients_are_those_of_the_larger_batch(
    stripes: Path, tmp_path: Path, unknown: bool
) -> None:
    lists = stripes / "list"
    if unknown:
        lists = tmp_path / "lists"
        lists.mkdir()
        for file in (stripes / "list").iterdir():
            lines = file.read_text().splitlines()
            if "train_label" in file.name:
                lines[::3] = ["9 " * 10 + "0 0" for _ in lines[::3]]
            (lists / file.name).write_text("\n".join(lines))
    shared: dict[str, Any] = {
        "trainer__max_epochs": 2, "data__flip": 0.0, "data__brightness": 0.0,
        "data__lists": str(lists), "optimizer__name": "sgd",
        "data__contrast": 0.0, "data__saturation": 0.0, "data__resize": 16,
    }  # fmt: skip
    large = options(stripes, tmp_path / "a", data__batch_size=8, **shared)
    small = options(
        stripes, tmp_path / "b", data__batch_size=4, trainer__accumulate_grad_batches=2, **shared
    )
    fit(large)
    fit(small)
    first, second = (weights(checkpoint_file(run_folder(run), "last")) for run in (large, small))
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-3, atol=1e-4)


def test_clipping_and_mixed_precision_reach_the_trainer(stripes: Path, tmp_path: Path) -> None:
    plain = options(stripes, tmp_path / "plain", trainer__max_epochs=1, optimizer__name="sgd")
    fit(plain)
    reference = weights(checkpoint_file(run_folder(plain), "last"))
    for number, change in enumerate(
        ({"trainer__gradient_clip_val": 1e-3}, {"trainer__precision": "bf16-mixed"})
    ):
        changed = options(
            stripes,
            tmp_path / str(number),
            trainer__max_epochs=1,
            optimizer__name="sgd",
            **change,
        )
        fit(changed)
        assert not same(reference, weights(checkpoint_file(run_folder(changed), "last")))


def test_training_from_another_models_weights(stripes: Path, tmp_path: Path) -> None:
    first = options(stripes, tmp_path / "first_fold1", trainer__max_epochs=1)
    fit(first)
    source = checkpoint_file(run_folder(first), "last")
    pattern = str(source).replace("fold1", "fold{fold}")
    second = options(
        stripes,
        tmp_path / "second",
        trainer__max_epochs=1,
        optimizer__lr=0.0,
        model__init_from=pattern,
    )
    fit(second)
    assert same(weights(source), weights(checkpoint_file(run_folder(second), "last")))


def test_couplings_are_fitted_where_no_checkpoint_has_them(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "relation_head.inference.couplings"
    still = {"trainer__max_epochs": 1, "optimizer__lr": 0.0}
    head = ModelOptions("tiny", options={"relation_head": "pairwise"})
    plain = options(stripes, tmp_path / "a", **still)
    fitted = options(stripes, tmp_path / "b", model=head, **still)
    fit(plain)
    fit(fitted)
    expected = weights(checkpoint_file(run_folder(fitted), "last"))[name]
    assert expected.any()
    source = checkpoint_file(run_folder(plain), "last")
    started = replace(fitted, model=replace(head, init_from=str(source)), out=str(tmp_path / "c"))
    fit(started)
    assert torch.equal(weights(checkpoint_file(run_folder(started), "last"))[name], expected)
    monkeypatch.setattr(RelationHead, "fit_labels", lambda *_: pytest.fail("fitted again"))
    last = checkpoint_file(run_folder(fitted), "last")
    fit(replace(fitted, trainer=replace(fitted.trainer, max_epochs=2)), last)
    copied = replace(started, model=replace(head, init_from=str(last)), out=str(tmp_path / "d"))
    fit(copied)
    assert torch.equal(weights(checkpoint_file(run_folder(copied), "last"))[name], expected)


def test_history_is_json_and_csv_friendly(stripes: Path, tmp_path: Path) -> None:
    chosen = options(stripes, tmp_path / "run", trainer__max_epochs=1)
    fit(chosen)
    row = next(csv.DictReader((run_folder(chosen) / "history.csv").open()))
    assert {"epoch", "train/loss", "train/asymmetric", "val/f1"} <= row.keys()
    json.dumps({key: float(value) for key, value in row.items()})


def test_another_model_cannot_resume_the_run(stripes: Path, tmp_path: Path) -> None:
    chosen = options(stripes, tmp_path / "run", trainer__max_epochs=1)
    fit(chosen)
    last = checkpoint_file(run_folder(chosen), "last")
    other = options(
        stripes, tmp_path / "run", model=ModelOptions("me_graphau_stage1", backbone="resnet18")
    )
    with pytest.raises(ValueError, match=r"of this run, .*model \(tiny there"):
        fit(other, last, config="replaced")
    assert not (run_folder(chosen) / "config.yaml").exists()


def test_regions_without_a_landmark_loss_are_refused(stripes: Path, tmp_path: Path) -> None:
    model = ModelOptions(
        "sacl", backbone="rest_tiny", options={"dims": [16], "depths": [1], "image_size": 32}
    )
    chosen = options(stripes, tmp_path / "run", model=model, losses={"landmark": 0.0})
    with pytest.raises(ValueError, match="landmark must be above 0"):
        fit(chosen)


def test_options_that_the_trainer_refuses_are_value_errors(stripes: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="trainer: "):
        fit(options(stripes, tmp_path / "run", trainer__accelerator="gpu"))

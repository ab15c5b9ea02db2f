"""Run `aurel crossval` and `aurel table` by the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_model
from PIL import Image

from aurel.cli import processes
from aurel.cli.main import main
from aurel.models import registry
from aurel.models.checkpoint import load_model, read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

SMALL = """
model: {name: tiny}
data:
  dataset: synthetic
  batch_size: 8
  num_workers: 0
  resize: 18
  crop: 16
  validation: 0.3
  synthetic: {subjects: 9, per_subject: 6, size: 36}
optimizer: {lr: 0.02}
trainer: {max_epochs: 2, accelerator: cpu, devices: 1}
"""


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    tiny_model.register()
    yield
    del registry._models["tiny"]


class Ended:
    """A process that has run inside of this one."""

    pid = 0

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    wait = poll


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run the commands inside of this process, and return the list of them."""
    called: list[list[str]] = []

    def start(command: list[str], log: Path | None) -> Any:
        arguments = command[3:]
        called.append(arguments)
        return Ended(main(arguments))

    monkeypatch.setattr(processes, "start", start)
    return called


@pytest.fixture
def recipe(tmp_path: Path) -> list[str]:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return ["--config", str(file), "--out", str(tmp_path / "run")]


@pytest.mark.slow
def test_all_folds_are_trained_tested_and_put_into_one_table(
    recipe: list[str],
    commands: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", *recipe, "--folds", "all"]) == 0
    output = capsys.readouterr().out
    assert "people      9, each tested once" in output
    assert [command[0] for command in commands] == ["fit", "test"] * 3
    results = [
        json.loads((tmp_path / f"run/fold{fold}/results.json").read_text()) for fold in (1, 2, 3)
    ]
    people = [person for result in results for person in result["test_subjects"]]
    assert len(people) == len(set(people)) == 9
    for fold, result in enumerate(results, 1):
        assert result["fold"] == fold and result["seed"] == 0
        assert result["people"] == {"train": 4, "validation": 2, "test": 3}
        assert result["select_on"] == "validation" and result["device"] == "cpu"
        assert result["versions"]["torch"] == torch.__version__
        assert "lr: 0.02" in result["recipe"] and "tested_with" not in result
        assert len(result["split_checksum"]) == len(result["test_checksum"]) == 16
        stored = read_checkpoint(tmp_path / f"run/fold{fold}/checkpoints/best.ckpt")
        assert result["thresholds"].keys() == stored.metadata["thresholds"].keys()
        assert result["tuned_scores"]["AU12"]["known"] == 18
    assert len({result["split_checksum"] for result in results}) == 3
    with (tmp_path / "run/table.csv").open(newline="") as file:
        rows = {(row["table"], row["row"]): row for row in csv.DictReader(file)}
    for metric, title in (("f1", "F1"), ("ece", "ECE")):
        values = [100 * result["scores"]["mean"][metric] for result in results]
        row = rows[f"synthetic, {title} in percent", "run"]
        assert float(row["mean"]) == pytest.approx(sum(values) / 3, abs=1e-3)
        assert row["kind"] == "mean"
    assert "folds 1, 2, 3; seed 0; std over 3 folds" in (tmp_path / "run/table.md").read_text()

    # Nothing is run again, and other options are refused.
    commands.clear()
    assert main(["crossval", *recipe]) == 0
    assert commands == [] and "3 in" in capsys.readouterr().out
    assert main(["crossval", *recipe, "--optimizer.lr", "0.1"]) == 2
    assert "with another optimizer.lr" in capsys.readouterr().err
    assert main(["crossval", *recipe, "--trainer.devices", "auto"]) == 0

    # Another seed has a folder of its own, beside the first.
    assert main(["crossval", *recipe, "--seeds", "0,7", "--folds", "2"]) == 0
    assert commands[0][0] == "fit" and (tmp_path / "run/seed7/fold2/results.json").is_file()
    assert len(commands) == 2


def test_a_stopped_fold_continues(
    recipe: list[str],
    commands: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_process = processes.start

    def stopped_in_fold_2(command: list[str], log: Path | None) -> Any:
        fold_2 = "2" in command and command[3] == "fit"
        ended = in_process(command + (["--trainer.max_epochs", "1"] if fold_2 else []), log)
        if fold_2:
            raise KeyboardInterrupt
        return ended

    with monkeypatch.context() as patch:
        patch.setattr(processes, "start", stopped_in_fold_2)
        assert main(["crossval", *recipe, "--folds", "1,2"]) == 130
    assert "1 of 2 runs are finished; the same command continues" in capsys.readouterr().err
    last = tmp_path / "run/fold2/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0
    commands.clear()
    assert main(["crossval", *recipe, "--folds", "1,2"]) == 0
    assert [command[0] for command in commands] == ["fit", "test"]
    assert commands[0][-2:] == ["--ckpt_path", "last"]
    assert torch.load(last, weights_only=True)["epoch"] == 1
    assert len((tmp_path / "run/fold2/history.csv").read_text().splitlines()) == 3
    # Stopped between training and test: the training has nothing left to do.
    (tmp_path / "run/fold2/results.json").unlink()
    assert main(["crossval", *recipe, "--folds", "1,2"]) == 0
    assert (tmp_path / "run/fold2/results.json").is_file()


def test_a_fold_that_fails_leaves_the_results_of_the_others(
    recipe: list[str],
    commands: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_process = processes.start
    killed = Ended(-9)
    monkeypatch.setattr(
        processes, "start", lambda c, log: killed if "2" in c else in_process(c, log)
    )
    assert main(["crossval", *recipe, "--folds", "1,2,3"]) == 2
    output = capsys.readouterr()
    assert "fold 2, seed 0 ended with exit code -9" in output.err
    assert "folds 1, 3 of 3" in output.out


def test_thresholds_are_not_tuned_on_the_test_part(
    recipe: list[str],
    commands: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published = [*recipe, "--data.select_on", "test", "--folds", "1"]
    assert main(["crossval", *published]) == 0
    output = capsys.readouterr().out
    assert "no tuned thresholds, since its protocol has no validation people" in output
    assert "its scores are too high for new people" in output
    assert commands[1][:2] == ["test", "--config"]
    config = ["--config", str(tmp_path / "run/fold1/config.yaml")]
    assert main(["test", "--tune", *config]) == 2
    assert "must be tuned on validation people, got the test part" in capsys.readouterr().err
    none = [*recipe[:2], "--out", str(tmp_path / "none"), "--data.validation", "0"]
    assert main(["fit", *none]) == 0
    assert main(["test", "--tune", *none]) == 2
    assert "must be tuned on validation people, got data without" in capsys.readouterr().err


def test_results_on_other_data_and_of_other_checkpoints_have_their_own_file(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    attributes = tmp_path / "people.csv"
    attributes.write_text("person,sex\n0,f\nsynthetic/3,m\n6,m\n")
    assert main(["fit", *recipe]) == 0
    assert main(["test", *recipe, "--groups", str(attributes)]) == 0
    output = capsys.readouterr().out
    assert "F1 by sex" in output and "m (2 people)" in output and "gap" in output
    own = (out / "results.json").read_bytes()
    groups = json.loads(own)["groups"]["sex"]
    assert groups["groups"]["f"]["people"] == 1 and groups["groups"]["m"]["known"]["AU12"] == 12
    assert main(["test", *recipe, "--ckpt_path", "last"]) == 0
    elsewhere = tmp_path / "elsewhere.ckpt"
    elsewhere.write_bytes((out / "checkpoints/last.ckpt").read_bytes())
    assert main(["test", *recipe, "--ckpt_path", str(elsewhere)]) == 0
    other = write_lists(tmp_path / "Other")
    assert main(["test", *recipe, *other]) == 0
    capsys.readouterr()
    names = sorted(path.name for path in out.glob("results*"))
    assert [name.split("elsewhere")[0] for name in names] == [
        "results.json",
        "results_",
        "results_last.json",
        "results_on_Other.json",
    ]
    assert (out / "results.json").read_bytes() == own
    crossed = json.loads((out / "results_on_Other.json").read_text())
    assert crossed["trained_on"] == {"dataset": "synthetic", "fold": 1}
    assert "dataset: Other" in crossed["tested_with"]
    assert main(["test", "--tune", *recipe, *other]) == 2
    assert "to tune its thresholds, got another dataset" in capsys.readouterr().err


def write_lists(root: Path) -> list[str]:
    """Write list files of BP4D's AUs with a test image; return the options that read them."""
    for split, people in (("test", ["anna"]), ("train", ["berta", "clara"])):
        for person in people:
            (root / "img" / person).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(root / "img" / person / "1.png")
        paths = "".join(f"{person}/1.png\n" for person in people)
        (root / f"Other_{split}_img_path.txt").write_text(paths)
        labels = "1 0 1 0 1 0 1 0 1 0 1 0\n" * len(people)
        (root / f"Other_{split}_label.txt").write_text(labels)
    aus = "[1,2,4,6,7,10,12,14,15,17,23,24]"
    options = {"dataset": "Other", "root": str(root), "fold": "null", "aus": aus}
    return [part for key, value in options.items() for part in (f"--data.{key}", value)]


def test_tuned_thresholds_are_used_where_they_are_asked_for(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *recipe]) == 0
    best = tmp_path / "run/checkpoints/best.ckpt"
    before = load_model(best).state_dict()
    assert main(["test", "--tune", *recipe]) == 0
    assert all(
        torch.equal(before[key], value) for key, value in load_model(best).state_dict().items()
    )
    result = json.loads((tmp_path / "run/results.json").read_text())
    assert result["tuned_scores"]["mean"]["auc"] == result["scores"]["mean"]["auc"]
    assert set(result["thresholds"]) == set(result["aus"])

    photo, out = tmp_path / "photo.png", tmp_path / "out"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(photo)
    command = ["predict", str(photo), "--out", str(out), "--cropped", "--csv-only", "--overwrite"]
    for threshold in ("0.5", "tuned"):
        assert main([*command, "--checkpoint", str(best), "--threshold", threshold]) == 0
        with (out / "tables/photo.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        for name in result["aus"]:
            tuned = result["thresholds"][name]
            limit = tuned if threshold == "tuned" and tuned is not None else 0.5
            assert row[f"{name}_present"] == str(int(float(row[name]) >= limit))
    last = str(tmp_path / "run/checkpoints/last.ckpt")
    capsys.readouterr()
    assert main([*command, "--checkpoint", last, "--threshold", "tuned"]) == 2
    assert "must hold thresholds, got none" in capsys.readouterr().err
    both = ["--checkpoint", last, "--checkpoint", str(best)]
    assert main([*command, *both, "--threshold", "tuned"]) == 2
    assert "must be a number with several checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "4"], "data.fold must be in 1..3, got 4"),
        (["--folds", "1,1"], "folds must be different, got 1,1"),
        (["--folds", "one"], "folds must be 'all' or numbers such as 1,2,3, got 'one'"),
        (["--seeds", "a"], "--seeds must be numbers such as 0,1,2, got 'a'"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--data.dataset", "hybrid"], "got hybrid, which has none"),
        (["--ckpt_path", "last"], "--ckpt_path must be absent"),
    ],
)
def test_bad_options_are_named_before_anything_is_written(
    recipe: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert main(["crossval", *recipe, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["fit", *recipe, "--jobs", "2"]) == 2

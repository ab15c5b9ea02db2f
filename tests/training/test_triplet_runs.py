"""The expression encoder learns from triplets, and GTLE-Net starts from it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aurel.cli.main import main
from aurel.models.checkpoint import load_model, read_checkpoint
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    SyntheticOptions,
    TrainerOptions,
)
from aurel.training.run import checkpoint_file, fit, load_splits, run_folder
from aurel.training.scoring import score
from aurel.training.triplet_datasets import triplet_splits, triplet_test_splits

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def options(out: Path, **data: Any) -> RunOptions:
    faces = SyntheticOptions(subjects=9, per_subject=6, size=36, occlusion=0.0, strength=0.3)
    return RunOptions(
        ModelOptions("expression_encoder", backbone="test_resnet"),
        DataOptions(
            **{
                "dataset": "synthetic",
                "triplets": True,
                "aus": [4, 12, 25],
                "batch_size": 6,
                "num_workers": 0,
                "resize": 36,
                "crop": 32,
                "validation": 0.2,
                "synthetic": faces,
                **data,
            }
        ),
        optimizer=OptimizerOptions(lr=0.005, weight_decay=0.0),
        trainer=TrainerOptions(max_epochs=1, accelerator="cpu", devices=1),
        out=str(out),
    )


def test_encoder_then_gtle_net(tmp_path: Path) -> None:
    pretraining = options(tmp_path / "encoder")
    task = fit(replace(pretraining, trainer=replace(pretraining.trainer, max_epochs=4)))
    row = list(csv.DictReader((tmp_path / "encoder" / "history.csv").open()))
    assert float(row[-1]["train/triplet"]) < float(row[0]["train/triplet"])
    assert float(row[-1]["val/triplets"]) == pytest.approx(task.scores["mean"]["accuracy"])
    best = checkpoint_file(tmp_path / "encoder", "best")
    encoder = load_model(best)
    assert encoder(torch.randn(1, 3, 32, 32)).shape == (1, 16)
    metadata = read_checkpoint(best).metadata
    assert len(metadata["train_subjects"]) == 5 and len(metadata["validation_subjects"]) == 1
    assert not set(metadata["train_subjects"]) & set(metadata["test_subjects"])

    tested = score(pretraining, best).scores["mean"]
    splits = triplet_test_splits(pretraining.data)
    faces = torch.stack([splits.test[index]["image"] for index in range(len(splits.test))])  # type: ignore[index, arg-type]
    with torch.no_grad():
        a, p, n = encoder(faces).unbind(1)
    near, left, right = ((x - y).norm(dim=1) for x, y in ((a, p), (a, n), (p, n)))
    assert tested["accuracy"] == pytest.approx((near < torch.minimum(left, right)).float().mean())
    assert tested.keys() == {"accuracy"}

    model = ModelOptions(
        "gtle_net",
        backbone="test_resnet",
        init_from=str(best),
        options={"widths": [8, 8, 8, 8, 8], "bottlenecks": 0, "classifier_widths": [4, 4]},
    )
    data = replace(pretraining.data, triplets=False, class_weights="none")
    second = replace(pretraining, model=model, data=data, out=str(tmp_path / "gtle"))
    start = replace(second, optimizer=OptimizerOptions("sgd", lr=0.0))
    gtle = fit(start).model
    for name, value in gtle.backbone.net.named_parameters():
        assert torch.equal(value, encoder.net.get_parameter(name)), name
    row = list(csv.DictReader((tmp_path / "gtle" / "history.csv").open()))
    assert 1 < float(row[0]["train/bce_sum"]) < 20
    last = checkpoint_file(tmp_path / "gtle", "last")
    assert score(second, last).scores["AU12"]["known"] == 18
    other_fold = replace(second, data=replace(data, fold=2), out=str(tmp_path / "fold2"))
    with pytest.raises(ValueError, match="data.fold must be 1, .*got 2: .*synthetic fold 1"):
        fit(other_fold)


def test_masks_can_be_supervised_by_landmarks(tmp_path: Path) -> None:
    model = ModelOptions(
        "gtle_net",
        backbone="test_resnet",
        options={"widths": [8, 8, 8, 8, 8], "bottlenecks": 0, "classifier_widths": [4, 4]},
    )
    run = replace(options(tmp_path, triplets=False), model=model, losses={"attention": 1.0})
    fit(run)
    row = next(csv.DictReader((tmp_path / "history.csv").open()))
    loss, parts = (
        float(row["train/loss"]),
        [float(row[f"train/{n}"]) for n in ("bce_sum", "attention")],
    )
    assert loss == pytest.approx(sum(parts), rel=1e-4) and all(parts)
    without = replace(model, options={**model.options, "local_features": "maps"})
    with pytest.raises(ValueError, match="must return `masks` for the loss 'attention'"):
        fit(replace(run, model=without, out=str(tmp_path / "maps")))


def test_triplets_are_for_encoders_alone(tmp_path: Path) -> None:
    single = options(tmp_path / "a", triplets=False)
    with pytest.raises(
        ValueError, match="data.triplets must be True for expression_encoder, which"
    ):
        fit(single)
    au_model = ModelOptions("me_graphau_stage1", backbone="test_resnet")
    with pytest.raises(ValueError, match="data.triplets must be False for me_graphau_stage1"):
        fit(replace(options(tmp_path / "b"), model=au_model))


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    run = options(tmp_path)
    fit(run)
    longer = replace(run, trainer=replace(run.trainer, max_epochs=2))
    fit(longer, resume=checkpoint_file(run_folder(run), "last"))
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["0.0", "1.0"]


@pytest.mark.parametrize("select_on", ["validation", "test"])
def test_embedded_people_are_apart(tmp_path: Path, select_on: str) -> None:
    run = options(tmp_path, select_on=select_on, aus=None)
    splits = load_splits(run)
    protocol = splits.protocol
    assert protocol is not None and splits.aus.name == "BP4D"
    parts = [protocol[f"{part}_subjects"] for part in ("train", "validation", "test")]
    counts = [5, 1, 3] if select_on == "validation" else [6, 0, 3]
    assert list(map(len, parts)) == counts and len(set(sum(parts, []))) == 9
    assert splits.validation is (splits.test if select_on == "test" else splits.validation)
    assert len(splits.train) == 6 * counts[0]  # type: ignore[arg-type]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for person in ("p1", "p2"):
        (tmp_path / "img" / person).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((16, 16, 3), 80 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "img" / person / f"{number}.png")
    for split, person in (("train", "p1"), ("val", "p2"), ("test", "p2")):
        line = " ".join(f"{person}/{number}.png" for number in range(3))
        (tmp_path / f"FEC_{split}_triplet.txt").write_text(f"{line} 3\n{line} 1 1\n")
    return tmp_path


def test_listed_triplets(listed: Path) -> None:
    data = DataOptions("FEC", str(listed), None, triplets=True, resize=16, crop=16)
    splits = triplet_splits(data)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [2, 2, 2]  # type: ignore[arg-type]
    assert splits.protocol is not None and splits.protocol["train_subjects"] == ["FEC/p1"]
    assert not splits.aus.named
    assert len(triplet_test_splits(data).test) == 2  # type: ignore[arg-type]
    (listed / "FEC_val_triplet.txt").unlink()
    assert triplet_splits(data).validation is None
    chosen = triplet_splits(replace(data, select_on="test"))
    assert chosen.validation is chosen.test and chosen.protocol["validation_subjects"] == []  # type: ignore[index]
    (listed / "FEC_test_triplet.txt").write_text("p1/0.png p2/0.png p2/1.png 1")
    with pytest.raises(ValueError, match=r"no subject in common, got 1 \(FEC/p1"):
        triplet_splits(data)
    with pytest.raises(ValueError, match="data.root must be the folder of FEC, got None"):
        triplet_splits(replace(data, root=None))


def test_the_val_list_is_scored_where_there_is_no_test_list(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (listed / "FEC_test_triplet.txt").unlink()
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "model: {name: expression_encoder, backbone: test_resnet}\n"
        f"data: {{dataset: FEC, root: {listed}, fold: null, triplets: true, batch_size: 2, "
        "num_workers: 0, resize: 40, crop: 36, protocol: published}\n"
        "trainer: {max_epochs: 1, accelerator: cpu, devices: 1}\n"
    )
    out = tmp_path / "run"
    assert main(["fit", "--config", str(recipe), "--out", str(out)]) == 0
    scored = capsys.readouterr().out.split("aurel test --config ")[1].split()
    assert main(["test", "--config", "".join(scored)]) == 0
    assert "scored on the val list" in capsys.readouterr().out
    metrics = json.loads((out / "results.json").read_text())
    assert metrics["part"] == "val" and "accuracy" in metrics["scores"]["mean"]
    (listed / "FEC_val_triplet.txt").unlink()
    assert main(["fit", "--config", str(recipe), "--out", str(tmp_path / "other")]) == 2
    assert "holds no FEC_val_triplet.txt" in capsys.readouterr().err

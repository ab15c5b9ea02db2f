"""Runs on intensities from 0 to 5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from aurel.models.checkpoint import read_checkpoint
from aurel.training.datasets import training_splits
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    TrainerOptions,
)
from aurel.training.run import checkpoint_file, fit, run_folder
from aurel.training.scoring import score
from aurel.training.tuning import tune

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> DataOptions:
    """Return data whose color channels show the intensities of two AUs; one is unknown once."""
    root = tmp_path_factory.mktemp("levels")
    generator = torch.Generator().manual_seed(0)
    for split, people in (("train", "abcdef"), ("test", "yz")):
        paths, labels = [], []
        for person in people:
            for number in range(12):
                level = torch.randint(0, 6, (2,), generator=generator)
                pixels = torch.zeros(16, 16, 3, dtype=torch.uint8)
                pixels[..., :2] = (20 + 40 * level).to(torch.uint8)
                path = f"{person}/{number}.png"
                (root / person).mkdir(exist_ok=True)
                Image.fromarray(pixels.numpy()).save(root / path)
                paths.append(path)
                labels.append(" ".join(map(str, level.tolist())))
        labels[0] = "9 3"
        (root / f"Mine_{split}_img_path.txt").write_text("\n".join(paths))
        (root / f"Mine_{split}_label.txt").write_text("\n".join(labels))
    return DataOptions(
        "Mine",
        root=str(root),
        fold=None,
        aus=[6, 12],
        target="intensity",
        batch_size=10,
        num_workers=0,
        resize=16,
        crop=16,
        flip=0.0,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        validation=0.2,
    )


def run_of(data: DataOptions, out: Path, epochs: int) -> RunOptions:
    optimizer = OptimizerOptions(lr=0.02, weight_decay=0.0)
    trainer = TrainerOptions(max_epochs=epochs, accelerator="cpu", devices=1)
    return RunOptions(
        ModelOptions("tiny"), data, optimizer=optimizer, trainer=trainer, out=str(out)
    )


def test_intensities_are_learned_and_scored(levels: DataOptions, tmp_path: Path) -> None:
    options = run_of(replace(levels, batch_size=3), tmp_path / "run", 12)
    fit(options)
    best = checkpoint_file(run_folder(options), "best")
    task = score(options, best)
    for name in ("AU06", "AU12"):
        assert task.scores[name]["icc"] > 0.8 and task.scores[name]["mae"] < 1.2
        assert task.scores[name]["f1"] > 0.8
    assert task.scores["AU06"]["known"] == 23 and task.scores["AU12"]["known"] == 24
    assert torch.tensor(read_checkpoint(best).metadata["cutpoints"]).shape == (2, 5)
    assert (tmp_path / "run/history.csv").read_text().splitlines()[0].count("val/icc") == 1
    assert set(tune(options, best)) == {"AU06", "AU12"}
    # The same model can be scored on occurrence alone.
    (tmp_path / "Mine_test_img_path.txt").write_text("y/0.png\n")
    (tmp_path / "Mine_test_label.txt").write_text("1 0\n")
    binary = replace(levels, target="occurrence", lists=str(tmp_path))
    assert "icc" not in score(replace(options, data=binary), best).scores["mean"]


def test_labels_of_the_parts(levels: DataOptions) -> None:
    splits = training_splits(levels)
    assert splits.cutpoints is not None and splits.train_labels is not None
    assert splits.cutpoints.shape == (2, 5)
    assert torch.cat(splits.train_labels).unique().tolist() == [-1, 0, 1]
    assert splits.class_weights is not None
    item = next(iter(splits.test))  # type: ignore[arg-type]
    assert item["labels"].tolist() == [-1, 3]


def test_combinations_that_cannot_be_are_named(levels: DataOptions, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.target must be occurrence for synthetic"):
        training_splits(DataOptions("synthetic", target="intensity"))
    (tmp_path / "Mine_train_img_path.txt").write_text("a/0.png\nb/0.png\n")
    (tmp_path / "Mine_train_label.txt").write_text("1 0\n0 1\n")
    (tmp_path / "Mine_test_img_path.txt").write_text("y/0.png\n")
    (tmp_path / "Mine_test_label.txt").write_text("1 0\n")
    binary = replace(levels, target="occurrence", lists=str(tmp_path), batch_size=1)
    options = run_of(binary, tmp_path / "run", 1)
    with pytest.raises(ValueError, match="data.target must be intensity for the loss 'ordinal'"):
        fit(replace(options, losses={"ordinal": 1.0}, out=str(tmp_path / "other")))
    fit(options)
    last = checkpoint_file(run_folder(options), "last")
    with pytest.raises(ValueError, match="data.target must be occurrence for .*last.ckpt"):
        score(replace(options, data=levels), last)

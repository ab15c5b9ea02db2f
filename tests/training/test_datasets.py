"""The faces of each part of a run, and the class weights computed from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aurel.data.lists import ListDataset
from aurel.data.transforms import EvalTransform, TrainTransform
from aurel.losses import au_class_weights
from aurel.training import datasets
from aurel.training.data_module import AUDataModule, Splits
from aurel.training.datasets import check_fold, training_splits
from aurel.training.options import DataOptions, SyntheticOptions


def small(root: Path, **changes: Any) -> DataOptions:
    return DataOptions(root=str(root), resize=16, crop=16, **changes)


def test_class_weights_come_from_the_people_that_are_trained_on(stripes: Path) -> None:
    splits = training_splits(small(stripes, validation=0.4), seed=1)
    assert splits.protocol is not None and splits.class_weights is not None
    kept = splits.protocol["train_subjects"]
    data = ListDataset(stripes)
    rows = [f"BP4D/{subject}" in kept for subject in data.subjects]
    assert 0 < sum(rows) < len(rows)
    expected = au_class_weights(data.labels[torch.tensor(rows)])
    torch.testing.assert_close(splits.class_weights, expected)
    assert training_splits(small(stripes, class_weights="none")).class_weights is None


def test_training_frames_are_thinned_and_others_are_not(stripes: Path) -> None:
    whole = training_splits(small(stripes, validation=0.4))
    options = small(stripes, validation=0.4, every=4, rare_aus=[2], rare_every=2)
    splits = training_splits(options)
    train: Any = splits.train
    kept = set(train.indices)
    for index in whole.train.indices:  # type: ignore[union-attr]
        place = index % 8  # in the person's images, of which the fixture has eight
        rare = train.dataset.labels[index, splits.aus.index(2)] == 1
        assert (index in kept) == (place % 4 == 0 or (rare and place % 2 == 0))
    assert len(splits.validation) == len(whole.validation) == 16  # type: ignore[arg-type]
    assert len(splits.test) == len(whole.test) == 16  # type: ignore[arg-type]
    expected = au_class_weights(train.dataset.labels[train.indices])
    torch.testing.assert_close(splits.class_weights, expected)
    with pytest.raises(ValueError, match="au must be in the AU set BP4D .* got AU05"):
        training_splits(small(stripes, every=4, rare_aus=[5], rare_every=2))
    with pytest.raises(ValueError, match=r"data.every must be 1 where data.frames is given, got 4"):
        training_splits(small(stripes, every=4, frames=2))


def test_class_weights_from_the_published_file(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="BP4D_weight_fold1.txt"):
        training_splits(small(stripes, class_weights="file"))
    for file in (stripes / "list").iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "BP4D_train_weight_fold1.txt").write_text("2.0 " * 12)
    splits = training_splits(small(stripes, lists=str(tmp_path), class_weights="file"))
    assert splits.class_weights is not None and splits.class_weights.tolist() == [2.0] * 12


def test_validation_sees_the_training_images_of_others_as_a_test_would(stripes: Path) -> None:
    splits = training_splits(small(stripes, validation=0.4))
    train, validation = splits.train, splits.validation
    assert isinstance(train.dataset.transform, TrainTransform)  # type: ignore[union-attr]
    assert isinstance(validation.dataset.transform, EvalTransform)  # type: ignore[union-attr]
    assert not set(train.indices) & set(validation.indices)  # type: ignore[union-attr]
    assert splits.protocol is not None and splits.protocol["test_subjects"] == [
        "BP4D/F009", "BP4D/M009",
    ]  # fmt: skip


def test_a_val_list_is_used_where_there_is_one(stripes: Path, tmp_path: Path) -> None:
    for file in (stripes / "list").iterdir():
        (tmp_path / file.name).write_text(file.read_text())
        if "test" in file.name:
            (tmp_path / file.name.replace("test", "val")).write_text(file.read_text())
            (tmp_path / file.name).unlink()
    splits = training_splits(small(stripes, lists=str(tmp_path)))
    assert splits.test is None and len(splits.validation) == 16  # type: ignore[arg-type]
    assert splits.protocol is not None and len(splits.protocol["train_subjects"]) == 5
    with pytest.raises(FileNotFoundError, match="BP4D_test_img_path_fold1.txt"):
        datasets.test_splits(small(stripes, lists=str(tmp_path)))


def test_synthetic_folds_are_thirds_of_the_people() -> None:
    faces = SyntheticOptions(subjects=7, per_subject=2, size=32)
    tested: list[str] = []
    for fold in (1, 2, 3):
        options = DataOptions("synthetic", fold=fold, resize=32, crop=32, synthetic=faces)
        splits = datasets.test_splits(options)
        assert splits.protocol is not None
        tested += splits.protocol["test_subjects"]
    assert sorted(tested) == [f"synthetic/{person}" for person in range(7)]
    with pytest.raises(ValueError, match="data.fold must be in 1..3, got 4"):
        datasets.test_splits(DataOptions("synthetic", fold=4, synthetic=faces))
    with pytest.raises(ValueError, match="data.class_weights must be labels or none"):
        training_splits(
            DataOptions("synthetic", resize=32, crop=32, class_weights="file", synthetic=faces)
        )


def test_a_protocol_that_is_silent_passes_and_other_data_may_be_tested() -> None:
    tested = {"dataset": "DISFA", "fold": 2, "test_subjects": ["DISFA/SN001"]}
    check_fold({}, tested)
    trained = {"dataset": "BP4D", "fold": 1, "train_subjects": ["BP4D/F001"]}
    check_fold({**trained, "validation_subjects": []}, tested)
    hybrid = {"dataset": "hybrid", "fold": None, "train_subjects": ["DISFA/SN001"]}
    with pytest.raises(ValueError, match=r"trained on hybrid fold None, tested on DISFA fold 2"):
        check_fold({**hybrid, "validation_subjects": []}, tested)


def test_bad_numbers_for_the_loaders(stripes: Path) -> None:
    splits = training_splits(small(stripes))
    for arguments, message in (
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 1, "num_workers": -1}, "num_workers must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            AUDataModule(splits, **arguments)
    with pytest.raises(ValueError, match=r"batch_size must be at most 32 .*, got 33"):
        AUDataModule(splits, batch_size=33).train_dataloader()
    with pytest.raises(ValueError, match="splits must have test data, got none"):
        AUDataModule(Splits(splits.aus), batch_size=1).test_dataloader()

"""People of folds, checksums of splits, and recipes of the same options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.owner_trees import bp4d

from aurel.data.clips import ListClips
from aurel.data.lists import ListDataset
from aurel.training.checksum import part_checksum, split_checksum
from aurel.training.crossval import check_people, choose_folds
from aurel.training.datasets import training_splits
from aurel.training.options import DataOptions, SyntheticOptions
from aurel.training.recipe_text import PART, differences

ROW = "1 0 1 0 1 0 1 0 1 0 1 0\n"


def write_fold(root: Path, fold: int, train: str, test: str) -> None:
    (root / "list").mkdir(parents=True, exist_ok=True)
    for split, people in (("train", train), ("test", test)):
        names = people.split()
        (root / f"list/BP4D_{split}_img_path_fold{fold}.txt").write_text(
            "".join(f"{name}/T1/1.png\n" for name in names)
        )
        (root / f"list/BP4D_{split}_label_fold{fold}.txt").write_text(ROW * len(names))
        for name in names:
            (root / "img" / name / "T1").mkdir(parents=True, exist_ok=True)
            (root / "img" / name / "T1/1.png").touch()


def test_every_person_is_tested_once(tmp_path: Path) -> None:
    write_fold(tmp_path, 1, "A B C D", "E F")
    write_fold(tmp_path, 2, "A B E F", "C D")
    write_fold(tmp_path, 3, "C D E F", "A B")
    options = DataOptions(root=str(tmp_path))
    assert check_people(options, [1, 2, 3], every=True) == 6
    assert check_people(options, [1, 3], every=False) == 4
    write_fold(tmp_path, 3, "C D E F", "A")
    with pytest.raises(ValueError, match=r"test every person once, got 1 in none \(BP4D/B\)"):
        check_people(options, [1, 2, 3], every=True)
    write_fold(tmp_path, 3, "C D F", "A B E")
    with pytest.raises(ValueError, match="test parts of folds 1 and 3 must have no .*BP4D/E"):
        check_people(options, [1, 2, 3], every=True)
    write_fold(tmp_path, 3, "A C D E F", "A B")
    with pytest.raises(ValueError, match="train and test of fold 3 must have no .*BP4D/A"):
        check_people(options, [1, 2, 3], every=True)


def test_generated_people_are_counted_without_their_faces() -> None:
    options = DataOptions("synthetic", synthetic=SyntheticOptions(subjects=3000))
    assert check_people(options, [1, 2, 3], every=True) == 3000


def test_folds_of_data_sets() -> None:
    assert choose_folds(DataOptions("DISFA"), "all") == [1, 2, 3]
    assert choose_folds(DataOptions("DISFA"), "3,1") == [3, 1]
    own = DataOptions("Mine", aus=[1, 2])
    assert choose_folds(own, "1,5") == [1, 5]
    with pytest.raises(ValueError, match="numbers for Mine, such as 1,2,3, got 'all'"):
        choose_folds(own, "all")


def test_the_checksum_is_of_people_and_labels(stripes: Path) -> None:
    options = DataOptions(root=str(stripes), resize=18, crop=16, validation=0.4)
    splits = training_splits(options, seed=1)
    expected = split_checksum(splits)
    assert split_checksum(training_splits(replace(options, flip=0.0), seed=1)) == expected
    others = {
        split_checksum(training_splits(replace(options, validation=0.2), seed=1)),
        split_checksum(training_splits(replace(options, select_on="test"), seed=1)),
        split_checksum(training_splits(replace(options, every=2), seed=1)),
    }
    assert len(others) == 3 and expected not in others


def test_the_checksum_sees_labels_but_neither_order_nor_clips(tmp_path: Path) -> None:
    (tmp_path / "img/A").mkdir(parents=True)
    rows = [f"A/{number}.png" for number in range(5)]
    for row in rows:
        (tmp_path / "img" / row).touch()

    def dataset(order: list[int], labels: list[str]) -> ListDataset:
        (tmp_path / "Mine_test_img_path.txt").write_text("".join(rows[i] + "\n" for i in order))
        (tmp_path / "Mine_test_label.txt").write_text("".join(labels[i] + "\n" for i in order))
        return ListDataset(tmp_path, "Mine", None, "test", aus=[1, 2])

    labels = ["1 0", "0 0", "-1 1", "0 1", "1 1"]
    images = dataset([0, 1, 2, 3, 4], labels)
    expected = part_checksum(images)
    assert part_checksum(ListClips(images, 2, at_random=False)) == expected
    assert part_checksum(ListClips(images, 2, at_random=True)) == expected
    assert part_checksum(dataset([4, 2, 0, 1, 3], labels)) == expected
    assert part_checksum(dataset([0, 1, 2, 3, 4], ["1 1", *labels[1:]])) != expected
    assert part_checksum(dataset([0, 1, 2, 3, 4], ["-1 0", *labels[1:]])) != expected


def test_recipes_are_compared_by_their_options() -> None:
    first = "seed: 0\ndata: {fold: 1, crop: 224, root: /a}\nmodel: {options: {}}\n"
    second = (
        "# a comment\nmodel:\n  options: {}\ndata:\n  fold: 1\n  crop: 224\n  root: /b\nseed: 0\n"
    )
    assert differences(first, second) == []
    other = second.replace("224", "96").replace("seed: 0", "seed: 1").replace("{}", "{k: 3}")
    assert differences(first, other) == ["data.crop", "model.options", "model.options.k", "seed"]
    assert differences(first, other, PART | {"data.root", "model.options", "model.options.k"}) == [
        "data.crop"
    ]
    with pytest.raises(ValueError, match="must be a YAML mapping, got list"):
        differences("[1]", first)


def test_all_folds_of_an_owners_files(tmp_path: Path) -> None:
    options = DataOptions("BP4D+", root=str(bp4d(tmp_path, ["F001", "F002", "F003", "F004"])))
    assert choose_folds(options, "all") == [1, 2, 3]
    assert check_people(options, [1, 2, 3], every=True) == 4
    with pytest.raises(ValueError, match=r"numbers for BP4D\+"):
        choose_folds(replace(options, layout="lists"), "all")

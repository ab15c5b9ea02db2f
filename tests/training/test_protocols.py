"""Which people a run is trained on, how its epoch is chosen, and which data are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from aurel.cli.errors import one_line
from aurel.cli.main import main
from aurel.data.lists import ListDataset, subject_of
from aurel.data.subjects import normalized_subject
from aurel.losses import au_class_weights
from aurel.training.data_module import AUDataModule, Splits
from aurel.training.datasets import check_start, training_splits
from aurel.training.options import DataOptions
from aurel.training.start import initial_checkpoint


def small(root: Path, **changes: Any) -> DataOptions:
    return DataOptions(root=str(root), resize=16, crop=16, **changes)


def copied_lists(stripes: Path, folder: Path, *without: str) -> Path:
    folder.mkdir()
    for file in (stripes / "list").iterdir():
        if not any(word in file.name for word in without):
            (folder / file.name).write_text(file.read_text())
    return folder


def rewrite(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize("select_on", ["test", "last"])
def test_the_published_protocol_trains_on_everyone(stripes: Path, select_on: Any) -> None:
    splits = training_splits(small(stripes, protocol="published", select_on=select_on))
    assert splits.protocol is not None and splits.class_weights is not None
    assert len(splits.train) == 40 and len(splits.protocol["train_subjects"]) == 5  # type: ignore[arg-type]
    expected = au_class_weights(ListDataset(stripes).labels)
    torch.testing.assert_close(splits.class_weights, expected)
    assert splits.validation is (splits.test if select_on == "test" else None)


def test_held_out_replaces_what_the_recipe_selects_on(stripes: Path) -> None:
    splits = training_splits(
        small(stripes, protocol="held-out", select_on="test", validation=0.2), seed=2
    )
    assert splits.protocol is not None and splits.protocol["select_on"] == "validation"
    held, kept = (splits.protocol[f"{part}_subjects"] for part in ("validation", "train"))
    assert (len(held), len(kept)) == (1, 4) and not set(held) & set(kept)
    data = ListDataset(stripes)
    rows = torch.tensor([f"BP4D/{subject}" in kept for subject in data.subjects])
    torch.testing.assert_close(splits.class_weights, au_class_weights(data.labels[rows]))


def test_a_protocol_without_its_data_is_refused(stripes: Path) -> None:
    with pytest.raises(ValueError, match="select_on must be test or last .* got validation"):
        training_splits(small(stripes, protocol="published"))
    with pytest.raises(ValueError, match=r"validation must be above 0 .* held-out .* got 0"):
        training_splits(small(stripes, protocol="held-out", validation=0.0))


@pytest.mark.parametrize(
    ("part", "kept", "missing"), [("test", "img_path", "label"), ("val", "label", "img_path")]
)
def test_half_of_a_part_is_an_error(
    stripes: Path, tmp_path: Path, part: str, kept: str, missing: str
) -> None:
    lists = copied_lists(stripes, tmp_path / "lists", "test")
    text = (stripes / "list" / f"BP4D_test_{kept}_fold1.txt").read_text()
    (lists / f"BP4D_{part}_{kept}_fold1.txt").write_text(text)
    with pytest.raises(
        (FileNotFoundError, ValueError), match=f"holds no BP4D_{part}_{missing}_fold1"
    ):
        training_splits(small(stripes, lists=str(lists)))


def test_a_data_set_without_the_part_is_none(stripes: Path, tmp_path: Path) -> None:
    lists = copied_lists(stripes, tmp_path / "lists", "test")
    assert training_splits(small(stripes, lists=str(lists))).test is None
    with pytest.raises(FileNotFoundError, match="holds no BP4D_test_img_path_fold1"):
        training_splits(small(stripes, lists=str(lists), select_on="test"))


@pytest.mark.parametrize("spelling", [".//F002", "img/../F002", "f002", "./F002", "F002/."])
def test_one_person_under_two_spellings_is_in_one_part(
    stripes: Path, tmp_path: Path, spelling: str
) -> None:
    lists = copied_lists(stripes, tmp_path / "lists")
    rewrite(lists / "BP4D_test_img_path_fold1.txt", "F009/", f"{spelling}/")
    with pytest.raises(ValueError, match=r"train and test .* got 1 \(BP4D/F002"):
        training_splits(small(stripes, lists=str(lists)))


def test_two_spellings_in_training_are_held_out_together(stripes: Path, tmp_path: Path) -> None:
    lists = copied_lists(stripes, tmp_path / "lists")
    for number in (1, 3):
        rewrite(lists / "BP4D_train_img_path_fold1.txt", f"F002/T1/{number}", f"f002/T1/{number}")
    for seed in range(5):
        splits = training_splits(small(stripes, lists=str(lists), validation=0.2), seed)
        assert len(splits.validation) == 8  # type: ignore[arg-type]


def test_subjects_of_paths() -> None:
    assert subject_of("./img/../F001//T1/2.jpg") == "F001"
    assert subject_of("7.jpg") == "7.jpg"
    assert normalized_subject("BP4D/F001") != normalized_subject("BP4D/F010")


def test_absolute_paths_name_no_subject(stripes: Path, tmp_path: Path) -> None:
    lists = copied_lists(stripes, tmp_path / "lists")
    rewrite(lists / "BP4D_train_img_path_fold1.txt", "F001/T1/0", "/F001/T1/0")
    with pytest.raises(ValueError, match="fold1.txt, line 1: .* relative to the folder"):
        training_splits(small(stripes, lists=str(lists)))


@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_that_are_all_unknown_are_refused(stripes: Path, tmp_path: Path, part: str) -> None:
    lists = copied_lists(stripes, tmp_path / "lists")
    file = lists / f"BP4D_{part}_label_fold1.txt"
    file.write_text("\n".join(["9 " * 12] * len(file.read_text().splitlines())))
    with pytest.raises(ValueError, match=f"the {part} part of BP4D must have a known label"):
        training_splits(small(stripes, lists=str(lists)))
    for kind in ("img_path", "label"):
        (lists / f"BP4D_{part}_{kind}_fold1.txt").write_text("")
    with pytest.raises(ValueError, match="must have an item|must list"):
        training_splits(small(stripes, lists=str(lists)))


@pytest.mark.parametrize(
    ("items", "batch", "steps"), [(18, 8, 3), (15, 8, 2), (100, 9, 11), (9, 8, 1), (16, 8, 2)]
)
def test_a_last_batch_is_dropped_only_where_it_is_small(
    stripes: Path, items: int, batch: int, steps: int
) -> None:
    splits = training_splits(small(stripes))
    data = torch.utils.data.Subset(ListDataset(stripes), [0] * items)
    module = AUDataModule(Splits(splits.aus, train=data), batch_size=batch)
    assert len(module.train_dataloader()) == steps


def test_segments_of_long_runs_are_training_items(stripes: Path) -> None:
    shared: dict[str, Any] = {"frames": 2, "select_on": "last"}
    whole = training_splits(small(stripes, **shared))
    cut = training_splits(small(stripes, segment=3, **shared))
    # Eight frames a person: segments of 2, 3 and 3.
    assert (len(whole.train), len(cut.train)) == (5, 15)  # type: ignore[arg-type]
    assert len(cut.test) == len(whole.test) == 8  # type: ignore[arg-type]
    torch.testing.assert_close(cut.class_weights, whole.class_weights)
    clips: Any = cut.train
    parts = [clips.dataset._frames_of(item) for item in clips.indices]
    assert sorted(frame for part in parts for frame in part) == list(range(40))
    assert [len(part) for part in parts[:3]] == [2, 3, 3]
    with pytest.raises(ValueError, match="segment must be at least 2, got 1"):
        training_splits(small(stripes, segment=1, **shared))
    with pytest.raises(ValueError, match="segment must be null where data.frames is null"):
        training_splits(small(stripes, segment=3))


def test_disfa_in_segments_of_607_frames_has_eight_a_video() -> None:
    from aurel.data.clips import _segments

    assert [len(part) for part in _segments(list(range(4845)), 607)].count(606) == 5
    assert len(_segments(list(range(4845)), 607)) == len(_segments(list(range(4844)), 607)) == 8
    assert len(_segments(list(range(607)), 607)) == 1


def test_a_run_starts_from_the_last_epoch_where_none_was_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pattern = str(tmp_path / "run_fold{fold}" / "best.ckpt")
    with pytest.raises(FileNotFoundError, match="model.init_from: .*best.ckpt"):
        initial_checkpoint(pattern, 2)
    folder = tmp_path / "run_fold2"
    folder.mkdir()
    (folder / "last.ckpt").touch()
    with caplog.at_level(logging.WARNING, "aurel"):
        assert initial_checkpoint(pattern, 2) == folder / "last.ckpt"
    assert "best.ckpt is missing" in caplog.text
    (folder / "best.ckpt").touch()
    assert initial_checkpoint(pattern, 2) == folder / "best.ckpt"


SMALL = """
model: {name: me_graphau_stage1, backbone: test_resnet, options: {channels: 8}}
data:
  dataset: synthetic
  batch_size: 8
  num_workers: 0
  resize: 36
  crop: 32
  protocol: published
  select_on: last
  validation: 0.3
  synthetic: {subjects: 9, per_subject: 4, size: 36}
trainer: {max_epochs: 2, accelerator: cpu, devices: 1}
"""


def test_the_header_names_the_protocol_and_the_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)
    assert main(["fit", "--config", str(recipe), "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "published: all training subjects; the last epoch is kept" in printed
    assert "24 training images of 6 subjects" in printed
    assert "steps       3 an epoch, 6 in all" in printed
    assert not (tmp_path / "a" / "checkpoints" / "best.ckpt").exists()
    shared = ["--config", str(recipe), "--out", str(tmp_path / "b")]
    assert main(["fit", "--protocol", "held-out", *shared]) == 0
    printed = capsys.readouterr().out
    assert "held-out: the best epoch is chosen on 2 other subjects" in printed
    assert (tmp_path / "b" / "checkpoints" / "best.ckpt").exists()
    assert main(["fit", "--protocol=luck", *shared]) == 2


class Broken(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        try:
            raise OSError("inner")
        except OSError as error:
            raise FileNotFoundError(
                "there is no image img/F001/1.jpg, named in list.txt, line 7"
            ) from error


def test_the_message_of_a_worker_is_one_line() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        list(torch.utils.data.DataLoader(Broken(), num_workers=1))
    message = "there is no image img/F001/1.jpg, named in list.txt, line 7"
    assert one_line(caught.value) == message
    assert one_line(FileNotFoundError(message)) == message


def with_val_list(stripes: Path, folder: Path, person: str) -> Path:
    """Copy the lists of `stripes`, of which the frames of `person` become a val list."""
    lists = copied_lists(stripes, folder)
    paths, labels = (
        [line for s in ("train", "test") for line in read_lines(lists, s, kind)]
        for kind in ("img_path", "label")
    )
    rows = [row for row, path in enumerate(paths) if path.startswith(person)]
    for kind, lines in (("img_path", paths), ("label", labels)):
        text = "\n".join(lines[row] for row in rows)
        (lists / f"BP4D_val_{kind}_fold1.txt").write_text(text)
    if person in "".join(read_lines(lists, "train", "img_path")):
        for kind, lines in (("img_path", paths), ("label", labels)):
            kept = [line for row, line in enumerate(lines[:40]) if row not in rows]
            (lists / f"BP4D_train_{kind}_fold1.txt").write_text("\n".join(kept))
    return lists


def read_lines(lists: Path, split: str, kind: str) -> list[str]:
    return (lists / f"BP4D_{split}_{kind}_fold1.txt").read_text().splitlines()


def test_people_of_a_val_list_are_apart_and_named(stripes: Path, tmp_path: Path) -> None:
    lists = with_val_list(stripes, tmp_path / "a", "F003")
    splits = training_splits(small(stripes, lists=str(lists)))
    assert splits.protocol is not None
    assert splits.protocol["validation_subjects"] == ["BP4D/F003"]
    last = training_splits(small(stripes, lists=str(lists), select_on="last"))
    assert last.protocol is not None and last.protocol["validation_subjects"] == []
    lists = with_val_list(stripes, tmp_path / "b", "F009")
    with pytest.raises(ValueError, match=r"val and test must have no .* got 1 \(BP4D/F009\)"):
        training_splits(small(stripes, lists=str(lists)))


def test_a_second_stage_is_held_out_from_a_first_that_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def protocol(select_on: str, train: str, validation: str = "", test: str = "yz") -> Any:
        names = {"train": train, "validation": validation, "test": test}
        people = {f"{part}_subjects": list(letters) for part, letters in names.items()}
        return {"dataset": "BP4D", "fold": 1, "select_on": select_on, **people}

    published, held = protocol("test", "abcd"), protocol("validation", "abc", "d")
    check_start(published, published)
    check_start(held, held)
    check_start(published, {**protocol("validation", "efg", "h", "uv"), "dataset": "DISFA"})
    assert not caplog.records
    with pytest.raises(ValueError, match=r"epoch of model.init_from was chosen .* got 2 \(y, z\)"):
        check_start(published, held)
    with caplog.at_level(logging.WARNING, "aurel"):
        check_start(held, protocol("validation", "bcd", "a"))
    assert "was trained on 1 of the 1 people on whom the epoch is chosen" in caplog.text


def test_shares_and_labels_of_held_out_people_are_checked(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.validation must be in \[0, 1\), got 1.5"):
        training_splits(small(stripes, validation=1.5))
    held = training_splits(small(stripes, validation=0.2)).protocol["validation_subjects"]  # type: ignore[index]
    lists = copied_lists(stripes, tmp_path / "lists")
    paths, labels = (read_lines(lists, "train", kind) for kind in ("img_path", "label"))
    rows = ["9 " * 12 if f"BP4D/{p[:4]}" in held else y for p, y in zip(paths, labels, strict=True)]
    (lists / "BP4D_train_label_fold1.txt").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="the validation part of BP4D must have a known label"):
        training_splits(small(stripes, lists=str(lists), validation=0.2))

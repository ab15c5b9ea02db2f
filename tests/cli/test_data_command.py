"""`aurel data check`, and runs on data in the owners' layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import tiny_model
from helpers.owner_trees import bp4d, disfa, picture, write

from aurel.cli.main import main
from aurel.models import registry
from aurel.models.checkpoint import read_checkpoint
from aurel.training.checksum import split_checksum
from aurel.training.datasets import training_splits
from aurel.training.options import DataOptions
from aurel.training.report import data_report

RECIPE = """
model: {name: tiny}
data: {batch_size: 4, num_workers: 0, resize: 16, crop: 16, validation: 0.3}
trainer: {max_epochs: 2, accelerator: cpu, devices: 1}
"""
BP4D = ["F001", "M007", "F018", "M011", "F003", "F007", "F015"]  # parts 1, 1, 1, 2, 2, 3, 3
DISFA = ["SN001", "SN002", "SN013", "SN018", "SN003"]


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    tiny_model.register()
    yield
    del registry._models["tiny"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write(tmp_path / "recipe.yaml", RECIPE)


def lists(root: Path, test: str = "F007") -> Path:
    """Write lists of two training people and one test person, of which no picture exists."""
    for split, people in (("train", ["F001", "F002"]), ("test", [test])):
        paths = [f"{person}/T1/{frame}.jpg" for person in people for frame in (1, 2)]
        write(root / f"BP4D_{split}_img_path_fold1.txt", "\n".join(paths))
        write(root / f"BP4D_{split}_label_fold1.txt", ("0 " * 12 + "\n") * len(paths))
    return root


@pytest.mark.parametrize(
    ("name", "make", "people"), [("BP4D", bp4d, BP4D), ("DISFA", disfa, DISFA)]
)
def test_a_run_on_the_owners_files(
    name: str, make: object, people: list[str], recipe: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    root = make(tmp_path / name, people)  # type: ignore[operator]
    run = ["--config", str(recipe), "--data.dataset", name, "--data.root", str(root)]
    run += ["--out", str(tmp_path / "run")]
    assert main(["fit", *run]) == 0
    output = capsys.readouterr().out
    assert f"layout      the owner's: {root}" in output and "folds: those of the papers" in output
    assert "rate, known" in output and "AU12" in output
    metadata = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").metadata
    tested = [
        f"{name}/{person}" for person in sorted(people) if person in ("F007", "F015", "SN003")
    ]
    assert metadata["test_subjects"] == tested
    assert main(["test", "--config", str(tmp_path / "run" / "config.yaml")]) == 0
    assert "AU12" in capsys.readouterr().out


def test_check_prints_the_checksum_of_the_run(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = bp4d(tmp_path / "BP4D", BP4D)
    options = DataOptions(root=str(root), resize=16, crop=16, validation=0.3)
    checksum = split_checksum(training_splits(options))
    run = ["--config", str(recipe), "--data.root", str(root)]
    assert main(["data", "check", *run]) == 0
    first = capsys.readouterr().out
    assert f"split       {checksum[:12]}" in first
    assert main(["data", "check", "--data", "bp4d", "--root", str(root), "--data.fold", "2"]) == 0
    second = capsys.readouterr().out
    assert "M011" in second and checksum[:12] not in second
    assert "test        6 items, 2 people: F003, M011" in second


def test_check_names_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = lists(tmp_path / "BP4D")
    check = ["data", "check", "--data", "BP4D", "--root", str(root)]
    assert main(check) == 2
    printed = capsys.readouterr()
    assert "F001/T1/1.jpg" in printed.err and "images do not exist" in printed.err
    assert printed.err.count("\n") == 1 and "rate, known" in printed.out
    lists(root, test="f1")
    assert main(check) == 2
    assert "got 1 (BP4D/F001 = BP4D/f1)" in capsys.readouterr().err
    assert main(["data", "check"]) == 2
    assert "one of --config RECIPE and --data NAME must be given" in capsys.readouterr().err
    assert main(["data", "check", "--data", "BP4D", "--root", str(tmp_path / "none")]) == 2
    assert "none does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["data", "check", "--data", "BP4D", "--root", str(tmp_path / "empty")]) == 2
    assert "and no AUCoding/AU_OCC/F001_T1.csv of the owner's layout" in capsys.readouterr().err


def test_unknown_labels_alone_are_an_error(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = lists(tmp_path / "BP4D")
    for split in ("train", "test"):
        file = root / f"BP4D_{split}_label_fold1.txt"
        file.write_text(file.read_text().replace("0", "9"))
    run = ["--config", str(recipe), "--data.root", str(root), "--data.class_weights", "none"]
    assert main(["fit", *run, "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    assert "the train part of BP4D must have a known label, got only unknown ones" in printed.err


def test_frames_in_videos_can_be_checked_and_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = disfa(tmp_path / "DISFA", DISFA)
    (root / "img").rename(tmp_path / "chips")
    for person in DISFA:
        write(root / "Videos_LeftCamera" / f"LeftVideo{person}_comp.avi", "a film")
    check = ["data", "check", "--data", "DISFA", "--root", str(root)]
    assert main(check) == 2
    printed = capsys.readouterr()
    assert "the pictures are in videos or zip files" in printed.err
    assert "test        4 items, 1 people: SN003" in printed.out
    assert main([*check, "--data.images", str(tmp_path / "chips")]) == 0


def test_the_checksum_is_that_of_people_frames_and_labels(tmp_path: Path) -> None:
    def checksum(root: Path, **changes: object) -> str:
        options = DataOptions(root=str(root), resize=16, crop=16, validation=0, **changes)  # type: ignore[arg-type]
        return split_checksum(training_splits(options))

    owner = bp4d(tmp_path / "owner", BP4D)
    first = checksum(owner)
    assert len(first) == 16 and first == checksum(owner)
    assert checksum(owner, fold=2) != first
    listed = tmp_path / "listed"
    (listed / "img").mkdir(parents=True)
    for split in ("train", "test"):
        people = [p for p in BP4D if (p in ("F007", "F015")) == (split == "test")]
        paths, labels = [], []
        for person in reversed(people):  # in another order, under other names
            for frame in (7, 6, 5):
                shown = (frame + BP4D.index(person)) % 2
                paths.append(f"./{person}/T1/{frame}.png")
                labels.append(f"0 0 0 {1 - shown} 0 0 {shown} 0 0 0 0 0")
        write(listed / f"BP4D_{split}_img_path_fold1.txt", "\r\n".join(paths))
        write(listed / f"BP4D_{split}_label_fold1.txt", "\r\n".join(labels))
    assert checksum(listed) == first
    labels[0] = labels[0].replace("1", "-1")
    write(listed / "BP4D_test_label_fold1.txt", "\n".join(labels))
    assert checksum(listed) != first


def test_the_report_counts_what_was_held_out(tmp_path: Path) -> None:
    root = bp4d(tmp_path, BP4D)
    (root / "Sequences(2D+3D)" / "F001" / "T1" / "0005.jpg").unlink()
    splits = training_splits(DataOptions(root=str(root), resize=16, crop=16, validation=0.3))
    report = data_report(splits)
    names = [part.name for part in report.parts]
    assert names == ["train", "validation", "test"] and not report.errors
    people = [set(part.people) for part in report.parts]
    assert len(set.union(*people)) == sum(map(len, people)) == len(BP4D)
    assert any("1 labeled frames have no picture: F001/T1/5" in note for note in report.notes)
    assert sum(part.items for part in report.parts) == 3 * len(BP4D) - 1
    column = report.aus.index(12)
    assert all(int(part.known[column]) == part.items for part in report.parts)


def test_lists_of_one_fold_decide_the_layout_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = bp4d(tmp_path / "BP4D", BP4D)
    lists(root / "list")
    check = ["data", "check", "--data", "BP4D", "--root", str(root), "--data.fold", "2"]
    assert main(check) == 2
    assert "holds no BP4D_train_img_path_fold2.txt" in (message := capsys.readouterr().err)
    assert "but files of the owner, which --data.layout owner reads" in message
    assert main([*check, "--data.layout", "owner"]) == 0


def test_check_of_a_folder_holds_no_people_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = disfa(tmp_path / "DISFA", DISFA)
    check = ["data", "check", "--data", "DISFA", "--root", str(root)]
    assert main([*check, "--data.target", "intensity", "--data.aus", "[12]"]) == 0
    printed = capsys.readouterr().out
    assert "train       16 items, 4 people" in printed and "validation" not in printed
    labels = training_splits(
        DataOptions("DISFA", str(root), aus=[12], target="intensity", validation=0)
    ).train.dataset.labels  # type: ignore[union-attr]
    rate = (labels > 0).float().mean()  # any intensity
    assert f"AU12             {rate:.3f}       16" in printed


def test_check_of_triplets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = [f"http://server/{name}.jpg,0,0.5,0,1" for name in "abc"]
    for part in ("train", "test"):
        named = ",".join(face.replace("server/", f"server/{part}") for face in faces)
        file = tmp_path / f"faceexp-comparison-data-{part}-public.csv"
        write(file, f"{named},TWO_CLASS_TRIPLET,x,1,y,1\n")
        for name in "abc":
            picture(tmp_path / "images" / f"{part}{name}.jpg")
    assert main(["data", "check", "--data", "FEC", "--root", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert "validation  1 items, 3 people" in first and "test        none" in first
    assert (
        main(["data", "check", "--config", "expression_encoder_fec", "--root", str(tmp_path)]) == 0
    )
    assert capsys.readouterr().out == first

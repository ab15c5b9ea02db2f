"""The owners' layouts of BP4D and BP4D+."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.owner_trees import BP4D, bp4d, bp4d_task, picture, write
from scipy.io import savemat

from aurel.data import dataset_info
from aurel.data.owners.dataset import OwnerFaces, read_table
from aurel.data.owners.options import OwnerOptions
from aurel.data.owners.table import FrameTable
from aurel.data.readers import layout_of, read_part
from aurel.data.registry import Part

SEQUENCES = "Sequences(2D+3D)"


def table(root: Path, dataset: str = "BP4D", **changes: object) -> FrameTable:
    part = Part(dataset, root=str(root), **changes)  # type: ignore[arg-type]
    return read_table(dataset_info(dataset), part)


def test_frames_have_the_number_of_the_file_and_nine_is_unknown(tmp_path: Path) -> None:
    frames = {2440: [1, 12], 2441: [], 2447: [6]}  # a gap after 2441
    bp4d_task(tmp_path, "F001", "T1", frames, {(2441, 4): 9}, end="\r\n")
    for number in (2439, 2440, 2441, 2447):
        picture(tmp_path / SEQUENCES / "F001" / "T1" / f"{number}.jpg", number)
    write(tmp_path / SEQUENCES / "F001" / "T1" / "2440.obj", "a mesh")
    write(tmp_path / SEQUENCES / "F001" / "T1" / "._2440.jpg", "of a Mac")
    write(tmp_path / "AUCoding" / "AU_OCC" / "readme.csv", "notes")
    found = table(tmp_path)
    assert found.numbers.tolist() == [2440, 2441, 2447]
    assert [source.path.name for source in found.sources] == ["2440.jpg", "2441.jpg", "2447.jpg"]
    assert found.people == ["F001"] * 3 and found.videos == ["F001/T1"] * 3
    assert found.key(2) == "F001/T1/2447"
    columns = [BP4D.index(au) for au in (1, 4, 6, 12)]
    assert found.labels[:, columns].tolist() == [[1, 0, 0, 1], [0, -1, 0, 0], [0, 0, 1, 0]]
    assert found.where[2] == (tmp_path / "AUCoding" / "AU_OCC" / "F001_T1.csv", 4)
    assert found.intensity is None and found.landmarks(0) is None


def test_padding_case_and_nesting_of_pictures_do_not_matter(tmp_path: Path) -> None:
    bp4d_task(tmp_path, "M018", "T8", {7: [12]})
    picture(tmp_path / SEQUENCES / "disk2" / "m018" / "t8" / "007.JPG")
    assert table(tmp_path).sources[0].path.name == "007.JPG"


def test_pictures_that_count_from_0_are_one_below_the_annotation(tmp_path: Path) -> None:
    bp4d_task(tmp_path, "F001", "T1", {1: [1], 2: [2]})
    for number in (0, 1, 2):
        picture(tmp_path / "2D+3D" / "F001" / "T1" / f"{number:04d}.jpg")
    names = [source.path.name for source in table(tmp_path, "BP4D+").sources]
    assert names == ["0000.jpg", "0001.jpg"]
    given = OwnerOptions(picture_offset=0)
    names = [source.path.name for source in table(tmp_path, "BP4D+", owner=given).sources]
    assert names == ["0001.jpg", "0002.jpg"]


def test_pictures_in_zip_files_are_found_and_not_for_training(tmp_path: Path) -> None:
    for person in ("F001", "F002", "M001"):
        bp4d_task(tmp_path, person, "T6", {1: [1]})
        (tmp_path / "2D+3D").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "2D+3D" / f"{person}.zip", "w") as archive:
            archive.writestr(f"{person}/T6/0000.jpg", b"a picture")
            archive.writestr(f"{person}/T6/0000.obj", b"a mesh")
    found = table(tmp_path, "BP4D+")
    assert found.sources[0].member == "F001/T6/0000.jpg"
    assert found.sources[0].path == tmp_path / "2D+3D" / "F001.zip"
    part = read_part(Part("BP4D+", root=str(tmp_path), fold=1))
    assert part.unready is not None and "zip files" in part.unready
    (tmp_path / "2D+3D" / "F003.zip").write_text("cut")
    with pytest.raises(ValueError, match=r"F003.zip cannot be read as a zip file"):
        table(tmp_path, "BP4D+")


def test_frames_without_a_picture_or_a_known_label_are_no_rows(tmp_path: Path) -> None:
    nothing = dict.fromkeys([(3, au) for au in BP4D], 9)
    bp4d_task(tmp_path, "F001", "T1", {1: [1], 2: [2], 3: []}, nothing)
    for number in (1, 3):
        picture(tmp_path / SEQUENCES / "F001" / "T1" / f"{number}.jpg")
    found = table(tmp_path)
    assert found.numbers.tolist() == [1] and found.listed == 3
    assert found.missing == ["F001/T1/2"]
    picture(tmp_path / "elsewhere" / "1.jpg")
    with pytest.raises(ValueError, match=r"elsewhere must hold .* none of 2, such as F001/T1/1 in"):
        table(tmp_path, images=str(tmp_path / "elsewhere"))


def test_intensities_are_read_where_there_are_some(tmp_path: Path) -> None:
    bp4d_task(tmp_path, "F001", "T1", {1: [12], 2: [12], 3: []})
    for number in (1, 2, 3):
        picture(tmp_path / "img" / "F001" / "T1" / f"{number}.jpg")
    levels = tmp_path / "AUCoding" / "AU_INT" / "AU12" / "F001_T1_AU12.csv"
    write(levels, "frame,AU12\r\n2,3\r\n3,9\r\n8,1\r\n")
    found = table(tmp_path)
    assert found.intensity is not None
    assert found.intensity[:, BP4D.index(12)].tolist() == [-1, 3, -1]
    assert (found.intensity[:, BP4D.index(6)] == -1).all()
    write(levels, "2,7\n")
    with pytest.raises(ValueError, match=r"AU12.csv, line 1: a code must be 0 to 5.* got 7"):
        table(tmp_path)


def test_shipped_landmarks_belong_to_the_frame(tmp_path: Path) -> None:
    bp4d_task(tmp_path, "F001", "T1", {2: [12], 3: [1]})
    for number in (2, 3):
        picture(tmp_path / SEQUENCES / "F001" / "T1" / f"{number}.jpg")
    fit = np.zeros((1, 3), dtype=[("pred", object), ("pose", object)])
    for index, pred in enumerate([np.ones((49, 2)), np.full((49, 2), 7.5), np.zeros((0, 0))]):
        fit[0, index]["pred"] = pred
    (tmp_path / "2DFeatures").mkdir()
    savemat(tmp_path / "2DFeatures" / "F001_T1.mat", {"fit": fit})
    found = table(tmp_path)
    points = found.landmarks(0)
    assert points is not None and torch.equal(points, torch.full((49, 2), 7.5))
    assert found.landmarks(1) is None  # no face was found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7" + ",0" * 16, r"F001_T1.csv, line 3: a line must have 18 whole numbers"),
        ("7" + ",0" * 16 + ",x", r"F001_T1.csv, line 3: a line must have 18 whole numbers"),
        ("7" + ",0" * 16 + ",0.5", r"F001_T1.csv, line 3: a line must have 18 whole numbers"),
        ("7,2" + ",0" * 16, r"line 3: a code must be 0, 1, or 9, 999, -1 for unknown, got 2"),
        ("6" + ",0" * 17, r"line 3: each frame must be once, got 6, as in line 2"),
    ],
)
def test_bad_lines_are_named_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    file = bp4d_task(tmp_path, "F001", "T1", {6: [1]})
    file.write_text(file.read_text() + line + "\n")
    picture(tmp_path / "img" / "F001" / "T1" / "6.jpg")
    with pytest.raises(ValueError, match=message):
        table(tmp_path)


def test_an_au_that_was_not_coded_is_named(tmp_path: Path) -> None:
    bp4d_task(tmp_path, "F001", "T1", {6: [1]})
    with pytest.raises(ValueError, match=r"F001_T1.csv, line 1: the AUs must include AU43, got"):
        table(tmp_path, aus=[12, 43])
    with pytest.raises(ValueError, match=r"F001_T1.csv, line 1: the AUs must include AU12L, got"):
        table(tmp_path, aus=["12L"])  # occurrence has no sides
    write(tmp_path / "AUCoding" / "AU_OCC" / "F001_T1.csv", "")
    with pytest.raises(ValueError, match=r"F001_T1.csv, line 1: the AUs must include AU01, AU02"):
        table(tmp_path)


def test_what_is_ambiguous_is_named(tmp_path: Path) -> None:
    bp4d(tmp_path, ["F001"])
    picture(tmp_path / SEQUENCES / "F001" / "T1" / "5.png")
    with pytest.raises(ValueError, match=r"one picture of frame 5 of F001/T1, got .*0005.jpg and "):
        table(tmp_path)
    write(tmp_path / "AU_OCC" / "F001_T1.csv", "0,1\n")
    with pytest.raises(ValueError, match=r"one annotation, got .*AUCoding/AU_OCC and .*/AU_OCC"):
        table(tmp_path)


def test_lists_take_the_place_of_the_owners_layout(tmp_path: Path) -> None:
    info = dataset_info("BP4D")
    part = Part("BP4D", root=str(bp4d(tmp_path, ["F001", "F007"])), fold=1)
    assert layout_of(info, part) == "owner"
    write(tmp_path / "list" / "BP4D_train_img_path_fold1.txt", "F001/T1/5.jpg\n")
    assert layout_of(info, part) == "lists"
    with pytest.raises(FileNotFoundError, match=r"label_fold1.txt, but .*train_img_path_fold1.txt"):
        read_part(part)
    owner = Part("BP4D", root=str(tmp_path), fold=1, layout="owner")
    assert isinstance(read_part(owner), OwnerFaces)
    with pytest.raises(ValueError, match="be auto, lists or shards for hybrid, got owner"):
        read_part(Part("hybrid", root=str(tmp_path), layout="owner"))


def test_the_published_folds_divide_the_people(tmp_path: Path) -> None:
    root = bp4d(tmp_path, ["F001", "M011", "F007"])  # parts 1, 2 and 3
    parts = {
        (fold, split): set(read_part(Part("BP4D", split, str(root), fold)).subjects)
        for fold in (1, 2, 3)
        for split in ("train", "test")
    }
    assert parts[1, "test"] == {"F007"} and parts[1, "train"] == {"F001", "M011"}
    assert parts[2, "test"] == {"M011"} and parts[3, "test"] == {"F001"}
    with pytest.raises(FileNotFoundError, match="has no val part"):
        read_part(Part("BP4D", "val", str(root), 1))
    with pytest.raises(ValueError, match=r"data.fold must be in 1..3 for the owner.* got null"):
        read_part(Part("BP4D", root=str(root), fold=None))
    assert set(read_part(Part("BP4D", "test", str(root), None)).subjects) == {
        "F001",
        "M011",
        "F007",
    }
    bp4d(root, ["F099"])
    with pytest.raises(ValueError, match="people must be those of the published folds .* F099"):
        read_part(Part("BP4D", root=str(root), fold=1))


def test_a_fold_without_people_is_an_error(tmp_path: Path) -> None:
    root = bp4d(tmp_path, ["F001", "M011"])
    with pytest.raises(ValueError, match="people of the test part of fold 1, got none"):
        read_part(Part("BP4D", "test", str(root), 1))


def test_folds_of_bp4d_plus_are_the_same_each_time(tmp_path: Path) -> None:
    people = [f"F{number:03d}" for number in range(1, 8)]
    root = bp4d(tmp_path, people, frames=1)
    tested = [set(read_part(Part("BP4D+", "test", str(root), f)).subjects) for f in (1, 2, 3)]
    assert sorted(person for part in tested for person in part) == people
    again = read_part(Part("BP4D+", "test", str(root), 1))
    assert set(again.subjects) == tested[0] and {len(part) for part in tested} == {2, 3}


def test_clips_are_cut_at_gaps(tmp_path: Path) -> None:
    bp4d_task(tmp_path, "F001", "T1", {number: [12] for number in (3, 4, 5, 8, 9)})
    for number in (3, 4, 5, 8, 9):
        picture(tmp_path / "img" / "F001" / "T1" / f"{number}.jpg")
    clips = read_part(Part("BP4D", "train", str(tmp_path), 1, frames=3))
    assert [len(run) for run in clips.label_runs(range(len(clips)))] == [3, 2]
    assert clips.keys_of([1]) == ["F001/T1/8", "F001/T1/9"]
    assert clips[0]["image"].shape == (3, 3, 16, 16)

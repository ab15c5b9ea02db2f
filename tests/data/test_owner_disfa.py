"""The owners' layouts of DISFA and DISFA+."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.owner_trees import (
    DISFA_CODED,
    disfa,
    disfa_person,
    disfa_plus_trial,
    picture,
    write,
)
from scipy.io import savemat

from aurel.data import dataset_info
from aurel.data.owners.dataset import read_table
from aurel.data.owners.options import OwnerOptions
from aurel.data.owners.table import FrameTable
from aurel.data.readers import read_part
from aurel.data.registry import Part
from aurel.facs import LANDMARKS_66_TO_49
from aurel.training.datasets import check_fold

DISFA = (1, 2, 4, 6, 9, 12, 25, 26)


def table(root: Path, dataset: str = "DISFA", **changes: object) -> FrameTable:
    part = Part(dataset, root=str(root), **changes)  # type: ignore[arg-type]
    return read_table(dataset_info(dataset), part)


def person(root: Path, changes: dict[int, list[int]], name: str = "SN001", **kwargs: int) -> None:
    """Write the labels of a person with three frames, in which all other AUs are 0."""
    disfa_person(root, name, {**{au: [0, 0, 0] for au in DISFA_CODED}, **changes}, **kwargs)


def aligned(root: Path, names: list[str], person: str = "SN001") -> None:
    for name in names:
        picture(root / "img" / person / name)


def test_an_au_is_present_from_intensity_2_or_the_given_one(tmp_path: Path) -> None:
    person(tmp_path, {12: [1, 2, 5]})
    aligned(tmp_path, ["1.png", "2.png", "3.png"])
    found = table(tmp_path)
    column = DISFA.index(12)
    assert found.labels[:, column].tolist() == [0, 1, 1]
    assert found.intensity is not None and found.intensity[:, column].tolist() == [1, 2, 5]
    found = table(tmp_path, owner=OwnerOptions(present=1))
    assert found.labels[:, column].tolist() == [1, 1, 1]
    for options, message in (
        ({"present": 0}, r"data.owner.present must be in 1..5, got 0"),
        ({"unknown": [9, 3]}, r"data.owner.unknown must be codes that are no labels, got \[3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            OwnerOptions(**options)  # type: ignore[arg-type]


def test_a_missing_file_and_a_missing_frame_are_unknown(tmp_path: Path) -> None:
    person(tmp_path, {12: [3, 3]})  # one frame less than the others
    (tmp_path / "ActionUnit_Labels" / "SN001" / "SN001_au9.txt").unlink()
    aligned(tmp_path, ["1.png", "2.png", "3.png"])
    found = table(tmp_path)
    assert found.labels[:, DISFA.index(9)].tolist() == [-1, -1, -1]
    assert found.labels[:, DISFA.index(12)].tolist() == [1, 1, -1]
    assert found.labels[:, DISFA.index(4)].tolist() == [0, 0, 0]
    assert len(found.notes) == 1 and "SN001 has no code of AU09" in found.notes[0]


def test_other_aus_of_the_owner_and_their_order(tmp_path: Path) -> None:
    person(tmp_path, {17: [0, 4, 0]})
    aligned(tmp_path, ["1.png", "2.png", "3.png"])
    found = table(tmp_path, aus=[17, 1])
    assert found.labels.tolist() == [[0, 0], [1, 0], [0, 0]]
    with pytest.raises(ValueError, match=r"data.aus must be among those of DISFA, .* got AU10"):
        table(tmp_path, aus=[10, 12])


@pytest.mark.parametrize("names", [["1.png", "3.png"], ["SN001_0.png", "SN001_2.png"]])
def test_chips_may_count_from_0_or_1(tmp_path: Path, names: list[str]) -> None:
    person(tmp_path, {12: [5, 0, 3]}, end="\r\n")  # type: ignore[arg-type]
    aligned(tmp_path, names)
    found = table(tmp_path)
    assert found.numbers.tolist() == [1, 3] and found.missing == ["SN001/2"]
    assert [source.path.name for source in found.sources] == names


def test_frame_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    person(tmp_path, {12: [5, 0, 3]}, first=700)
    aligned(tmp_path, ["frame-700.jpg", "frame-0702.jpg"])
    found = table(tmp_path)
    assert found.numbers.tolist() == [700, 702]
    assert found.labels[:, DISFA.index(12)].tolist() == [1, 1]


def test_frames_may_be_in_videos(tmp_path: Path) -> None:
    for name in ("SN001", "SN003", "SN013"):  # parts 1, 3 and 2
        person(tmp_path, {12: [5, 0, 3]}, name)
    films = tmp_path / "Videos_LeftCamera"
    for name in ("SN001", "SN003", "SN013"):
        write(films / f"LeftVideo{name}_comp.avi", "a film")
    found = table(tmp_path)
    assert found.sources[1].path == films / "LeftVideoSN001_comp.avi"
    assert [source.frame for source in found.sources[:3]] == [0, 1, 2]
    part = read_part(Part("DISFA", "test", str(tmp_path), 1))
    assert part.unready is not None and "videos" in part.unready
    assert set(part.subjects) == {"SN003"}
    write(films / "SN001 copy.avi", "another")
    with pytest.raises(ValueError, match="one video of SN001, got .*LeftVideoSN001_comp.avi and"):
        table(tmp_path)


def test_pictures_of_both_cameras_are_ambiguous(tmp_path: Path) -> None:
    person(tmp_path, {})
    for side in ("Left", "Right"):
        picture(tmp_path / "Frames" / f"{side}VideoSN001_comp" / "00001.jpg")
    with pytest.raises(ValueError, match=r"one picture of frame 1 of SN001, .* give data.images"):
        table(tmp_path)
    chosen = tmp_path / "Frames" / "RightVideoSN001_comp"
    with pytest.raises(ValueError, match="must hold pictures of labeled frames, got none"):
        table(tmp_path, images=str(chosen))  # its folder no longer names a person
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        table(tmp_path, images=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1,0\n2,0,0\n", r"SN001_au4.txt, line 2: a line must have 2 whole numbers, got '2,0,0'"),
        ("1,0\n\n2 0\n", r"SN001_au4.txt, line 3: a line must have 2 whole numbers, got '2 0'"),
        ("1,6\n", r"SN001_au4.txt, line 1: a code must be 0 to 5, or 9, 999, -1 .* got 6"),
        ("1,0\n1,0\n", r"SN001_au4.txt, line 2: each frame must be once, got 1, as in line 1"),
    ],
)
def test_bad_lines_are_named_with_file_and_line(tmp_path: Path, lines: str, message: str) -> None:
    person(tmp_path, {})
    write(tmp_path / "ActionUnit_Labels" / "SN001" / "SN001_au4.txt", lines)
    with pytest.raises(ValueError, match=message):
        table(tmp_path)


def test_landmarks_are_read_in_both_spellings_and_as_text(tmp_path: Path) -> None:
    person(tmp_path, {})
    aligned(tmp_path, ["1.png", "2.png", "3.png"])
    points = np.arange(132.0).reshape(66, 2)
    folder = tmp_path / "Landmark_Points" / "SN001" / "tmp_frame_lm"
    folder.mkdir(parents=True)
    savemat(folder / "SN001_0000_lm.mat", {"pts": points})
    savemat(folder / "l00002_lm.mat", {"pts": points + 1})
    found = table(tmp_path)
    expected = torch.from_numpy(points[list(LANDMARKS_66_TO_49)]).float()
    for row, add in ((0, 0), (1, 1)):
        shipped = found.landmarks(row)
        assert shipped is not None and torch.equal(shipped, expected + add)
    assert found.landmarks(2) is None


def test_landmarks_as_text_and_of_other_forms(tmp_path: Path) -> None:
    person(tmp_path, {})
    aligned(tmp_path, ["1.png", "2.png"])
    folder = tmp_path / "Landmark_Points" / "SN001"
    write(folder / "SN001_0000_lm.txt", "\r\n".join(f"{i} {i + 0.5}" for i in range(66)))
    write(folder / "SN001_0001_lm.txt", "1 2 3\n")
    found = table(tmp_path)
    first = found.landmarks(0)
    assert first is not None and first[0].tolist() == [17, 17.5]
    with pytest.raises(ValueError, match=r"SN001_0001_lm.txt, line 1: a line must be x and y"):
        found.landmarks(1)


def test_damaged_landmarks_are_named(tmp_path: Path) -> None:
    person(tmp_path, {})
    aligned(tmp_path, ["1.png", "2.png", "3.png"])
    folder = tmp_path / "Landmark_Points" / "SN001"
    folder.mkdir(parents=True)
    savemat(folder / "SN001_0000_lm.mat", {"points": np.zeros((66, 2))})
    savemat(folder / "SN001_0001_lm.mat", {"pts": np.zeros((5, 2))})
    write(folder / "SN001_0002_lm.mat", "no matrix")
    found = table(tmp_path)
    for row, message in (
        (0, r"0000_lm.mat must hold the variable pts, got points"),
        (1, r"0001_lm.mat must hold x and y of 49, 66 or 68 points, got \(5, 2\)"),
        (2, r"0002_lm.mat cannot be read as a .mat file"),
    ):
        with pytest.raises(ValueError, match=message):
            found.landmarks(row)


def test_items_have_intensities(tmp_path: Path) -> None:
    data = read_part(Part("DISFA", root=str(disfa(tmp_path, ["SN001", "SN003"])), fold=1))
    item = data[1]
    assert item["intensity"].dtype == torch.float32
    assert torch.equal((item["intensity"] >= 2).float(), item["labels"])
    assert "landmarks" not in item
    clip = read_part(Part("DISFA", "test", str(tmp_path), 1, frames=3))[1]
    assert (clip["intensity"][1:] == -1).all() and (clip["intensity"][0] >= 0).all()


def test_disfa_plus_has_a_header_and_names_of_pictures(tmp_path: Path) -> None:
    levels = {au: [0, 0, 0] for au in DISFA_CODED}
    for name in ("SN001", "SN003", "SN004"):
        disfa_plus_trial(tmp_path, name, "A10_AU1_TrailNo_1", {**levels, 1: [0, 1, 2]})
    (tmp_path / "Images" / "SN001" / "A10_AU1_TrailNo_1" / "001.jpg").unlink()
    labels = tmp_path / "Labels" / "SN001" / "A10_AU1_TrailNo_1"
    (labels / "AU4.txt").unlink()
    found = table(tmp_path, "DISFA+")
    assert found.numbers[:2].tolist() == [0, 2] and found.listed == 9
    assert found.key(0) == "SN001/A10_AU1_TrailNo_1/0"
    assert found.labels[:2, 0].tolist() == [0, 1]
    assert found.labels[:2, DISFA_CODED.index(4)].tolist() == [-1, -1]
    assert found.labels[2:, DISFA_CODED.index(4)].tolist() == [0] * 6
    write(labels / "AU1.txt", "header\n000.jpg 0\n001.jpg\n")
    with pytest.raises(ValueError, match=r"AU1.txt, line 3: a line must have 2 whole numbers"):
        table(tmp_path, "DISFA+")
    write(labels / "AU1.txt", "header\n000 0\n001.jpg 1\n")  # no second header
    with pytest.raises(ValueError, match=r"AU1.txt, line 2: a line must name a picture, got '000"):
        table(tmp_path, "DISFA+")
    write(labels / "AU1.txt", "header\n000.jpg 0\n000.jpg 1\n")
    with pytest.raises(ValueError, match="AU1.txt, line 3: each frame must be once, got 0, as in"):
        table(tmp_path, "DISFA+")
    write(labels / "AU1.txt", "header\n000.jpg 0\nend\n")
    with pytest.raises(ValueError, match=r"AU1.txt, line 3: a line must name a picture, got 'end'"):
        table(tmp_path, "DISFA+")


def test_people_of_disfa_plus_are_those_of_disfa() -> None:
    names = dataset_info("DISFA+").subject_names(["SN001"])
    trained = {
        "dataset": "DISFA",
        "fold": 1,
        "train_subjects": dataset_info("DISFA").subject_names(["SN001"]),
        "validation_subjects": [],
    }
    tested = {"dataset": "DISFA+", "fold": 1, "test_subjects": names}
    with pytest.raises(ValueError, match=r"no subject in common, got 1 \(DISFA/SN001\)"):
        check_fold(trained, tested)

"""Scores of groups of people."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from aurel.training.groups import GroupedData, group_report, in_group, read_groups


class Data:
    """Three people, two items each."""

    subjects = ("F001", "F001", "M002", "M002", "F003", "F003")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"labels": torch.full((2,), float(index % 2))}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_groups_of_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "\ufeffperson,sex,age\nBP4D/F001,f,20\nM002,m,\nX,m,30\n\n")
    groups = read_groups(file, Data.subjects, "BP4D")
    found = [(group.attribute, group.value, sorted(group.people)) for group in groups]
    assert found == [
        ("sex", "f", ["F001"]),
        ("sex", "m", ["M002"]),
        ("sex", "unknown", ["F003"]),
        ("age", "20", ["F001"]),
        ("age", "unknown", ["F003", "M002"]),
    ]
    data = GroupedData(Data(), groups)
    assert data[0]["groups"].tolist() == [True, False, False, True, False]
    assert data[3]["groups"].tolist() == [False, True, False, False, True]
    assert len(data) == 6 and data.subjects == Data.subjects


def test_labels_of_others_are_unknown_in_images_and_clips() -> None:
    member = torch.tensor([[True], [False]])
    images = torch.tensor([[1, 0], [1, 0]])
    assert in_group(images, member, 0).tolist() == [[1, 0], [-1, -1]]
    clips = torch.ones(2, 3, 2)
    assert in_group(clips, member, 0)[1].unique().tolist() == [-1]
    assert in_group(clips, member, 0)[0].unique().tolist() == [1]


def test_the_gap_is_over_groups_and_aus_that_have_a_score(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "person,sex\nF001,f\nM002,m\n")
    groups = read_groups(file, Data.subjects)

    def table(first: float, second: float) -> dict[str, dict[str, float]]:
        rows = {"AU01": first, "AU02": second, "mean": math.nan}
        return {name: {"f1": value, "known": 2} for name, value in rows.items()}

    report = group_report(groups, [table(0.5, 0.25), table(0.75, math.nan), table(0, 0)])["sex"]
    assert report["groups"]["f"]["people"] == 1 and report["groups"]["unknown"]["people"] == 1
    assert report["gap"]["AU01"] == 0.25 and math.isnan(report["gap"]["AU02"])
    assert report["gap"]["mean"] == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header with a person and attributes, got none"),
        ("person\nF001\n", "must have a header with a person and attributes"),
        ("person,sex\nF001\n", "line 2 must have 2 cells, as the header, got 1"),
        ("person,sex\nF001,f\n\nF001,f\n", "line 4 must name a new person, got F001 again"),
        ("person,sex\nZ,f\n", "must have a row for people of the test part, such as F001, got"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv.*{message}"):
        read_groups(write(tmp_path / "a.csv", text), Data.subjects)


def test_other_bytes_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("person,größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="a.csv must be a text file in UTF-8"):
        read_groups(tmp_path / "a.csv", Data.subjects)


def test_one_person_in_any_spelling_and_encoding(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("person,sex\r\nf1,f\r\nBP4D/M002,m\r\n".encode("utf-16"))
    groups = read_groups(file, Data.subjects, "BP4D")
    assert [sorted(group.people) for group in groups] == [["F001"], ["M002"], ["F003"]]
    write(file, "person,sex\nF001,f\nf1,m\n")
    with pytest.raises(ValueError, match="line 3 must name a new person, got f1 again"):
        read_groups(file, Data.subjects)

"""Tables in the form of each tool, and tables that are damaged or odd."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from aurel.tables import AUTable

OPENFACE = """frame, face_id, timestamp, confidence, success, AU12_r, AU01_c, AU12_c
1, 0, 0.000, 0.98, 1, 2.50, 0, 1
2, 0, 0.033, 0.98, 1, 0.10, 1, 0
3, 0, 0.067, 0.20, 1, 0.10, 1, 1
5, 0, 0.133, 0.00, 0, 0.00, 0, 0
"""
PYFEAT = """FaceRectX,FaceScore,AU01,AU12,input,frame,approx_time,Identity
1,0.99,0.10,0.93,clip.mp4,0,00:00,
1,0.99,0.60,0.20,clip.mp4,2,00:00,
,,,,clip.mp4,4,00:00,
"""
LIBREFACE = """frame_idx,frame_time_in_ms,au_1,au_12,au_12_intensity,au_25_intensity
0,0,1,0,0.4,3.0
1,40,0,1,2.2,-0.1
"""
FACEREADER = """Video analysis detailed log
Face Model:\tGeneral

Filename:\tC:\\videos\\P01.mp4
Frame rate:\t25

Video Time\tNeutral\tAction Unit 01 - Inner Brow Raiser\tAction Unit 12 - Lip Corner Puller\t\
Action Unit 12 - Lip Corner Puller - Left
00:00:00.000\t0,9\tNotActive\tB\tA
00:00:00.040\t0,8\tC\tNotActive\tNotActive
00:01:00.500\tFIT_FAILED\tFIT_FAILED\tFIT_FAILED\tFIT_FAILED
"""
FACEREADER_NUMBERS = """Video Time;Action Unit 04 - Brow Lowerer;Action Unit 06 - Cheek Raiser
00:00:00,000;0,05;0,45
00:00:00,040;0,10;0,00
"""
IMOTIONS = """#INFO,Exported by iMotions
#METADATA,Device,Camera
Row,Timestamp,EventSource,Respondent,Brow Furrow,Smile,Jaw Drop,Joy
#DATA
1,0,1,R7,,,,
2,40,2,R7,3.5,97.0,50.0,90
3,80,2,R7,60.0,2.0,0.0,1
"""
FACET = "FrameNo\tJoy Evidence\tAU6 Evidence\tAU12 Evidence\n1\t0.2\t-1.0\t0.0\n2\t0.2\t2.0\t-0.3\n"
AUREL = """input,frame,time,face,FaceRectX,AU06,AU12,AU06_present,AU12_present
a.mp4,0,0.0000,0,1,0.9,0.2,1,0
a.mp4,1,0.0400,,,,,,
a.mp4,2,0.0800,0,1,0.1,0.7,0,1
"""


def written(folder: Path, text: str | bytes, name: str = "P01_rest.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_openface(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, OPENFACE))
    assert table.aus.names == ("AU01", "AU12")
    assert table.labels.tolist() == [[0, 1], [1, 0], [-1, -1], [-1, -1]]
    assert table.frame.tolist() == [1, 2, 3, 5]
    assert table.time.tolist() == [0.0, 0.033, 0.067, 0.133]
    assert set(table.person) == {"P01_rest"}
    (account,) = table.accounts
    assert (account.tool, account.kind) == ("openface", "presence")
    assert (account.rows, account.failed, account.unsure, account.empty) == (4, 1, 1, 0)


def test_openface_intensity_and_threshold(tmp_path: Path) -> None:
    path = written(tmp_path, OPENFACE)
    table = AUTable.read(path, au_kind="intensity", min_confidence=0)
    assert table.aus.names == ("AU12",)
    assert table.values[:3, 0].tolist() == [2.5, 0.1, 0.1] and np.isnan(table.values[3, 0])
    assert table.labels[:, 0].tolist() == [1, 0, 0, -1]
    assert "no intensity of AU01" in table.accounts[0].notes[0]
    low = AUTable.read(path, au_kind="intensity", min_confidence=0, threshold=0.1)
    assert low.labels[:, 0].tolist() == [1, 1, 1, -1]
    assert (table.with_threshold(0.1).labels == low.labels).all()


def test_pyfeat(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, PYFEAT))
    assert table.labels.tolist() == [[0, 1], [1, 0], [-1, -1]]
    assert table.frame.tolist() == [0, 2, 4] and np.isnan(table.time).all()
    assert set(table.person) == {"clip"} and set(table.source) == {"clip.mp4"}
    assert (table.accounts[0].tool, table.accounts[0].kind) == ("pyfeat", "probability")
    assert table.accounts[0].empty == 1
    assert AUTable.read(written(tmp_path, PYFEAT), fps=25).time.tolist() == [0.0, 0.08, 0.16]


def test_several_faces_in_a_frame_are_several_people(tmp_path: Path) -> None:
    rows = "1,0.99,{},0.9,clip.mp4,{},00:00,"
    lines = [PYFEAT.splitlines()[0]]
    lines += [rows.format(value, frame) for frame in (0, 1) for value in (0.1, 0.9)]
    table = AUTable.read(written(tmp_path, "\n".join(lines)))
    assert sorted(set(table.person)) == ["clip face 0", "clip face 1"]
    assert table.labels[table.person == "clip face 1", 0].tolist() == [1, 1]
    assert len(set(table.track.tolist())) == 2
    assert any("several faces" in note for note in table.accounts[0].notes)
    named = AUTable.read(written(tmp_path, "\n".join(lines)), person="file:(P..)")
    assert set(named.person) == {"P01"} and len(set(named.track.tolist())) == 2


def test_libreface(tmp_path: Path) -> None:
    path = written(tmp_path, LIBREFACE)
    presence = AUTable.read(path)
    assert presence.aus.names == ("AU01", "AU12")
    assert presence.labels.tolist() == [[1, 0], [0, 1]]
    assert presence.time.tolist() == [0.0, 0.04]
    intensity = AUTable.read(path, au_kind="intensity")
    assert intensity.aus.names == ("AU12", "AU25")
    assert intensity.labels.tolist() == [[0, 1], [1, 0]]


def test_facereader_letters(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, FACEREADER, "P01.txt"))
    assert table.aus.names == ("AU01", "AU12", "AU12L")
    assert table.values[:2].tolist() == [[0, 2, 1], [3, 0, 0]]
    assert table.labels.tolist() == [[0, 1, 1], [1, 0, 0], [-1, -1, -1]]
    assert table.time.tolist() == [0.0, 0.04, 60.5]
    assert table.accounts[0].tool == "facereader"


def test_facereader_numbers_with_decimal_commas(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, FACEREADER_NUMBERS))
    assert table.values.tolist() == [[0.05, 0.45], [0.1, 0.0]]
    assert table.labels.tolist() == [[0, 1], [1, 0]]
    assert table.accounts[0].threshold == 0.1


def test_imotions(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, IMOTIONS))
    assert table.aus.names == ("AU04", "AU12", "AU26")
    assert table.labels.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert table.time.tolist() == [0.04, 0.08] and set(table.person) == {"R7"}


def test_evidence_of_facet_is_the_logarithm_of_odds(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, FACET))
    assert table.values[:, 0] == pytest.approx([1 / 11, 100 / 101])
    assert table.labels.tolist() == [[0, 1], [1, 0]]


def test_aurel_predict_keeps_frames_without_a_face(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, AUREL))
    assert table.labels.tolist() == [[1, 0], [-1, -1], [0, 1]]
    assert len(set(table.track.tolist())) == 1 and set(table.person) == {"a"}
    assert AUTable.read(written(tmp_path, AUREL), au_kind="probability").values[0, 0] == 0.9


def test_people_of_aurel_predict_are_those_of_one_video(tmp_path: Path) -> None:
    header = "input,frame,time,face,person,FaceScore,AU12,AU12_present"
    rows = ["v.mp4,0,0.0,0,0,0.6,0.9,1", "v.mp4,0,0.0,1,1,0.9,0.1,0", "v.mp4,1,0.1,0,1,0.5,0.2,0"]
    table = AUTable.read(written(tmp_path, "\n".join([header, *rows]) + "\n"))
    columns = (table.person.tolist(), table.frame.tolist(), table.labels[:, 0].tolist())
    found = sorted(zip(*columns, strict=True))
    # The detector was sure enough of a score below 0.75, and the order of faces has no meaning.
    assert found == [("v face 0", 0, 1), ("v face 1", 0, 0), ("v face 1", 1, 0)]
    assert not any("anew" in note for account in table.accounts for note in account.notes)


def test_openface3_has_no_names_of_its_own(tmp_path: Path) -> None:
    header = ",".join(f"AU{n:02d}" for n in range(8))
    numbered = written(tmp_path, f"{header}\n0.9,0,0,0,0,0.8,0,0\n")
    names = ("AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26")
    assert AUTable.read(numbered).aus.names == names
    assert AUTable.read(numbered).labels[0].tolist() == [1, 0, 0, 0, 0, 1, 0, 0]
    header = ",".join(f"AU{n:02d}_r" for n in range(1, 9))
    path = written(tmp_path, f"{header}\n0,0,0,0,0,0.8,0,0\n")
    with pytest.raises(ValueError, match="AU03_r.*tool='openface3'"):
        AUTable.read(path)
    assert AUTable.read(path, tool="openface3").aus.names == names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_encodings_and_separators(
    tmp_path: Path, encoding: str, separator: str, line_end: str
) -> None:
    decimal = "0.75" if separator == "," else "0,75"
    rows = [["Müller", "AU01", "AU12"], ["é", decimal, "0"], ["é", "0", "1"]]
    text = line_end.join(separator.join(row) for row in rows) + line_end
    table = AUTable.read(written(tmp_path, text.encode(encoding)), person="Müller")
    assert table.values.tolist() == [[0.75, 0], [0, 1]]
    assert set(table.person) == {"é"}


def test_unknown_codes_of_label_lists(tmp_path: Path) -> None:
    path = written(tmp_path, "subject,task,AU1,AU12\nF1,T1,1,9\nF1,T2,999,0\nF2,T1,-1,1\n")
    table = AUTable.read(path)
    assert table.labels.tolist() == [[1, -1], [-1, 0], [-1, 1]]
    assert table.person.tolist() == ["F1", "F1", "F2"]
    assert table.condition.tolist() == ["T1", "T2", "T1"]


def test_one_empty_cell_is_one_unknown_label(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, "frame,AU01_c,AU12_c\n0,1,\n1,0,1\n"))
    assert table.labels.tolist() == [[1, -1], [0, 1]]


def test_all_failed_frames_are_all_unknown(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, "frame,success,AU01_c\n0,0,1\n1,0,0\n"))
    assert (table.labels == -1).all() and table.accounts[0].failed == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("frame,AU01_c\n", "a header and no rows"),
        ("frame,smile\n0,1\n", "no column of an AU"),
        ("frame,AU01_c,AU01_c\n0,1,1\n", "columns 2 and 3"),
        ("frame,AU01_c\n0,1\n1,yes\n", "line 3: AU01_c must be a number or empty, got 'yes'"),
        ("frame,AU01_c\n0,1\n1,0,5\n", "line 3: a row must have 2 cells .* got 3"),
        ("frame,AU01_c,AU02_c\n0,1\n", "line 2: a row must have 3 cells .* got 2"),
        ("frame,AU01_c\n0,1\n1,2\n", "line 3: the presence of AU01 must be 0, 1"),
        ("frame,FaceScore,AU01\n0,1,1.7\n", "line 2: the probability of AU01 must be from 0 to 1"),
        ("frame,AU01\n0,87\n", "line 2: the intensity of AU01 must be from 0 to 5, got 87"),
        ("frame,AU01_c\nx,1\n", "line 2: frame must be a number"),
        ("frame,AU01_c\n,1\n", "line 2: frame must be a number"),
        ("frame,timestamp,AU01_c\n0,soon,1\n", "line 2: timestamp must be a number"),
        ("frame,AU03_c\n0,1\n", "column .AU03_c.: number must be a facial AU"),
        (b"PK\x03\x04xxxx", "Excel"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        AUTable.read(written(tmp_path, text))
    assert "P01_rest.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"au_kind": "intensity"}, "au_kind must be a kind that the table holds .*presence"),
        ({"au_kind": "loud"}, "au_kind must be auto, presence"),
        ({"tool": "openface9"}, "tool must be auto, openface"),
        ({"tool": "openface3"}, "openface3 has 8 columns"),
        ({"fps": 0}, "fps must be positive, got 0"),
        ({"person": "missing"}, "person must be a column of the table, got 'missing'"),
        ({"person": "file:P01"}, "person must have a group in brackets"),
        ({"person": "file:(P"}, "person must hold a regular expression"),
        ({"condition": "file:(X.)"}, "condition 'file:.*' matches nothing"),
    ],
)
def test_a_bad_option_is_named(tmp_path: Path, options: dict[str, object], said: str) -> None:
    path = written(tmp_path, "frame,AU01_c\n0,1\n")
    with pytest.raises(ValueError, match=said):
        AUTable.read(path, **options)


def test_people_and_conditions_from_names_of_files(tmp_path: Path) -> None:
    for name in ("P02_rest.csv", "P01_stress.csv", "P01_rest.csv"):
        written(tmp_path, "frame,AU01_c\n0,1\n1,0\n", name)
    table = AUTable.read(
        sorted(tmp_path.glob("*.csv")), person=r"file:(P\d+)", condition="file:_([a-z]+)"
    )
    assert table.person.tolist() == ["P01"] * 4 + ["P02"] * 2
    assert table.condition.tolist() == ["rest"] * 2 + ["stress"] * 2 + ["rest"] * 2
    assert len(set(table.track.tolist())) == 3 and len(table.accounts) == 3


def test_tables_with_other_aus_are_put_together(tmp_path: Path) -> None:
    first = written(tmp_path, "frame,AU12_c,AU01_c\n0,1,0\n", "a.csv")
    second = written(tmp_path, "frame,AU06_c,AU12_c\n0,1,0\n", "b.csv")
    table = AUTable.read([first, second])
    assert table.aus.names == ("AU01", "AU06", "AU12")
    assert table.labels.tolist() == [[0, -1, 1], [-1, 1, 0]]
    assert np.isnan(table.values[0, 1])
    with pytest.raises(ValueError, match="at least one table"):
        AUTable.concat([])
    with pytest.raises(ValueError, match="at least one file"):
        AUTable.read([])


def test_rows_are_in_order_of_time(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, "frame,AU01_c\n7,1\n2,0\n3,1\n"))
    assert table.frame.tolist() == [2, 3, 7] and table.labels[:, 0].tolist() == [0, 1, 1]


def test_columns_make_the_same_table_again(tmp_path: Path) -> None:
    table = AUTable.read([written(tmp_path, OPENFACE), written(tmp_path, PYFEAT, "b.csv")])
    again = AUTable.from_frame(table.columns())
    assert (again.labels == table.labels).all() and again.aus == table.aus
    for name in ("person", "source", "frame", "track"):
        assert (getattr(again, name) == getattr(table, name)).all(), name


def test_a_frame_is_read_as_a_file_is(tmp_path: Path) -> None:
    path = written(tmp_path, OPENFACE)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert (AUTable.from_frame(columns).labels == AUTable.read(path).labels).all()
    numbers = {name: [float(cell) for cell in column] for name, column in columns.items()}
    assert (AUTable.from_frame(numbers).labels == AUTable.read(path).labels).all()
    with pytest.raises(ValueError, match="frame, row 1: AU12_c must be a number"):
        AUTable.from_frame(columns | {"AU12_c": [1, "x", 0, 0]})
    with pytest.raises(ValueError, match="no column of an AU"):
        AUTable.from_frame({"smile": [1]})


def test_pandas_and_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = AUTable.read(written(tmp_path, OPENFACE))
    frame = table.to_frame()
    assert list(frame.columns) == list(table.columns())
    assert (AUTable.from_frame(frame).labels == table.labels).all()
    frame["AU01_present"] = pandas.array([None, 1, 0, 1], dtype="Int64")
    assert AUTable.from_frame(frame).labels[:, 0].tolist() == [-1, 1, 0, 1]
    with pytest.raises(ValueError, match="columns must have different names"):
        AUTable.from_frame(frame.rename(columns={"AU12": "AU01"}))
    pytest.importorskip("pyarrow")
    pandas.read_csv(tmp_path / "P01_rest.csv", skipinitialspace=True).to_parquet(
        tmp_path / "a.parquet"
    )
    assert (AUTable.read(tmp_path / "a.parquet").labels == table.labels).all()


def test_without_pandas_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    table = AUTable.read(written(tmp_path, OPENFACE))
    with pytest.raises(ImportError, match=r"aurel-au\[tables\]"):
        table.to_frame()
    with pytest.raises(ImportError, match=r"a\.parquet.*aurel-au\[tables\]"):
        AUTable.read(written(tmp_path, b"PAR1", "a.parquet"))


def test_a_part_that_does_not_fit_is_named(tmp_path: Path) -> None:
    table = AUTable.read(written(tmp_path, OPENFACE))
    arguments = {name: getattr(table, name) for name in table.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"labels must have shape \(4, 2\), got \(3, 2\)"):
        AUTable(**arguments | {"labels": table.labels[:3]})


def test_real_tables(shared: Path) -> None:
    folder = shared / "data" / "real"
    openface = AUTable.read(folder / "OpenFace_Test.csv")
    assert len(openface) == 100 and len(openface.aus) == 18
    assert (openface.labels == 1).sum(0)[openface.aus.index(4)] == 34
    clips = AUTable.read(sorted(folder.glob("pyfeat_news_0*.csv")))
    assert len(clips.aus) == 20 and len(set(clips.person)) == 5 and len(clips) == 100
    assert {account.tool for account in clips.accounts} == {"pyfeat"}
    assert (np.diff(clips.frame[clips.person == "001"]) == 2).all()
    with pytest.raises(ValueError, match="no column of an AU.*clipN"):
        AUTable.read(folder / "pyfeat_news_clips.csv")

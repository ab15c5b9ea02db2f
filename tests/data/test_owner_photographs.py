"""The owners' layouts of EmotioNet, RAF-AU, CASME II and FEC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.owner_trees import emotionet, picture, write
from PIL import Image

from aurel.data import dataset_info
from aurel.data.owners.au_words import present_aus
from aurel.data.owners.dataset import read_table
from aurel.data.owners.fec import read_fec
from aurel.data.owners.table import FrameTable
from aurel.data.readers import read_part, read_triplets
from aurel.data.registry import NoSuchPart, Part
from aurel.facs import AU_SETS, AUSet

EMOTIONET = AU_SETS["EmotioNet"].numbers


def table(root: Path, dataset: str, **changes: object) -> FrameTable:
    part = Part(dataset, root=str(root), **changes)  # type: ignore[arg-type]
    return read_table(dataset_info(dataset), part)


def kfold(rows: int) -> list[list[int]]:
    """Return the test parts of KFold(3, shuffle=True, random_state=42), by its definition."""
    order = np.arange(rows)
    np.random.RandomState(42).shuffle(order)
    sizes = [rows // 3 + (part < rows % 3) for part in range(3)]
    ends = np.cumsum(sizes)
    return [sorted(order[end - size : end].tolist()) for size, end in zip(sizes, ends, strict=True)]


def test_emotionet_has_the_folds_of_macg(tmp_path: Path) -> None:
    emotionet(tmp_path, 11, EMOTIONET, unknown=4)
    found = table(tmp_path, "EmotioNet")
    assert found.labels[3:6, 0].tolist() == [0, -1, 0] and found.listed == 11
    assert found.people[0] == "N_0000.jpg"
    for fold in (1, 2, 3):
        data = read_part(Part("EmotioNet", "test", str(tmp_path), fold))
        rows = [int(name[2:6]) for name in data.subjects]
        assert rows == kfold(11)[3 - fold]


def test_the_folds_of_emotionet_do_not_depend_on_what_was_downloaded(tmp_path: Path) -> None:
    sheet = emotionet(tmp_path, 11, EMOTIONET)
    lines = sheet.read_text().splitlines()
    sheet.write_text("\r\n".join([*lines, lines[1]]))  # the first photograph once more
    (tmp_path / "img" / "N_0003.jpg").unlink()
    tested = [
        int(name[2:6])
        for fold in (3, 2, 1)
        for name in read_part(Part("EmotioNet", "test", str(tmp_path), fold)).subjects
    ]
    assert tested == [row for part in kfold(12) for row in part if row not in (3, 11)]
    found = table(tmp_path, "EmotioNet")
    assert found.missing == ["N_0003.jpg/3"] and "1 rows repeat a picture" in found.notes[0]


def test_bad_sheets_are_named(tmp_path: Path) -> None:
    sheet = emotionet(tmp_path, 3, (1, 2))
    with pytest.raises(
        ValueError, match=r"2020.csv, line 1: the AUs must include AU04, .* got 1, 2"
    ):
        table(tmp_path, "EmotioNet")
    lines = sheet.read_text().splitlines()
    for bad, message in (
        (lines[1].replace(",1,0", ",1,7"), r"line 2: a code must be 0, 1, or .* got 7"),
        (lines[1].replace(",1,0", ",1,x"), r"line 2: a line must have 2 whole numbers"),
        (lines[1] + ",0", r"line 2: a line must have 4 values, got 5"),
    ):
        sheet.write_text("\n".join([lines[0], bad, *lines[2:]]))
        with pytest.raises(ValueError, match=message):
            table(tmp_path, "EmotioNet", aus=[1, 2])
    sheet.write_text(lines[0].replace("URL", "address"))
    with pytest.raises(ValueError, match=r"line 1: the columns must include URL, got "):
        table(tmp_path, "EmotioNet", aus=[1, 2])
    excel = write(tmp_path / "EmotioNet_FACS_aws_2020.xlsx", "no sheet")
    assert len(dataset_info("EmotioNet").owner.find(tmp_path)) == 1  # type: ignore[union-attr]
    sheet.rename(tmp_path / "other.csv")
    with pytest.raises(
        (ValueError, ImportError), match=r"2020.xlsx (is|cannot be read as) an Excel"
    ):
        table(tmp_path, "EmotioNet", aus=[1, 2])
    excel.unlink()
    (tmp_path / "other.csv").rename(sheet)
    write(tmp_path / "EmotioNet_FACS_2018.csv", "URL")
    with pytest.raises(ValueError, match=r"one annotation, got .*2018.csv and .*2020.csv"):
        table(tmp_path, "EmotioNet", aus=[1, 2])


@pytest.mark.parametrize(
    ("words", "present"),
    [("4+7+l12", ["AU04", "AU12", "AU12L"]), ("R12", ["AU12"]), ("12", ["AU12"]), ("0+AD19", [])],
)
def test_words_name_aus_and_sides(words: str, present: list[str], tmp_path: Path) -> None:
    aus = AUSet.of(["AU4", "AU12", "AU12L"])
    labels = present_aus(words, aus, tmp_path / "x.txt", 1)
    assert [name for name, label in zip(aus.names, labels, strict=True) if label] == present


def raf_au(root: Path, lines: list[str]) -> None:
    write(root / "RAFAU_label.txt", "\r\n".join([*lines, ""]))
    for number in range(1, len(lines) + 1):
        picture(root / "aligned" / f"{number:04d}_aligned.jpg")


def test_raf_au_has_unpadded_names_and_null(tmp_path: Path) -> None:
    raf_au(
        tmp_path, ["1.jpg 4+r12", "0002.jpg null", "3.jpg 32+M59 ", "4.jpg 1", "5.jpg 2", "6.jpg 4"]
    )
    picture(tmp_path / "original" / "0001.jpg")  # aligned faces are taken
    found = table(tmp_path, "RAF-AU")
    assert found.people == ["1.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg"] and found.listed == 6
    names = AU_SETS["RAF-AU"].names
    assert [names[i] for i in found.labels[0].nonzero().flatten().tolist()] == ["AU04", "AU12"]
    assert found.labels[1].eq(0).all()
    tested = [read_part(Part("RAF-AU", "test", str(tmp_path), fold)).paths for fold in range(1, 6)]
    assert sorted(path for part in tested for path in part) == [
        f"000{number}_aligned.jpg" for number in (1, 3, 4, 5, 6)
    ]
    for bad, message in (("7.jpg", "a picture and its AUs"), ("7.jpg smile", "numbers separated")):
        write(tmp_path / "RAFAU_label.txt", f"1.jpg 4\n{bad}\n")
        with pytest.raises(ValueError, match=rf"RAFAU_label.txt, line 2: .*{message}"):
            table(tmp_path, "RAF-AU")


CASME = "Subject,Filename,,OnsetFrame,ApexFrame,OffsetFrame,,Action Units,Estimated Emotion"


def test_casme2_labels_all_frames_of_an_expression(tmp_path: Path) -> None:
    rows = ["1,EP02_01f,,46,/,48,,4+L10,disgust", "sub02,EP01_02,,3,4,4,,?,others"]
    sheet = write(tmp_path / "CASME2-coding-20140508.csv", "\n".join([CASME, *rows]))
    for number in (46, 48, 49):
        picture(tmp_path / "Cropped" / "sub01" / "EP02_01f" / f"reg_img{number}.jpg")
    found = table(tmp_path, "CASME II")
    assert found.people == ["sub01"] * 2 and found.numbers.tolist() == [46, 48]
    assert found.missing == ["sub1/ep02_01f/47"] and found.listed == 5
    names = AU_SETS["CASME II"].names
    assert [names[i] for i in found.labels[0].nonzero().flatten().tolist()] == ["AU04", "AU10"]
    sheet.write_text("\n".join([CASME, rows[0].replace("46", "x")]))
    with pytest.raises(ValueError, match=r"line 2: OnsetFrame and OffsetFrame .* got 'x' and '48'"):
        table(tmp_path, "CASME II")
    sheet.write_text("\n".join([CASME, rows[0].replace("46", "50")]))
    with pytest.raises(ValueError, match="line 2: OffsetFrame must be at least OnsetFrame, 50,"):
        table(tmp_path, "CASME II")


def fec_line(names: list[str], kind: str, votes: list[int]) -> str:
    faces = [f"http://server/{name},0.0,0.5,0.25,1.0" for name in names]
    return ",".join([*faces, kind, *(f"rater{i},{vote}" for i, vote in enumerate(votes))])


def test_fec_takes_the_face_that_most_raters_chose(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg"]
    lines = [
        fec_line(names, "TWO_CLASS_TRIPLET", [1, 1, 2]),
        fec_line(names, "ONE_CLASS_TRIPLET", [1, 2, 3]),  # no majority
        fec_line(["a.jpg", "b.jpg", "gone.jpg"], "ONE_CLASS_TRIPLET", [2, 2, 2]),
    ]
    file = write(tmp_path / "faceexp-comparison-data-train-public.csv", "\n".join(lines))
    for index, name in enumerate(names):
        image = np.zeros((40, 20, 3), dtype=np.uint8)
        image[10:, :10] = 50 * (index + 1)  # the box
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / name.replace("jpg", "png"))
        (tmp_path / "images" / name.replace("jpg", "png")).rename(tmp_path / "images" / name)

    def shade(sample: dict) -> dict:
        pixels = np.asarray(sample["image"])
        assert pixels.shape == (30, 10, 3)
        return {"image": torch.tensor(float(pixels.mean()))}

    data = read_triplets(Part("FEC", root=str(tmp_path), fold=None), shade)
    assert len(data) == 1 and "1 of 2 triplets lack a photograph" in data.notes[0]
    assert data[0]["image"].tolist() == [100, 150, 50] and data[0]["margin"] == pytest.approx(0.2)
    with pytest.raises(FileNotFoundError, match="data-test-public.csv"):
        read_triplets(Part("FEC", "val", str(tmp_path)), shade)
    file.with_name("faceexp-comparison-data-test-public.csv").write_text(lines[0])
    assert len(read_triplets(Part("FEC", "val", str(tmp_path)), shade)) == 1
    with pytest.raises(NoSuchPart, match="FEC has no test part"):
        read_triplets(Part("FEC", "test", str(tmp_path)), shade)
    for bad in (
        lines[0].replace("0.5", "1.5"),
        lines[0].replace("TWO", "SIX"),
        "a,b",
        lines[0] + ",r,4",
    ):
        file.write_text(f"{lines[0]}\n{bad}\n")
        with pytest.raises(ValueError, match=r"public.csv, line 2: a line must have three faces"):
            read_fec(file)

"""Readers of list files, on small folders of the released layouts."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aurel.data.images import open_rgb
from aurel.data.lists import (
    ListDataset,
    read_class_weights,
    read_labels,
    read_landmarks,
    subject_of,
)
from aurel.data.registry import dataset_info
from aurel.data.transforms import EvalTransform

BP4D_PATHS = ["F001/T1/2440.jpg", "F001/T1/2441.jpg", "M007/T2/1.jpg"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def picture(path: Path, color: tuple[int, int, int] = (200, 30, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), color).save(path)


@pytest.fixture
def bp4d(tmp_path: Path) -> Path:
    root = tmp_path / "BP4D"
    for path in BP4D_PATHS:
        picture(root / "img" / path)
    write(root / "list" / "BP4D_train_img_path_fold1.txt", "\n".join(BP4D_PATHS) + "\n")
    rows = ["1 0 0 0 0 1 1 0 0 0 0 0", "0 9 0 0 0 1 1 0 0 0 0 0", "0 0 -1 0 0 1 1 0 0 0 0 999"]
    write(root / "list" / "BP4D_train_label_fold1.txt", "\n".join(rows) + "\n")
    return root


def test_reads_images_labels_and_subjects(bp4d: Path) -> None:
    data = ListDataset(bp4d, "BP4D", fold=1, split="train", transform=EvalTransform(16, 16))
    assert len(data) == 3
    assert data.aus.numbers == (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
    assert data.subjects == ["F001", "F001", "M007"]
    item = data[2]
    assert item["image"].shape == (3, 16, 16) and item["image"].dtype == torch.float32
    assert item["labels"].dtype == torch.float32
    assert item["subject"] == 1
    assert "landmarks" not in item


def test_unknown_labels_become_minus_one(bp4d: Path) -> None:
    labels = ListDataset(bp4d).labels
    assert labels[1, 1] == -1 and labels[2, 2] == -1 and labels[2, 11] == -1
    assert set(labels.unique().tolist()) == {-1, 0, 1}


def test_disfa_of_mdhr_with_crlf_and_no_last_newline(tmp_path: Path) -> None:
    root = tmp_path / "DISFA"
    picture(root / "img_o" / "SN002/SN002_0.png")
    picture(root / "img_o" / "SN010/SN010_3.png")
    write(root / "DISFA_train_path_fold2.txt", "SN002/SN002_0.png\r\nSN010/SN010_3.png")
    write(root / "DISFA_train_label_fold2.txt", "0 0 0 0 0 0 0 0\r\n0 1.0 0 0 0 0 1 0")
    data = ListDataset(root, "DISFA", fold=2)
    assert data.subjects == ["SN002", "SN010"]
    assert data.labels[1].tolist() == [0, 1, 0, 0, 0, 0, 1, 0]
    assert data[1]["image"].size == (16, 16)


def test_emotionet_under_its_tools_prefix_has_a_subject_an_image(tmp_path: Path) -> None:
    write(tmp_path / "Emotio_test_img_path_fold1.txt", "N_1.jpg\nN_2.jpg\n")
    write(tmp_path / "EmotioNet_test_label_fold1.txt", ("0 " * 12 + "\n") * 2)
    data = ListDataset(tmp_path, "EmotioNet", split="test")
    assert data.subjects == ["N_1.jpg", "N_2.jpg"]
    assert len(data.aus) == 12


def test_hybrid_lists_have_no_fold_and_name_the_source(tmp_path: Path) -> None:
    write(tmp_path / "hybrid_val_img_path.txt", "BP4D/F001/T1/2440.jpg\nDISFA/SN002/0.png\n")
    write(tmp_path / "hybrid_val_label.txt", ("-1 " * 41 + "\n") * 2)
    data = ListDataset(tmp_path, "hybrid", fold=None, split="val")
    assert data.subjects == ["BP4D/F001", "DISFA/SN002"]
    assert len(data.aus) == 41


def test_own_data_set_needs_its_aus(tmp_path: Path) -> None:
    write(tmp_path / "mine_train_path_fold1.txt", "a/1.png\n")
    write(tmp_path / "mine_train_label_fold1.txt", "1 0\n")
    with pytest.raises(ValueError, match="with their aus, got 'mine'; nearest: "):
        ListDataset(tmp_path, "mine")
    assert ListDataset(tmp_path, "mine", aus=[12, 25]).aus.names == ("AU12", "AU25")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1 0", "1 0 1"], r"label\.txt, line 2: a line must have 2 labels, got 3"),
        (["1 0", "", "1 0"], r"line 2: a line must have 2 labels, got 0"),
        (["1 x"], r"line 1: a label must be one of 1, 0, -1, 9, 999, got 'x'"),
        (["0 0", "0 2"], r"line 2: a label must be one of .*, got '2'"),
        (["0 0.5"], r"line 1: .* got '0\.5'"),
        (["0 nan"], r"line 1: .* got 'nan'"),
        (["0 inf"], r"line 1: .* got 'inf'"),
    ],
)
def test_a_bad_label_is_named_with_file_and_line(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(write(tmp_path / "label.txt", "\n".join(rows)), 2)


def test_lists_must_pair(bp4d: Path) -> None:
    write(bp4d / "list" / "BP4D_train_label_fold1.txt", "0 0 0 0 0 1 1 0 0 0 0 0\n")
    with pytest.raises(ValueError, match=r"label.* must have 3 lines, as .*img_path.* has, got 1"):
        ListDataset(bp4d)


def test_missing_files_are_named(bp4d: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="data folder .*nowhere does not exist"):
        ListDataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"BP4D_test_img_path_fold1.txt or BP4D_test_path"):
        ListDataset(bp4d, split="test")
    (bp4d / "img" / BP4D_PATHS[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"2441.jpg, named in .*img_path.*, line 2"):
        ListDataset(bp4d)[1]
    write(bp4d / "img" / BP4D_PATHS[0], "not a picture")
    with pytest.raises(ValueError, match=r"2440.jpg cannot be read as a picture.*line 1"):
        ListDataset(bp4d)[0]


def test_of_two_image_folders_one_must_be_given(bp4d: Path) -> None:
    (bp4d / "img-dlib").mkdir()
    with pytest.raises(ValueError, match="images must be one of the existing folders .* and"):
        ListDataset(bp4d)
    assert ListDataset(bp4d, images=bp4d / "img")[0]["image"].mode == "RGB"


@pytest.mark.parametrize("points", [49, 66, 68])
def test_landmarks_of_any_scheme_become_49(bp4d: Path, points: int) -> None:
    line = " ".join(f"{i} {i + 0.5}" for i in range(points))
    missing = " ".join(["nan"] * (2 * points))
    text = "\n".join([line, missing, line])
    file = write(bp4d / "list" / "BP4D_train_landmark_fold1.txt", text)
    landmarks = read_landmarks(file)
    assert landmarks.shape == (3, 49, 2)
    assert landmarks[1].isnan().all()
    first = {49: 0, 66: 17, 68: 17}[points]  # the brow comes first once the jaw is dropped
    assert landmarks[0, 0].tolist() == [first, first + 0.5]
    assert landmarks[0, -1].tolist() == [points - 1, points - 0.5]
    assert torch.equal(ListDataset(bp4d)[0]["landmarks"], landmarks[0])


def test_bad_landmark_lines_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"marks.txt, line 1: .* got 3 numbers"):
        read_landmarks(write(tmp_path / "marks.txt", "1 2 3"))


@pytest.mark.parametrize("name", ["BP4D_weight_fold1.txt", "BP4D_train_weight_fold1.txt"])
def test_class_weights_under_both_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "\t".join(["1.5"] * 12))
    assert read_class_weights(tmp_path, "BP4D", 1, 12).tolist() == [1.5] * 12
    with pytest.raises(ValueError, match="number of weights must be 8, got 12"):
        read_class_weights(tmp_path, "BP4D", 1, 8)
    with pytest.raises(FileNotFoundError, match="no BP4D_weight_fold2.txt or BP4D_train_weight"):
        read_class_weights(tmp_path, "BP4D", 2, 12)


@pytest.mark.parametrize(
    ("path", "dataset", "subject"),
    [
        ("F001/T1/2440.jpg", "BP4D", "F001"),
        ("./SN002/0.png", "DISFA", "SN002"),
        ("BP4D/F001/T1/1.jpg", "hybrid", "BP4D/F001"),
        ("N_1.jpg", "EmotioNet", "N_1.jpg"),
    ],
)
def test_subject_of(path: str, dataset: str, subject: str) -> None:
    assert subject_of(path, dataset_info(dataset).merged) == subject


def test_pictures_of_any_kind_become_rgb(tmp_path: Path) -> None:
    level = np.full((4, 6), 128, np.uint8)
    Image.fromarray(level).save(tmp_path / "gray.png")
    Image.fromarray(level.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    alpha = np.zeros((4, 6, 4), np.uint8)
    alpha[..., 0] = 255
    alpha[:, :3, 3] = 255
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    Image.fromarray(level).convert("P").save(tmp_path / "palette.png")
    for name in ("gray", "deep", "palette"):
        image = np.asarray(open_rgb(tmp_path / f"{name}.png"))
        assert image.shape == (4, 6, 3) and (image == 128).all(), name
    image = np.asarray(open_rgb(tmp_path / "alpha.png"))
    assert image[0, 0].tolist() == [255, 0, 0] and image[0, 5].tolist() == [0, 0, 0]


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
def test_a_picture_needs_its_file_no_longer(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(path)
    picture = open_rgb(path)
    path.unlink()
    levels = np.asarray(picture)
    assert levels.shape == (4, 6, 3)
    assert np.array_equal(levels, np.asarray(pickle.loads(pickle.dumps(picture))))


def test_the_orientation_tag_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_rgb(tmp_path / "turned.jpg").size == (4, 6)

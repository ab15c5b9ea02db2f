"""Chips of data sets and files: the person, the landmarks, and frames without a chip."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.owner_trees import bp4d_task, disfa_person, write
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("av")

from aurel.data import ListDataset
from aurel.data.owners.dataset import read_table
from aurel.data.registry import INTENSITIES, Part, dataset_info
from aurel.vision.align import ALIGNMENTS
from aurel.vision.face_detector import Face, whole_image
from aurel.vision.inputs import find_files
from aurel.vision.opencv import cv2
from aurel.vision.outputs import VideoWriter
from aurel.vision.preparation.main_person import main_person
from aurel.vision.preparation.preparer import ChipOptions, UnitPreparer
from aurel.vision.preparation.run import Dataset, Prepared, plan_dataset, plan_files, prepare

PEOPLE = ("F001", "F003", "F007")  # parts 1, 2 and 3 of the published folds of BP4D


def blobs(image: NDArray[np.uint8]) -> list[Face]:
    """Find bright rectangles, with five points in the places of a face."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 200).astype(np.uint8))
    faces = []
    for x, y, width, height, _ in sorted(stats[1:].tolist()):
        places = [(0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.75), (0.65, 0.75)]
        points = tuple((x + a * width, y + b * height) for a, b in places)
        faces.append(Face(x, y, width, height, confidence=0.9, points=points))
    return faces


def scene(*boxes: tuple[int, int, int], level: int = 255) -> NDArray[np.uint8]:
    image = np.zeros((80, 120, 3), dtype=np.uint8)
    for x, y, side in boxes:
        image[y : y + side, x : x + side] = level
    return image


def save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def bp4d(root: Path, frames: dict[int, Any]) -> Dataset:
    """Write a BP4D whose people all have the same frames; an array is a picture of `F001`."""
    for person in PEOPLE:
        bp4d_task(root, person, "T1", {frame: [12] for frame in frames})
        for frame, image in frames.items():
            path = root / "2D+3D" / person / "T1" / f"{frame}.png"
            if image is None:
                write(path, "no picture")
            else:
                save(path, image)
    return dataset("BP4D", root)


def dataset(name: str, root: Path) -> Dataset:
    info = dataset_info(name)
    assert info.owner is not None
    return Dataset(info, info.owner, read_table(info, Part(name, root=str(root))))


def run(work: Any, out: Path, detector: Any = blobs, **options: Any) -> Prepared:
    chips = ChipOptions(out, size=64, kind="png", **options)
    preparer = UnitPreparer(detector, None, chips)
    return prepare(work(chips), chips, lambda units: map(preparer, units), lambda _: None)


def prepared(found: Dataset, out: Path, detector: Any = blobs) -> Prepared:
    return run(lambda chips: plan_dataset(found, chips), out, detector)


def frames(out: Path) -> Iterator[dict[str, str]]:
    with (out / "frames.csv").open(newline="") as file:
        yield from csv.DictReader(file)


@pytest.mark.parametrize(
    ("faces", "people"),
    [
        ([(0, 0, 9.0)], {0}),
        ([], set()),
        # Two people: the one with the larger sum of areas.
        ([(0, 0, 9.0), (0, 1, 20.0), (1, 0, 9.0), (1, 1, 20.0)], {1}),
        # Hidden for some time, and found again under another number.
        ([(0, 0, 20.0), (1, 0, 20.0), (50, 1, 22.0)], {0, 1}),
        # A false box while the person is hidden is much smaller.
        ([(0, 0, 20.0), (1, 0, 20.0), (20, 1, 6.0)], {0}),
        # Who was in a frame with the person is not the person later.
        ([(0, 0, 20.0), (0, 1, 19.0), (1, 1, 19.0), (2, 0, 20.0), (3, 0, 20.0)], {0}),
    ],
)
def test_the_person_with_the_largest_faces(
    faces: list[tuple[int, int, float]], people: set[int]
) -> None:
    assert main_person(faces) == people


def test_frames_without_a_face_are_in_no_list(tmp_path: Path) -> None:
    big, small = (10, 10, 40), (80, 10, 16)
    images = {1: scene(big, small), 2: scene(), 3: scene(small), 4: None, 15: scene(big, small)}
    found = prepared(bp4d(tmp_path / "BP4D", images), tmp_path / "out")
    assert (found.chips, found.without) == (6, 9)
    listed = ListDataset(tmp_path / "out", "BP4D", 1, "train")
    assert sorted(listed.paths)[:2] == ["F001/T1/1.png", "F001/T1/15.png"]
    reasons = {r["frame"]: r["reason"] for r in frames(tmp_path / "out") if "F001" in r["input"]}
    assert reasons["2"] == "no face was found"
    assert reasons["3"] == "the faces are those of other people"
    assert reasons["4"].startswith(f"{tmp_path}/BP4D/2D+3D/F001/T1/4.png cannot be read")
    assert reasons["1"] == reasons["15"] == ""
    files = sorted(p.name for p in (tmp_path / "out/img/F001").rglob("*") if p.is_file())
    assert files == ["1.png", "15.png"]


def test_the_points_of_a_face_lie_at_the_template(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", scene((10, 10, 40)))
    files = find_files([tmp_path / "in"]).files
    run(lambda chips: plan_files(files, chips), tmp_path / "out", alignment="mtcnn")
    image = np.asarray(Image.open(tmp_path / "out/img/a/0/0.png"))
    (box,) = blobs(image)  # the bright square, moved by the alignment
    eyes = np.array(ALIGNMENTS["mtcnn"].points)[:2] * 64
    assert np.allclose(box.points[:2], eyes, atol=4) and image.shape == (64, 64, 3)


def test_the_owners_landmarks_move_into_the_chip(tmp_path: Path) -> None:
    root = tmp_path / "DISFA"
    for person in ("SN001", "SN002", "SN003"):
        disfa_person(root, person, {1: [0, 3], 2: [5, 0]})
        folder = root / "Videos_LeftCamera"
        folder.mkdir(exist_ok=True)
        with VideoWriter(folder / f"LeftVideo{person}_comp.mp4", (120, 80), 20) as writer:
            for x in (10, 50):
                writer.write(scene((x, 20, 40)))
        for frame, x in enumerate((10, 50)):
            # All points are the center of the square.
            lines = [f"{x + 20} {40}"] * 66
            name = f"{person}_{frame:04d}_lm.txt"
            write(root / "Landmark_Points" / person / name, "\n".join(lines))
    found = prepared(dataset("DISFA", root), tmp_path / "out")
    assert (found.chips, found.landmarks) == (6, 6)
    listed = ListDataset(tmp_path / "out", "DISFA", 1, "train")
    assert listed.landmarks is not None and listed.landmarks.shape == (len(listed), 49, 2)
    # The square fills 40 x 40 pixels of the picture, and its center is the landmark.
    for index in range(len(listed)):
        image = np.asarray(listed[index]["image"])
        rows, columns = np.nonzero(image[..., 0] > 128)
        center = [(columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2]
        assert np.allclose(listed.landmarks[index, 13], center, atol=1.0)
    levels = ListDataset(
        tmp_path / "out", "DISFA", 1, "train", codes=INTENSITIES, label_kinds=("intensity",)
    )
    assert levels.labels[:2, :2].tolist() == [[0, 5], [3, 0]]
    assert listed.labels[:2, :2].tolist() == [[0, 1], [1, 0]]


def test_frames_that_the_video_lacks_are_named(tmp_path: Path) -> None:
    root = tmp_path / "DISFA"
    for person in ("SN001", "SN002", "SN003"):
        disfa_person(root, person, {1: [0, 3, 3]})
        (root / "Videos_LeftCamera").mkdir(exist_ok=True)
        with VideoWriter(root / f"Videos_LeftCamera/{person}.mp4", (120, 80), 20) as writer:
            for _ in range(2):
                writer.write(scene((10, 20, 40)))
    assert prepared(dataset("DISFA", root), tmp_path / "out").chips == 6
    reasons = [row["reason"] for row in frames(tmp_path / "out") if row["frame"] == "3"]
    assert reasons == ["the video has no such frame"] * 3


def test_pictures_in_zip_files(tmp_path: Path) -> None:
    root = tmp_path / "BP4D"
    bp4d(root, {7: scene((10, 10, 40)), 8: scene((12, 10, 40))})
    for person in PEOPLE:
        folder = root / "2D+3D" / person / "T1"
        with zipfile.ZipFile(root / "2D+3D" / f"{person}.zip", "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"T1/{path.name}")
                path.unlink()
        folder.rmdir()
        folder.parent.rmdir()
    assert prepared(dataset("BP4D", root), tmp_path / "out").chips == 6


def test_a_changed_input_leaves_no_old_chips(tmp_path: Path) -> None:
    path = tmp_path / "in/a.png"
    save(path, scene((10, 10, 30), (60, 10, 30)))
    work = lambda chips: plan_files(find_files([tmp_path / "in"]).files, chips)  # noqa: E731
    assert run(work, tmp_path / "out").chips == 2
    save(path, scene((10, 10, 40)))
    save(tmp_path / "in/b.png", scene())
    found = run(work, tmp_path / "out")
    assert found.chips == 1 and len(found.outcomes) == 2
    left = [p for p in (tmp_path / "out/img").rglob("*") if p.is_file()]
    assert left == [tmp_path / "out/img/a/0/0.png"]
    assert run(work, tmp_path / "out").outcomes == []


def test_labels_that_change_are_written_without_new_chips(tmp_path: Path) -> None:
    root, out = tmp_path / "BP4D", tmp_path / "out"
    found = bp4d(root, {1: scene((10, 10, 40)), 2: scene((10, 10, 40))})
    assert len(prepared(found, out).outcomes) == 3
    bp4d_task(root, "F001", "T1", {1: [6], 2: [6]})
    assert prepared(dataset("BP4D", root), out).outcomes == []
    labels = ListDataset(out, "BP4D", 1, "train").labels
    assert labels[0].tolist() == [0, 0, 0, 1, *[0] * 8]
    # A frame less: the video is prepared again.
    bp4d_task(root, "F001", "T1", {1: [6]})
    assert [o.input for o in prepared(dataset("BP4D", root), out).outcomes] == ["F001/T1"]
    assert not (out / "img/F001/T1/2.png").exists()


def test_crops_are_taken_whole(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", scene((0, 0, 80))[:, :80])
    files = find_files([tmp_path / "in"]).files
    run(lambda chips: plan_files(files, chips), tmp_path / "out", whole_image, margin=0.0)
    image = np.asarray(Image.open(tmp_path / "out/img/a/0/0.png"))
    assert (image == 255).all()

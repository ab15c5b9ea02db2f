"""Small data sets in the layouts in which their owners send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

BP4D_CODED = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 28)
BP4D = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
DISFA_CODED = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def picture(path: Path, shade: int = 90, size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (shade % 256, 30, 60)).save(path)
    return path


def bp4d_task(
    root: Path,
    person: str,
    task: str,
    frames: Mapping[int, Sequence[int]],
    codes: Mapping[tuple[int, int], int] | None = None,
    end: str = "\n",
) -> Path:
    """Write the csv file of a task: the AUs that are present in each frame, and other codes.

    Args:
        root: folder of the data set.
        person, task: as in the names of the files.
        frames: numbers of the present AUs, by the number of the frame.
        codes: codes that replace those of a frame and an AU.
        end: line end.
    """
    lines = [",".join(["0", *map(str, BP4D_CODED)])]
    for frame, present in frames.items():
        row = [(codes or {}).get((frame, au), int(au in present)) for au in BP4D_CODED]
        lines.append(",".join(map(str, [frame, *row])))
    file = root / "AUCoding" / "AU_OCC" / f"{person}_{task}.csv"
    return write(file, end.join([*lines, ""]))


def bp4d(root: Path, people: Sequence[str], frames: int = 3) -> Path:
    """Write a BP4D with one task for each person, whose red shade shows AU 12."""
    for index, person in enumerate(people):
        shown = {frame: [12] if (frame + index) % 2 else [6] for frame in range(5, 5 + frames)}
        bp4d_task(root, person, "T1", shown)
        for frame, present in shown.items():
            name = f"{person}/T1/{frame:04d}.jpg"
            picture(root / "Sequences(2D+3D)" / name, 230 if 12 in present else 20)
    return root


def disfa_person(
    root: Path,
    person: str,
    levels: Mapping[int, Sequence[int]],
    first: int = 1,
    end: str = "\n",
) -> None:
    """Write the label files of a person: the intensity of each frame from `first`, by AU."""
    for au, values in levels.items():
        lines = [f"{frame},{value}" for frame, value in enumerate(values, first)]
        write(root / "ActionUnit_Labels" / person / f"{person}_au{au}.txt", end.join([*lines, ""]))


def disfa(root: Path, people: Sequence[str], frames: int = 4) -> Path:
    """Write a DISFA of aligned faces, whose red shade shows AU 12, with files of all AUs."""
    rng = np.random.default_rng(0)
    for person in people:
        levels = {au: rng.integers(0, 6, frames).tolist() for au in DISFA_CODED}
        disfa_person(root, person, levels)
        for frame in range(frames):
            shade = 40 * levels[12][frame]
            picture(root / "img" / person / f"{frame + 1}.png", shade)
    return root


def disfa_plus_trial(
    root: Path, person: str, trial: str, levels: Mapping[int, Sequence[int]]
) -> None:
    """Write the label files and pictures of a trial, whose frames count from 0."""
    for au, values in levels.items():
        lines = ["% AU intensity", "Image     Intensity"]
        lines += [f"{frame:03d}.jpg     {value}" for frame, value in enumerate(values)]
        write(root / "Labels" / person / trial / f"AU{au}.txt", "\r\n".join([*lines, ""]))
    for frame in range(len(next(iter(levels.values())))):
        picture(root / "Images" / person / trial / f"{frame:03d}.jpg")


def emotionet(root: Path, rows: int, aus: Sequence[int], unknown: int | None = None) -> Path:
    """Write a sheet of `rows` photographs; the first AU is present in every second of them."""
    names = ["URL", "URL orig", *(f"'AU {au}'" for au in aus)]
    lines = [",".join(names)]
    for row in range(rows):
        codes = [999 if row == unknown else (row + 1) % 2, *[0] * (len(aus) - 1)]
        url = f"'http://server/EmotioNet/images/N_{row:04d}.jpg'"
        lines.append(",".join([url, "'http://other/x.jpg'", *map(str, codes)]))
        picture(root / "img" / f"N_{row:04d}.jpg")
    return write(root / "EmotioNet_FACS_aws_2020.csv", "\n".join(lines))

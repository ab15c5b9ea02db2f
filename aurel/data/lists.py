"""Data sets as text lists: a line per frame, in a file of paths and a file of labels.

The format is that of the lists released with ME-GraphAU, MDHR, MACG and OpenGraphAU:
``BP4D_train_img_path_fold1.txt`` beside ``BP4D_train_label_fold1.txt``, and so on. Fold f of those
lists tests on part 4 - f of the three subject groups (`aurel.facs`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aurel.data.base import AUDataset, Transform
from aurel.data.images import open_rgb
from aurel.data.list_files import (
    find_list,
    find_part,
    first_file,
    image_folder,
    list_folder,
    list_lines,
    list_prefixes,
)
from aurel.data.registry import LABELS, ListSplit, dataset_info
from aurel.data.text import read_text
from aurel.facs import LANDMARKS_66_TO_49, LANDMARKS_68_TO_49, AUSet, AUSpec

if TYPE_CHECKING:
    from PIL import Image

_LANDMARK_SCHEMES: dict[int, Sequence[int]] = {
    98: range(49),
    132: LANDMARKS_66_TO_49,
    136: LANDMARKS_68_TO_49,
}


class ListDataset(AUDataset):
    """Images and AU labels named by list files.

    Args:
        root: folder of the data set.
        dataset: a registered name (`list_datasets`), with which the names of its list files begin,
            or the prefix of your own list files, with `aus`.
        fold: number in the file names; None for names without a number.
        split: "train", "val" or "test".
        lists: folder of the list files; by default ``root/list``, or `root` itself.
        images: folder that the listed paths are relative to; by default the one of ``img``,
            ``img-dlib`` and ``img_o`` in `root` that exists, or `root` itself.
        aus: the AUs in the order of the label columns; by default those of `dataset`.
        codes: the label of each code in the label list; by default those of `dataset`.
        label_kinds: words in the name of the label list, of which the first that exists is taken.
        transform: function from a sample with a PIL image to a sample with a tensor
            (`aurel.data.transforms`); None for the PIL image.

    Items are dicts: ``image``, ``labels`` float32 (N,) in {1, 0, -1}, ``subject`` int, and
    ``landmarks`` float32 (49, 2) in pixels where there is a list of them (see `read_landmarks`).

    Raises:
        NoSuchPart: the lists of paths and of labels are both missing.
        FileNotFoundError: a folder or one of the lists is missing.
        ValueError: a list has a bad line, or the lists differ in length.
    """

    subjects: list[str]

    def __init__(
        self,
        root: str | Path,
        dataset: str = "BP4D",
        fold: int | None = 1,
        split: ListSplit = "train",
        *,
        lists: str | Path | None = None,
        images: str | Path | None = None,
        aus: AUSpec | None = None,
        codes: Mapping[str, int] | None = None,
        label_kinds: Sequence[str] = ("label",),
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"the data folder {self.root} does not exist")
        info = dataset_info(dataset, aus)
        self.dataset = dataset
        self.fold = fold
        self.aus = au_set_of(dataset, aus)
        self.transform = transform
        self.lists = Path(lists) if lists is not None else list_folder(self.root)
        self.images = Path(images) if images is not None else image_folder(self.root)
        prefixes = list_prefixes(info, dataset)
        self.path_list, label_list = find_part(self.lists, prefixes, split, fold, label_kinds)
        self.paths = read_paths(self.path_list)
        self.labels = read_labels(label_list, len(self.aus), codes or info.labels)
        _same_length(self.path_list, self.paths, label_list, self.labels)
        inside = _inside(self.paths, self.images, self.path_list)
        self.keys = [frame_key(path) for path in inside]
        self._name_subjects([subject_of(path, info.merged) for path in inside])
        self.layout = f"lists in {self.lists}, pictures in {self.images}"
        self.landmarks: Tensor | None = None
        try:
            landmark_list = find_list(self.lists, prefixes, split, ("landmark",), fold)
        except FileNotFoundError:
            return
        self.landmarks = read_landmarks(landmark_list)
        _same_length(self.path_list, self.paths, landmark_list, self.landmarks)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {
            "image": self._open(index),
            "labels": self.labels[index].float(),
            "subject": self._codes[index],
        }
        if self.intensity is not None:
            sample["intensity"] = self.intensity[index].float()
        if self.landmarks is not None:
            sample["landmarks"] = self.landmarks[index]
        return self.transform(sample) if self.transform is not None else sample

    def keys_of(self, items: Sequence[int]) -> list[str]:
        """Return the name of each frame: its path without suffix, and its number without zeros."""
        return [self.keys[item] for item in items]

    def pictures_of(self, items: Sequence[int]) -> list[Path]:
        """Return the pictures of these items."""
        return [self.images / self.paths[item] for item in items]

    def class_weights(self) -> Tensor:
        """Return the published class weights, see `read_class_weights`."""
        return read_class_weights(self.lists, self.dataset, self.fold, len(self.aus))

    def _open(self, index: int) -> Image.Image:
        """Read the picture of a frame."""
        return open_listed(self.images / self.paths[index], *self._source(index))

    def _source(self, index: int) -> tuple[Path, int]:
        """Return the file that names a frame, and the line in it."""
        return self.path_list, range(len(self))[index] + 1

    def _name_subjects(self, subjects: list[str]) -> None:
        """Set the subject of each frame, and its number."""
        codes = {name: code for code, name in enumerate(sorted(set(subjects)))}
        self.subjects = subjects
        self._codes = [codes[name] for name in subjects]


def au_set_of(dataset: str, aus: AUSpec | None = None) -> AUSet:
    """Return the AUs of the label columns of `dataset`; `aus` where given.

    Raises:
        ValueError: no data set has that name, or its AUs are not registered.
    """
    if aus is not None:
        return AUSet.of(aus)
    chosen = dataset_info(dataset).aus
    if chosen is None:
        raise ValueError(f"aus must be the AUs of the label columns of {dataset}, got None")
    return chosen


def read_paths(file: Path) -> list[str]:
    """Read a list of image paths, one per line, relative to the folder of the images."""
    lines = list_lines(file)
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(
                f"{file}, line {number}: an image path must be given, got an empty line"
            )
    if not lines:
        raise ValueError(f"{file} must list at least one image, got an empty file")
    return [line.replace("\\", "/") for line in lines]


def read_labels(file: Path, num_aus: int, codes: Mapping[str, int] = LABELS) -> Tensor:
    """Read a list of AU labels.

    Args:
        file: text file with `num_aus` codes per line.
        num_aus: number N of columns.
        codes: the label of each code: 1 present, 0 absent, -1 unknown.

    Returns:
        (n, N) int8 in {1, 0, -1}.
    """
    rows = []
    for number, line in enumerate(list_lines(file), start=1):
        words = line.split()
        if len(words) != num_aus:
            raise ValueError(
                f"{file}, line {number}: a line must have {num_aus} labels, got {len(words)}"
            )
        try:
            rows.append([codes[word] for word in words])
        except KeyError:
            rows.append([_label(word, codes, f"{file}, line {number}") for word in words])
    return torch.tensor(rows, dtype=torch.int8).reshape(-1, num_aus)


def read_landmarks(file: Path) -> Tensor:
    """Read ``<dataset>_<split>_landmark_fold<f>.txt``: x1 y1 x2 y2 ... of a face per line.

    This format is the project's own: 49, 66 or 68 points in pixels of the stored image, "nan" where
    no face was found.

    Returns:
        (n, 49, 2) float32.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(list_lines(file), start=1):
        try:
            row = [float(word) for word in line.split()]
        except ValueError as error:
            raise ValueError(
                f"{file}, line {number}: coordinates must be numbers ({error})"
            ) from error
        if len(row) not in _LANDMARK_SCHEMES or (rows and len(row) != len(rows[0])):
            raise ValueError(
                f"{file}, line {number}: a line must have x and y of 49, 66 or 68 points, the "
                f"same number on every line, got {len(row)} numbers"
            )
        rows.append(row)
    if not rows:
        return torch.zeros(0, 49, 2)
    points = torch.from_numpy(np.asarray(rows, dtype=np.float32)).reshape(len(rows), -1, 2)
    return points[:, list(_LANDMARK_SCHEMES[len(rows[0])])]


def read_class_weights(folder: Path, dataset: str, fold: int | None, num_aus: int) -> Tensor:
    """Read published class weights, ``BP4D_weight_fold1.txt`` or ``BP4D_train_weight_fold1.txt``.

    Returns:
        (N,) float32.
    """
    end = "" if fold is None else f"_fold{fold}"
    file = first_file(folder, [f"{dataset}_{kind}{end}.txt" for kind in ("weight", "train_weight")])
    try:
        weights = [float(word) for word in read_text(file).split()]
    except ValueError as error:
        raise ValueError(f"{file}: weights must be numbers ({error})") from error
    if len(weights) != num_aus:
        raise ValueError(f"{file}: the number of weights must be {num_aus}, got {len(weights)}")
    return torch.tensor(weights)


def subject_of(path: str, merged: bool = False) -> str:
    """Return the subject of an image: the top folder of its path, or a path without folders.

    Args:
        path: path in a list: the subject of "F001/T1/2440.jpg" is F001.
        merged: whether the list merges data sets: the subject of "BP4D/F001/T1/2440.jpg" is
            BP4D/F001.
    """
    parts = posixpath.normpath(path).split("/")
    depth = 2 if merged else 1
    return "/".join(parts[:depth]) if len(parts) > depth else path


def frame_key(path: str) -> str:
    """Return the name of a frame by its path: "F001/T1/7" for "./F001/T1/0007.jpg"."""
    stem = posixpath.splitext(posixpath.normpath(path))[0]
    return re.sub(r"(?<!\d)0+(?=\d+$)", "", stem)


def _inside(paths: Sequence[str], images: Path, file: Path) -> list[str]:
    """Return the paths relative to the folder `images`; absolute ones must be in it."""
    start = posixpath.normpath(images.absolute().as_posix()) + "/"
    inside = []
    for number, path in enumerate(paths, start=1):
        if path.startswith("/"):
            path = posixpath.normpath(path)
            if not path.startswith(start):
                raise ValueError(
                    f"{file}, line {number}: a path must be relative to the folder of images, "
                    f"{images}, or in it, got {path}"
                )
            path = path.removeprefix(start)
        inside.append(path)
    return inside


def _label(word: str, codes: Mapping[str, int], where: str) -> int:
    """Return the label of a code that may be written as a decimal, such as "1.0"."""
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if value.is_integer() and str(int(value)) in codes:
        return codes[str(int(value))]
    raise ValueError(f"{where}: a label must be one of {', '.join(codes)}, got {word!r}")


def open_listed(path: Path, file: Path, line: int) -> Image.Image:
    """Read the picture in a line of a list; errors name the list and the line."""
    where = f"named in {file}, line {line}"
    try:
        return open_rgb(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no image {path}, {where}") from error
    except ValueError as error:
        raise ValueError(f"{error} ({where})") from error


def _same_length(a: Path, in_a: Sequence[Any], b: Path, in_b: Sequence[Any] | Tensor) -> None:
    if len(in_a) != len(in_b):
        raise ValueError(f"{b} must have {len(in_a)} lines, as {a} has, got {len(in_b)}")

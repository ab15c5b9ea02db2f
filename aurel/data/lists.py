"""Data sets that come as text lists: one frame a line, a file of paths beside a file of labels.

The format is that of the lists released with ME-GraphAU, MDHR, MACG and OpenGraphAU:
``BP4D_train_img_path_fold1.txt`` beside ``BP4D_train_label_fold1.txt``, and so on. Fold f of those
lists tests on part 4 - f of the three subject groups (`aurel.facs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aurel.data.images import open_rgb
from aurel.facs import LANDMARKS_66_TO_49, LANDMARKS_68_TO_49, AUSet

if TYPE_CHECKING:
    from PIL import Image

ListSplit = Literal["train", "val", "test"]

# Unknown is coded 9 in BP4D, 999 in EmotioNet and -1 in the lists that merge data sets.
LABELS = {"1": 1, "0": 0, "-1": -1, "9": -1, "999": -1}
IMAGE_FOLDERS = ("img", "img-dlib", "img_o")
_LANDMARK_SCHEMES: dict[int, Sequence[int]] = {
    98: range(49),
    132: LANDMARKS_66_TO_49,
    136: LANDMARKS_68_TO_49,
}


class ListDataset(Dataset[dict[str, Any]]):
    """Images and AU labels named by list files.

    Args:
        root: folder of the data set.
        dataset: the prefix of the list files: "BP4D", "DISFA", "EmotioNet", "hybrid", or any
            other together with `aus`.
        fold: number in the file names; None where they carry none.
        split: "train", "val" or "test".
        lists: folder of the list files; by default ``root/list``, or `root` itself.
        images: folder that the listed paths start from; by default the one of ``img``,
            ``img-dlib`` and ``img_o`` under `root` that exists, or `root` itself.
        aus: the AUs in the order of the label columns; by default those of `dataset`.
        transform: from a sample with a PIL image to a sample with a tensor
            (`aurel.data.transforms`); None leaves the PIL image.

    Items are dicts: ``image``, ``labels`` float32 (N,) in {1, 0, -1}, ``subject`` int, and
    ``landmarks`` float32 (49, 2) in pixels where there is a list of them (see `read_landmarks`).

    Raises:
        FileNotFoundError: a folder or a list is missing.
        ValueError: a list has a bad line, or the lists differ in length.
    """

    def __init__(
        self,
        root: str | Path,
        dataset: str = "BP4D",
        fold: int | None = 1,
        split: ListSplit = "train",
        *,
        lists: str | Path | None = None,
        images: str | Path | None = None,
        aus: AUSet | str | Sequence[int | str] | None = None,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"the data folder {self.root} does not exist")
        self.aus = au_set_of(dataset, aus)
        self.transform = transform
        self.lists = Path(lists) if lists is not None else list_folder(self.root)
        self.images = Path(images) if images is not None else image_folder(self.root)
        self.path_list = find_list(self.lists, dataset, split, ("img_path", "path"), fold)
        label_list = find_list(self.lists, dataset, split, ("label",), fold)
        self.paths = read_paths(self.path_list)
        self.labels = read_labels(label_list, len(self.aus))
        _same_length(self.path_list, self.paths, label_list, self.labels)
        self._name_subjects([subject_of(path, dataset) for path in self.paths])
        self.landmarks: Tensor | None = None
        try:
            landmark_list = find_list(self.lists, dataset, split, ("landmark",), fold)
        except FileNotFoundError:
            return
        self.landmarks = read_landmarks(landmark_list)
        _same_length(self.path_list, self.paths, landmark_list, self.landmarks)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = open_listed(self.images / self.paths[index], *self._source(index))
        sample: dict[str, Any] = {
            "image": image,
            "labels": self.labels[index].float(),
            "subject": self._codes[index],
        }
        if self.landmarks is not None:
            sample["landmarks"] = self.landmarks[index]
        return self.transform(sample) if self.transform is not None else sample

    def _source(self, index: int) -> tuple[Path, int]:
        """Return the file that names a frame, and the line in it."""
        return self.path_list, range(len(self))[index] + 1

    def _name_subjects(self, subjects: list[str]) -> None:
        """Say who is in each frame."""
        codes = {name: code for code, name in enumerate(sorted(set(subjects)))}
        self.subjects = subjects
        self._codes = [codes[name] for name in subjects]


def au_set_of(dataset: str, aus: AUSet | str | Sequence[int | str] | None) -> AUSet:
    """Return the AUs of the label columns of `dataset`; `aus` where given, else the known set."""
    if aus is not None:
        return AUSet.of(aus)
    try:
        return AUSet.of("OpenGraphAU" if dataset == "hybrid" else dataset)
    except ValueError as error:
        raise ValueError(f"the AUs of the data set {dataset!r} must be given: {error}") from error


def find_list(
    folder: Path, dataset: str, split: str, kinds: Sequence[str], fold: int | None
) -> Path:
    """Return the list file of one kind, under whichever of its published names it has.

    Raises:
        FileNotFoundError: none of the names is there; the message gives them all.
    """
    end = "" if fold is None else f"_fold{fold}"
    prefixes = (dataset, "Emotio") if dataset == "EmotioNet" else (dataset,)
    names = [f"{prefix}_{split}_{kind}{end}.txt" for prefix in prefixes for kind in kinds]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no {' or '.join(names)}")


def read_paths(file: Path) -> list[str]:
    """Read a list of image paths, one a line."""
    lines = list_lines(file)
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(f"{file}, line {number}: an image path is wanted, the line is empty")
    return [line.replace("\\", "/") for line in lines]


def read_labels(file: Path, num_aus: int) -> Tensor:
    """Read a list of AU labels.

    Args:
        file: `num_aus` numbers a line out of 1, 0, and -1, 9 or 999 for unknown.
        num_aus: N, the number of columns.

    Returns:
        (n, N) int8 in {1, 0, -1}.
    """
    rows = []
    for number, line in enumerate(list_lines(file), start=1):
        words = line.split()
        if len(words) != num_aus:
            raise ValueError(
                f"{file}, line {number}: {num_aus} labels are wanted, there are {len(words)}"
            )
        try:
            rows.append([LABELS[word] for word in words])
        except KeyError:
            rows.append([_label(word, f"{file}, line {number}") for word in words])
    return torch.tensor(rows, dtype=torch.int8).reshape(-1, num_aus)


def read_landmarks(file: Path) -> Tensor:
    """Read ``<dataset>_<split>_landmark_fold<f>.txt``: the points x1 y1 x2 y2 ... of a face a line.

    This list is the project's own, in the manner of the others: 49, 66 or 68 points in pixels of
    the stored image, "nan" where a face was not found.

    Returns:
        (n, 49, 2) float32.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(list_lines(file), start=1):
        try:
            row = [float(word) for word in line.split()]
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: numbers are wanted ({error})") from error
        if len(row) not in _LANDMARK_SCHEMES or (rows and len(row) != len(rows[0])):
            raise ValueError(
                f"{file}, line {number}: x and y of 49, 66 or 68 points are wanted, the same on "
                f"every line; there are {len(row)} numbers"
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
    names = [f"{dataset}_weight{end}.txt", f"{dataset}_train_weight{end}.txt"]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} holds no {' or '.join(names)}")
    try:
        weights = [float(word) for word in file.read_text().split()]
    except ValueError as error:
        raise ValueError(f"{file}: numbers are wanted ({error})") from error
    if len(weights) != num_aus:
        raise ValueError(f"{file}: {num_aus} weights are wanted, there are {len(weights)}")
    return torch.tensor(weights)


def subject_of(path: str, dataset: str) -> str:
    """Return who is in the image, as the path says.

    The top folder ("F001/T1/2440.jpg" is F001); below the source's folder in a hybrid list
    ("BP4D/F001/T1/2440.jpg" is BP4D/F001). An image in no folder is a subject of its own.
    """
    parts = path.removeprefix("./").split("/")
    depth = 2 if dataset == "hybrid" else 1
    return "/".join(parts[:depth]) if len(parts) > depth else path


def _label(word: str, where: str) -> int:
    try:
        value = float(word)
    except ValueError as error:
        raise ValueError(f"{where}: a label is wanted, there is {word!r}") from error
    if value.is_integer() and str(int(value)) in LABELS:
        return LABELS[str(int(value))]
    raise ValueError(f"{where}: a label is 1, 0, or -1, 9 or 999 for unknown; there is {word}")


def open_listed(path: Path, file: Path, line: int) -> Image.Image:
    """Read the picture that a line of a list names; errors say which line of which list."""
    where = f"named in {file}, line {line}"
    try:
        return open_rgb(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no image {path}, {where}") from error
    except ValueError as error:
        raise ValueError(f"{error} ({where})") from error


def list_lines(file: Path) -> list[str]:
    """Return the lines of a list, without blanks at their ends; a last empty line is none."""
    text = file.read_text(encoding="utf-8-sig").rstrip()
    return [line.strip() for line in text.split("\n")] if text else []


def list_folder(root: Path) -> Path:
    """Return where the lists of a data set are."""
    return root / "list" if (root / "list").is_dir() else root


def image_folder(root: Path) -> Path:
    """Return what the listed paths of a data set start from."""
    found = [root / name for name in IMAGE_FOLDERS if (root / name).is_dir()]
    if len(found) > 1:
        names = " and ".join(str(folder) for folder in found)
        raise ValueError(f"{names} both exist; say which with images=...")
    return found[0] if found else root


def _same_length(a: Path, in_a: Sequence[Any], b: Path, in_b: Sequence[Any] | Tensor) -> None:
    if len(in_a) != len(in_b):
        raise ValueError(
            f"{a} has {len(in_a)} lines and {b} has {len(in_b)}: they must pair line by line"
        )

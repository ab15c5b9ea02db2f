"""Triplets of faces: two of similar expression, and the odd one of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aurel.data.base import Transform, TripletDataset
from aurel.data.lists import (
    find_list,
    image_folder,
    list_folder,
    list_lines,
    list_prefixes,
    open_listed,
    subject_of,
)
from aurel.data.registry import ListSplit, NoSuchPart, dataset_info
from aurel.data.synthetic.dataset import SyntheticFaces
from aurel.facs import AUSet

MARGINS = {1: 0.1, 2: 0.2, 3: 0.2}
"""Margin of the triplet loss by the number of emotions among the three faces."""

_CANDIDATES = 8


class ListTriplets(TripletDataset):
    """Triplets named by a list file, ``FEC_train_triplet.txt``.

    A line holds three image paths, the number of the odd one (1, 2 or 3) and, if known, the number
    of emotions of the three faces (1, 2 or 3), separated by tabs, or by spaces where no path has
    any::

        a/001.jpg  b/017.jpg  c/030.jpg  3  2

    The format is the project's own. Google's facial expression comparison (FEC) data list pictures
    on the web, a box in each, the kind of triplet ("ONE_CLASS_TRIPLET") and the votes of raters:
    crop the faces and write the majority of the votes.

    Args:
        root: folder of the data set.
        dataset: prefix of the list file.
        fold: number in its name; None for a name without a number.
        split: "train", "val" or "test".
        lists: folder of the list file; by default ``root/list``, or `root` itself.
        images: folder that the listed paths are relative to, as for `ListDataset`.
        transform: function from a sample with one PIL image to a sample with a tensor
            (`aurel.data.transforms`).

    Items are dicts: ``image`` float32 (3, 3, S, S), the odd one last; ``margin`` float32, see
    `MARGINS`.

    Raises:
        NoSuchPart: the list is missing.
        FileNotFoundError: a folder is missing.
        ValueError: the list has a bad line.
    """

    def __init__(
        self,
        root: str | Path,
        dataset: str = "FEC",
        fold: int | None = None,
        split: ListSplit = "train",
        *,
        lists: str | Path | None = None,
        images: str | Path | None = None,
        transform: Transform,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"the data folder {self.root} does not exist")
        folder = Path(lists) if lists is not None else list_folder(self.root)
        self.images = Path(images) if images is not None else image_folder(self.root)
        # Listed triplets have no AUs, so any prefix is valid.
        self.aus = AUSet.unnamed(1)
        info = dataset_info(dataset, self.aus)
        try:
            self.list = find_list(folder, list_prefixes(info, dataset), split, ("triplet",), fold)
        except FileNotFoundError as error:
            raise NoSuchPart(str(error)) from error
        self.paths, self.margins = read_triplets(self.list)
        people = {subject_of(path, info.merged) for three in self.paths for path in three}
        self.subjects = sorted(people)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        line = range(len(self))[index] + 1
        faces = [open_listed(self.images / path, self.list, line) for path in self.paths[index]]
        return _sample(faces, self.margins[index], self.transform)


class SyntheticTriplets(TripletDataset):
    r"""Triplets of synthetic faces; faces of similar AU intensities are the similar ones.

    For each face, eight pairs of other faces are sampled. Of these eight triplets one is kept, that
    with the largest

    .. math:: d_{(2)} - d_{(1)}, \qquad d = \lVert I_a - I_b \rVert_2

    with I the intensities and :math:`d_{(1)} \le d_{(2)}` the two smallest of the three distances.
    The triplets depend on `seed` and the faces only; there is one triplet for each face.

    Args:
        faces: three or more; their own transform is not used.
        transform: function from a sample with one uint8 image to a sample
            (`aurel.data.transforms`).
        seed: seed of the random pairs.

    Items are those of `ListTriplets`.

    Raises:
        ValueError: there are fewer than three faces.
    """

    def __init__(self, faces: SyntheticFaces, *, transform: Transform, seed: int = 0) -> None:
        if len(faces) < 3:
            raise ValueError(f"faces must be at least three, got {len(faces)}")
        self.faces = faces
        self.aus = faces.aus
        self.transform = transform
        self.subjects = sorted({str(subject) for subject in faces.subjects})
        self.triplets = sample_triplets(faces.intensities, seed)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        faces = [self.faces.images[face] for face in self.triplets[index].tolist()]
        return _sample(faces, MARGINS[2], self.transform)


def sample_triplets(intensities: Tensor, seed: int) -> Tensor:
    """Return a triplet for each face, (M, 3) rows of `intensities` (M, N), the odd one last."""
    count = len(intensities)
    rng = np.random.default_rng([seed, count])
    # Steps modulo the number of faces, so that the three faces of a triplet differ.
    one = rng.integers(1, count, (count, _CANDIDATES))
    other = rng.integers(1, count - 1, (count, _CANDIDATES))
    steps = np.stack((np.zeros_like(one), one, other + (other >= one)), axis=-1)
    faces = (torch.arange(count)[:, None, None] + torch.from_numpy(steps)) % count
    codes = intensities[faces]
    pairs = torch.tensor([[1, 2], [0, 2], [0, 1]])  # entry i: all but face i
    differences = codes[:, :, pairs[:, 0]] - codes[:, :, pairs[:, 1]]
    distances = torch.linalg.vector_norm(differences, dim=-1)
    nearest, second, _ = distances.sort(-1).values.unbind(-1)
    best = (second - nearest).argmax(1)
    rows = torch.arange(count)
    odd = distances[rows, best].argmin(1)
    alike = pairs[odd]
    chosen = faces[rows, best]
    return torch.cat((chosen.gather(1, alike), chosen.gather(1, odd.unsqueeze(1))), dim=1)


def read_triplets(file: Path) -> tuple[list[tuple[str, str, str]], list[float]]:
    """Read a list of triplets.

    Args:
        file: see `ListTriplets`.

    Returns:
        The three paths of each triplet, the odd one last, and the margin of each triplet.

    Raises:
        ValueError: a line with another number of entries, or a number that is not 1, 2 or 3.
    """
    paths, margins = [], []
    for number, line in enumerate(list_lines(file), start=1):
        words = [word.strip() for word in (line.split("\t") if "\t" in line else line.split())]
        if len(words) not in (4, 5):
            raise ValueError(
                f"{file}, line {number}: a line must have three paths, the number of the odd one "
                f"and, if known, the number of emotions, got {len(words)} entries"
            )
        numbers = [_one_to_three(word, f"{file}, line {number}") for word in words[3:]]
        three = [word.replace("\\", "/") for word in words[:3]]
        three.append(three.pop(numbers[0] - 1))
        paths.append((three[0], three[1], three[2]))
        margins.append(MARGINS[numbers[1] if len(numbers) > 1 else 2])
    return paths, margins


def _one_to_three(word: str, where: str) -> int:
    if word not in ("1", "2", "3"):
        raise ValueError(f"{where}: a number must be 1, 2 or 3, got {word!r}")
    return int(word)


def _sample(faces: Sequence[Any], margin: float, transform: Transform) -> dict[str, Any]:
    images = [transform({"image": face})["image"] for face in faces]
    return {"image": torch.stack(images), "margin": torch.tensor(margin)}

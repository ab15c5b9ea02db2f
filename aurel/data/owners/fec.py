"""FEC: csv files of triplets of faces in photographs on the web."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from aurel.data.base import Transform, TripletDataset
from aurel.data.lists import open_listed
from aurel.data.owners.pictures import picture_folder, pictures_by_name
from aurel.data.registry import ListSplit, NoSuchPart
from aurel.data.text import read_text
from aurel.data.triplets import MARGINS, triplet_sample
from aurel.facs import AUSet

FEC_TREE = """\
faceexp-comparison-data-train-public.csv  a line a triplet: for each face the URL and its box,
                                          the kind of the triplet, the votes of the raters
images/<name>                             photographs under the names at the ends of the URLs"""

_FILES = {"train": "train", "val": "test"}
_KINDS = {"ONE_CLASS_TRIPLET": 1, "TWO_CLASS_TRIPLET": 2, "THREE_CLASS_TRIPLET": 3}


class Face(NamedTuple):
    """A face in a photograph: its name, and left, right, top, bottom as shares of its sides."""

    name: str
    box: tuple[float, float, float, float]


class FecTriplets(TripletDataset):
    """Triplets of FEC (Vemulapalli & Agarwala, 2019) in Google's csv files.

    The odd face is the one that most raters chose; triplets without a majority, or with a
    photograph that can no longer be downloaded, are left out. Faces are cut out by their boxes.

    Args:
        root: folder of the csv files.
        split: "train", or "val" for the csv file called test, on which papers report and choose.
        images: folder of the photographs; by default ``images`` or ``img`` in `root`.
        transform: function from a sample with one PIL image to a sample with a tensor.

    Items are those of `aurel.data.triplets.ListTriplets`. A subject is a photograph.

    Raises:
        NoSuchPart: the csv file is missing, or the split is "test", which does not exist.
        FileNotFoundError: the folder is missing.
        ValueError: a bad line, or no triplet has all its photographs.
    """

    def __init__(
        self,
        root: str | Path,
        split: ListSplit = "train",
        *,
        images: str | Path | None = None,
        transform: Transform,
    ) -> None:
        if split not in _FILES:
            raise NoSuchPart(f"FEC has no {split} part: its csv files are the parts train and val")
        self.file = fec_file(Path(root), _FILES[split])
        if not self.file.is_file():
            raise NoSuchPart(f"there is no file {self.file}")
        folder = picture_folder(Path(root), images, ("images",))
        found = pictures_by_name(folder)
        triplets = read_fec(self.file)
        self.aus = AUSet.unnamed(1)
        self.transform = transform
        self.triplets = [
            (line, faces, margin)
            for line, faces, margin in triplets
            if all(face.name.lower() in found for face in faces)
        ]
        if not self.triplets:
            raise ValueError(f"{folder} must hold the photographs of {self.file}, got none")
        self.pictures = {name: source.path for name, source in found.items()}
        self.subjects = sorted({face.name for _, faces, _ in self.triplets for face in faces})
        self.layout = f"the owner's: {self.file}, pictures in {folder}"
        left_out = len(triplets) - len(self.triplets)
        self.notes = [f"{left_out} of {len(triplets)} triplets lack a photograph"] * bool(left_out)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        line, faces, margin = self.triplets[index]
        cut = []
        for face in faces:
            picture = open_listed(self.pictures[face.name.lower()], self.file, line)
            width, height = picture.size
            left, right, top, bottom = face.box
            box = (left * width, top * height, right * width, bottom * height)
            cut.append(picture.crop(tuple(map(round, box))))  # type: ignore[arg-type]
        return triplet_sample(cut, margin, self.transform)


def fec_file(root: Path, name: str) -> Path:
    """Return the csv file called "train" or "test"."""
    return root / f"faceexp-comparison-data-{name}-public.csv"


def read_fec(file: Path) -> list[tuple[int, tuple[Face, Face, Face], float]]:
    """Read the triplets with a majority: line, the three faces, the odd one last, and the margin.

    Raises:
        ValueError: a line of another form.
    """
    found = []
    rows = csv.reader(io.StringIO(read_text(file), newline=""))
    for words in rows:
        if not words:
            continue
        try:
            faces = [_face(words[start : start + 5]) for start in (0, 5, 10)]
            margin = MARGINS[_KINDS[words[15].strip()]]
            votes = Counter(int(word) for word in words[17::2])
            if not votes or not set(votes) <= {1, 2, 3}:
                raise ValueError(f"votes {words[17::2]}")
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"{file}, line {rows.line_num}: a line must have three faces with boxes, a kind "
                f"and votes for 1, 2 or 3, got {error}"
            ) from error
        odd, most = votes.most_common(1)[0]
        if 2 * most > votes.total():
            faces.append(faces.pop(odd - 1))
            found.append((rows.line_num, (faces[0], faces[1], faces[2]), margin))
    return found


def _face(words: list[str]) -> Face:
    left, right, top, bottom = (float(word) for word in words[1:])
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"the box {', '.join(words[1:])}")
    return Face(PurePosixPath(words[0].strip()).name, (left, right, top, bottom))

"""RAF-AU: a text file with the AUs of each photograph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from aurel.data.owners.au_words import present_aus
from aurel.data.owners.layout import OwnerRequest
from aurel.data.owners.pictures import picture_folder, pictures_by_name
from aurel.data.owners.table import FrameTable, Source, VideoCodes, frame_table
from aurel.data.text import numbered_lines

RAF_AU_TREE = """\
RAFAU_label.txt                           "0001.jpg 4+7+L12" a line; null where no AU was coded
aligned/0001_aligned.jpg                  or original/0001.jpg, or img/"""


def find_raf_au(root: Path) -> list[Path]:
    """Return the label files."""
    return sorted({*root.glob("RAFAU_label.txt"), *root.glob("*/RAFAU_label.txt")})


def read_raf_au(request: OwnerRequest) -> FrameTable:
    """Return the table of RAF-AU (Yan et al., 2020).

    A line with null is unknown, as in the lists of OpenGraphAU. People are unknown: each photograph
    is a person of its own.

    Raises:
        FileNotFoundError: there is no folder of pictures.
        ValueError: a bad line.
    """
    images = picture_folder(request.root, request.images, ("aligned", "original", "Image"))
    found = {_stem(name): source for name, source in pictures_by_name(images).items()}
    photographs = []
    for number, line in numbered_lines(request.found):
        words = line.split()
        if len(words) != 2:
            raise ValueError(
                f"{request.found}, line {number}: a line must have a picture and its AUs, got "
                f"{line!r}"
            )
        labels = np.full((1, len(request.aus)), -1, dtype=np.int8)
        if words[1].lower() != "null":
            labels[0] = present_aus(words[1], request.aus, request.found, number)
        photographs.append(
            VideoCodes(words[0], words[0], [number], labels, None, request.found, [number])
        )

    def find(name: str, _: int) -> Source | None:
        return found.get(_stem(name))

    return frame_table(request.aus, photographs, find, images)


def _stem(name: str) -> str:
    """Return "1" for "0001_aligned.jpg" and "1.jpg"."""
    stem = re.sub(r"_aligned$", "", name.lower().rpartition(".")[0])
    return str(int(stem)) if stem.isdigit() else stem

"""Aff-Wild2 in the organizers' format: a text file of labels per video, a picture per frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aurel.data.base import Transform
from aurel.data.lists import ListDataset, frame_key
from aurel.data.registry import ListSplit, NoSuchPart
from aurel.data.text import read_text
from aurel.facs import AU_SETS, AUSet

AFF_WILD2 = AU_SETS["Aff-Wild2"]
CHALLENGE = "AU_Detection_Challenge"
_PARTS = {"train": "Train_Set", "test": "Validation_Set"}


class AffWild2Faces(ListDataset):
    """Frames and AU labels of Aff-Wild2 (Kollias & Zafeiriou), as used in the ABAW challenges.

    The first line of ``Train_Set/<video>.txt`` names the AUs. Each further line has the labels of a
    frame, 1, 0, or -1 for unknown, separated by commas; the i-th of them, counted from 1, belongs
    to ``cropped_aligned/<video>/0000i.jpg``. Frames without a known label are omitted. Where a
    frame has no picture (no face was found), training omits it; the test, which counts every
    labeled frame as the challenge does, takes the last picture before it, or else the first after
    it. A video without any picture is omitted.

    Args:
        root: folder of the data set.
        split: "train", or "test" for the official validation set, on which papers report: the
            labels of the challenges' test set are not public.
        lists: folder that holds ``Train_Set`` and ``Validation_Set``; by default
            ``AU_Detection_Challenge`` in `root` or in its ``annotations``.
        images: folder of the videos' folders; by default ``cropped_aligned`` in `root`.
        transform: see `ListDataset`.

    Items are those of `ListDataset`. A subject is a file of labels: a video, or one of the two
    people in it where there is a file for the left and one for the right.

    Raises:
        NoSuchPart: the folder of the split is missing, or the split is "val", which does not exist.
        FileNotFoundError: another folder is missing.
        ValueError: a file names other AUs or has a bad line, or no labeled frame has a picture.
    """

    def __init__(
        self,
        root: str | Path,
        split: ListSplit = "train",
        *,
        lists: str | Path | None = None,
        images: str | Path | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.dataset = AFF_WILD2.name
        self.fold = None
        self.aus = AFF_WILD2
        self.transform = transform
        self.landmarks = None
        if split not in _PARTS:
            raise NoSuchPart(f"Aff-Wild2 has no {split} part: its parts are train and test")
        self.lists = Path(lists) if lists is not None else _challenge_folder(self.root)
        self.images = Path(images) if images is not None else self.root / "cropped_aligned"
        part = self.lists / _PARTS[split]
        if not part.is_dir():
            raise NoSuchPart(f"there is no folder {part}")
        if not self.images.is_dir():
            raise FileNotFoundError(f"there is no folder {self.images}")
        self.paths: list[str] = []
        self._sources: list[tuple[Path, int]] = []
        labels = [torch.zeros(0, len(self.aus), dtype=torch.int8)]
        for file in sorted(part.glob("*.txt")):
            labels.append(self._add_video(file, fill=split == "test"))
        self.labels = torch.cat(labels)
        if not self.paths:
            raise ValueError(
                f"{self.images} must hold pictures of the frames that {part} labels, got none"
            )
        self.keys = [frame_key(path) for path in self.paths]
        self.layout = f"the owner's: {self.lists}, pictures in {self.images}"
        self._name_subjects([path.split("/")[0] for path in self.paths])

    def _add_video(self, file: Path, *, fill: bool) -> Tensor:
        """Add the frames of a video, return their labels; `fill`: those without a picture, too."""
        labels = read_aff_wild2_labels(file)
        folder = self.images / file.stem
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}, whose frames {file} labels")
        names = {entry.name for entry in folder.iterdir()}
        has_picture = [f"{frame + 1:05d}.jpg" in names for frame in range(len(labels))]
        labeled = (labels >= 0).any(1).nonzero().flatten().tolist()
        kept = labeled if fill and any(has_picture) else [f for f in labeled if has_picture[f]]
        shown = last_with_picture(has_picture)
        self.paths += [f"{file.stem}/{shown[frame] + 1:05d}.jpg" for frame in kept]
        self._sources += [(file, frame + 2) for frame in kept]
        return labels[kept]

    def _source(self, index: int) -> tuple[Path, int]:
        return self._sources[index]


def last_with_picture(has_picture: Sequence[bool]) -> list[int]:
    """Return for each frame the last one up to it with a picture, or else the first after it.

    -1 where no frame has a picture.
    """
    present = np.asarray(has_picture, dtype=bool)
    if not present.any():
        return [-1] * len(present)
    last = np.maximum.accumulate(np.where(present, np.arange(len(present)), -1))
    return np.where(last < 0, present.argmax(), last).tolist()


def read_aff_wild2_labels(file: Path) -> Tensor:
    """Read the labels of a video's frames.

    Args:
        file: AU names in the first line, then a line per frame, separated by commas.

    Returns:
        (frames, 12) int8 in {1, 0, -1}.

    Raises:
        ValueError: other AUs, or a line that does not hold labels.
    """
    header, *lines = read_text(file).splitlines() or [""]
    if not _names_the_aus(header.split(",")):
        raise ValueError(
            f"{file}, line 1: the AUs must be {','.join(AFF_WILD2.names)}, got {header!r}"
        )
    if not lines:
        return torch.zeros(0, len(AFF_WILD2), dtype=torch.int8)
    try:
        rows = np.loadtxt(lines, delimiter=",", ndmin=2, dtype=np.float32)
    except ValueError as error:
        raise ValueError(f"{file}: lines must be labels separated by commas ({error})") from error
    bad = ~np.isin(rows, (1, 0, -1)).all(1)
    if rows.shape[1] != len(AFF_WILD2) or bad.any():
        line = int(bad.argmax()) + 2
        raise ValueError(
            f"{file}, line {line}: a line must have {len(AFF_WILD2)} labels 1, 0 or -1, got "
            f"{lines[line - 2]!r}"
        )
    return torch.from_numpy(rows.astype(np.int8))


def _names_the_aus(words: Sequence[str]) -> bool:
    try:
        return AUSet.of([word.strip() for word in words]) == AFF_WILD2
    except ValueError:
        return False


def _challenge_folder(root: Path) -> Path:
    inner = root / "annotations" / CHALLENGE
    return inner if inner.is_dir() else root / CHALLENGE

"""Faces of a data set in its owner's layout, with the interface of listed faces."""

from __future__ import annotations

from pathlib import Path

from aurel.data.lists import ListDataset
from aurel.data.owners.layout import OwnerLayout, OwnerRequest
from aurel.data.owners.table import FrameTable
from aurel.data.registry import DatasetInfo, NoSuchPart, Part
from aurel.facs import AUSet

_SHOWN = 5


class OwnerFaces(ListDataset):
    """Frames and AU labels of a part of a data set in its owner's layout.

    Args:
        info: entry of the registry, with `owner`.
        part: the part; its `root` is a folder in which `info.owner` finds the annotation. The test
            part without a fold is all frames, for a test of a model of other data.

    Items are those of `ListDataset`, with ``intensity`` float32 (N,) 0 to 5, -1 unknown, where the
    owner gives intensities, and without landmarks, which belong to whole frames.

    Raises:
        NoSuchPart: the part is "val", which does not exist.
        FileNotFoundError: there are no pictures.
        ValueError: no such fold, or a bad line in an annotation.
    """

    def __init__(self, info: DatasetInfo, part: Part) -> None:
        owner = info.owner
        assert owner is not None and part.root is not None
        self.root = Path(part.root)
        if part.split == "val":
            raise NoSuchPart(f"{self.root} has no val part: its parts are train and test")
        whole = part.fold is None and part.split == "test"
        if not whole and part.fold not in range(1, owner.folds + 1):
            raise ValueError(
                f"data.fold must be in 1..{owner.folds} for the owner's files of {info.name}, got "
                f"{'null' if part.fold is None else part.fold}"
            )
        found = owner.annotation(self.root)
        if found is None:
            raise FileNotFoundError(f"{self.root} holds no annotation of {info.name}")
        self.dataset = info.name
        self.fold = part.fold
        self.transform = None
        self.landmarks = None
        table = read_table(info, part, found)
        self.aus, self.images, self.lists = table.aus, table.images, found
        rows = list(range(len(table)))
        if part.fold is not None:
            tested = owner.tested(table, part.fold) == (part.split == "test")
            rows = tested.nonzero()[0].tolist()
        if not rows:
            raise ValueError(
                f"{self.root} must hold people of the {part.split} part of fold {part.fold}, got "
                "none"
            )
        self.labels = table.labels[rows]
        self.intensity = None if table.intensity is None else table.intensity[rows]
        if part.intensity:
            if self.intensity is None:
                raise ValueError(
                    f"data.target must be occurrence for {info.name}, whose owner gives no "
                    "intensities, got intensity"
                )
            self.labels = self.intensity.to(self.labels.dtype)
        self.keys = [table.key(row) for row in rows]
        sources = [table.sources[row] for row in rows]
        self.paths = [
            source.path.relative_to(table.images).as_posix() if source.is_picture else f"{key}.png"
            for source, key in zip(sources, self.keys, strict=True)
        ]
        self._where = [table.where[row] for row in rows]
        self._name_subjects([table.people[row] for row in rows])
        self.layout = f"the owner's: {found}, pictures in {table.images}; {owner.parts}"
        self.notes = _notes(table)
        self.unready = None if all(source.is_picture for source in sources) else _PREPARE

    def _source(self, index: int) -> tuple[Path, int]:
        return self._where[index]


_PREPARE = (
    "the pictures are in videos or zip files: give a folder of aligned faces as data.images, with "
    "paths such as F001/T1/2440.jpg"
)


def read_table(info: DatasetInfo, part: Part, found: Path | None = None) -> FrameTable:
    """Return the table of all frames of a data set in its owner's layout, of all parts.

    Args:
        info: entry of the registry, with `owner`.
        part: root, images, aus and options of the data.
        found: the annotation, where it is known.

    Raises:
        FileNotFoundError: the annotation or the pictures are missing.
        ValueError: a bad line in an annotation.
    """
    owner: OwnerLayout | None = info.owner
    if owner is None or part.root is None:
        raise ValueError(f"data.dataset must have a layout of its owner, got {info.name}")
    root = Path(part.root)
    found = found or owner.annotation(root)
    if found is None:
        raise FileNotFoundError(f"{root} holds no annotation of {info.name}")
    aus = info.aus if part.aus is None else AUSet.of(part.aus)
    assert aus is not None
    images = None if part.images is None else Path(part.images)
    return owner.read(OwnerRequest(root, found, aus, images, part.owner))


def _notes(table: FrameTable) -> list[str]:
    notes = list(table.notes)
    if table.missing:
        first = ", ".join(table.missing[:_SHOWN]) + (", ..." if len(table.missing) > _SHOWN else "")
        notes.append(f"{len(table.missing)} labeled frames have no picture: {first}")
    return notes

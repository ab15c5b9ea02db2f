"""The registry of data sets, and the description of one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Literal

from aurel.data.arguments import check_at_least
from aurel.data.base import AUDataset, Transform, TripletDataset
from aurel.data.owners.layout import OwnerLayout
from aurel.data.owners.options import OwnerOptions
from aurel.data.synthetic.options import SyntheticOptions
from aurel.facs import AUSet, AUSpec

ListSplit = Literal["train", "val", "test"]
Layout = Literal["auto", "lists", "owner", "shards"]

LABELS: Mapping[str, int] = MappingProxyType({"1": 1, "0": 0, "-1": -1, "9": -1, "999": -1})
"""Codes in the authors' list files; unknown is 9 in BP4D, 999 in EmotioNet, -1 in merged lists."""

INTENSITIES: Mapping[str, int] = MappingProxyType(
    {**{str(level): level for level in range(6)}, "-1": -1, "9": -1, "999": -1}
)
"""Codes of intensities, 0 absent and 1 to 5 for A to E of FACS; unknown as in `LABELS`."""

_KNOWN = "aurel.data.known_datasets"
_datasets: dict[str, DatasetInfo] = {}


class NoSuchPart(FileNotFoundError):
    """The data set has no such part: none of its files exist.

    Where only some of them are missing, readers raise another FileNotFoundError.
    """


@dataclass(frozen=True)
class Part:
    """A part of a data set, the argument of readers.

    Args:
        dataset: the name in the user's spelling, with which list files may begin.
        split: "train", "val" or "test".
        root: folder of the data set; None for data that are not on disk.
        fold: number of the fold; None where there is one split.
        lists: folder of the list files; None for the default folder.
        images: folder that the listed paths are relative to; None for the default folder.
        aus: the AUs of the label columns; None for those of the data set.
        frames: length of a clip; None for single images.
        context: frames on either side of a clip that enter no loss and no score.
        segment: longest segment of a run from which training takes a clip; None for whole runs.
        intensity: whether labels are intensities from 0 to 5 instead of 1 and 0.
        synthetic: options of the synthetic faces.
        layout: "lists", the "owner"'s, "shards" of `aurel prepare`, or "auto": shards or lists
            where there are some, else the owner's.
        owner: options of the owner's layout.
        people: the subjects to take; None for those of `split` and `fold`.
    """

    dataset: str
    split: ListSplit = "train"
    root: str | None = None
    fold: int | None = None
    lists: str | None = None
    images: str | None = None
    aus: AUSpec | None = None
    frames: int | None = None
    context: int = 0
    segment: int | None = None
    intensity: bool = False
    synthetic: SyntheticOptions = field(default_factory=SyntheticOptions)
    layout: Layout = "auto"
    owner: OwnerOptions = field(default_factory=OwnerOptions)
    people: Sequence[int] | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """One entry of the registry. The defaults of all fields but the name are for list files.

    Args:
        name: the name in `data.dataset` of a recipe, in any spelling; list files begin with it.
        aus: the AUs of the label columns, in order; None where the data have no AU labels, or the
            caller gives them.
        summary: one line that describes the data.
        folds: number of folds, `data.fold` is 1 to `folds`; 0 for one split without a number; None
            for any number in the names of list files.
        prefixes: other prefixes of the names of list files.
        labels: the label of each code in a label list: 1 present, 0 absent, -1 unknown; a threshold
            of intensities is ``{"0": 0, "1": 0, "2": 1, "3": 1, "4": 1, "5": 1}``.
        owner: the layout in which the owner sends the data; None where only lists are read.
        same_people: name of another data set whose people these are, under the same names.
        merged: whether the lists merge data sets. The first folder of a path is then the data set
            and the second the subject; elsewhere the first folder is the subject.
        read_images: returns a part as single images, or raises `NoSuchPart` where the data set has
            no such part; None reads list files (`aurel.data.lists.ListDataset`).
        read_clips: returns a part as clips; None cuts clips from listed images
            (`aurel.data.clips.ListClips`).
        read_triplets: returns a part as triplets of faces, given the transform and a seed; None
            reads a list of triplets (`aurel.data.triplets.ListTriplets`).
        people: returns the numbers of the subjects of a part, for generated data; None for data on
            disk.

    Raises:
        ValueError: a label that is not 1, 0 or -1, or a negative number of folds.
    """

    name: str
    aus: AUSet | None = None
    summary: str = ""
    folds: int | None = None
    prefixes: tuple[str, ...] = ()
    labels: Mapping[str, int] = field(default_factory=lambda: LABELS)
    owner: OwnerLayout | None = None
    same_people: str | None = None
    merged: bool = False
    read_images: Callable[[Part], AUDataset] | None = None
    read_clips: Callable[[Part], AUDataset] | None = None
    read_triplets: Callable[[Part, Transform, int], TripletDataset] | None = None
    people: Callable[[Part], list[int]] | None = None

    def __post_init__(self) -> None:
        if not set(self.labels.values()) <= {1, 0, -1}:
            raise ValueError(f"labels must map to 1, 0 or -1, got {dict(self.labels)}")
        if self.folds is not None:
            check_at_least("folds", self.folds, 0)

    def check_fold(self, fold: int | None) -> None:
        """Raise ValueError unless `fold` is a fold, or None for files without a number."""
        if self.folds is None or (fold is None and not (self.folds and self.people)):
            return
        if self.folds == 0:
            raise ValueError(
                f"data.fold must be null for {self.name}, which has one split, got {fold}"
            )
        if fold is None or not 1 <= fold <= self.folds:
            raise ValueError(f"data.fold must be in 1..{self.folds}, got {fold}")

    def subject_names(self, subjects: Sequence[str] | Sequence[int]) -> list[str]:
        """Return names of subjects that differ between data sets, as in "BP4D/F001"."""
        of = self.same_people or self.name
        return [str(subject) if self.merged else f"{of}/{subject}" for subject in subjects]


def register_dataset(info: DatasetInfo) -> DatasetInfo:
    """Register a data set, and return its entry.

    Training, scoring and the command line then find it by its name::

        register_dataset(DatasetInfo("Mine", AUSet("Mine", (1, 2, 4, 12)), folds=5))

    Raises:
        ValueError: the name is taken.
    """
    known, key = _registry(), _key(info.name)
    if key in known:
        raise ValueError(f"name must be new, got {info.name!r}, which is registered")
    known[key] = info
    return info


def list_datasets() -> list[str]:
    """Return the names of the registered data sets, sorted."""
    return sorted(info.name for info in _registry().values())


def dataset_info(name: str, aus: AUSpec | None = None) -> DatasetInfo:
    """Return the registry's entry for `name`.

    Args:
        name: name in any spelling: "BP4D", "disfa", "aff-wild2".
        aus: the AUs of list files that begin with `name`. With them, a name that is not registered
            is a data set of the user, for which a new entry is returned.

    Raises:
        ValueError: no such data set; the message names the nearest ones.
    """
    known = _registry()
    if (entry := known.get(_key(name))) is not None:
        return entry
    if aus is not None:
        return DatasetInfo(name, AUSet.of(aus))
    close = difflib.get_close_matches(_key(name), known, n=3, cutoff=0.4)
    nearest = ", ".join(known[key].name for key in close) or ", ".join(list_datasets())
    raise ValueError(
        "dataset must be a registered data set, or the prefix of your own list files with their "
        f"aus, got {name!r}; nearest: {nearest}"
    )


def _registry() -> dict[str, DatasetInfo]:
    import_module(_KNOWN)
    return _datasets


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))

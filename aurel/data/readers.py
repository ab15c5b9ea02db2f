"""The images, clips or triplets of a part of a registered data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aurel.data.base import AUDataset, Transform, TripletDataset
from aurel.data.clips import ListClips
from aurel.data.list_files import has_lists, list_folder, list_prefixes
from aurel.data.lists import ListDataset
from aurel.data.owners.dataset import OwnerFaces
from aurel.data.registry import INTENSITIES, DatasetInfo, Layout, Part, dataset_info
from aurel.data.shard_files import has_shards
from aurel.data.shards import ShardFaces
from aurel.data.triplets import ListTriplets
from aurel.facs import AUSet


def read_part(part: Part) -> AUDataset:
    """Return a part as images, or as clips where it has `frames`.

    Raises:
        FileNotFoundError: a folder or a list is missing, or the data set has no such part.
        ValueError: no such data set or fold, or a list has a bad line.
    """
    info = dataset_info(part.dataset, part.aus)
    info.check_fold(part.fold)
    if part.frames is None:
        return _read_images(info, part)
    if info.read_clips is not None:
        _check_occurrence(info, part)
        return info.read_clips(part)
    images = _read_images(info, part)
    if not isinstance(images, ListDataset):
        raise ValueError(
            f"data.frames must be null for {info.name}, which has no clips, got {part.frames}"
        )
    at_random = part.split == "train"
    segment = part.segment if at_random else None
    return ListClips(
        images, part.frames, context=part.context, at_random=at_random, segment=segment
    )


def read_triplets(part: Part, transform: Transform, seed: int = 0) -> TripletDataset:
    """Return a part as triplets of faces.

    Args:
        part: description of the part.
        transform: function from a sample with one image to a sample with a tensor.
        seed: seed of the triplets, where the data set does not list them.

    Raises:
        FileNotFoundError: a folder or a list is missing, or the data set has no such part.
        ValueError: no such fold, a list has a bad line, or the part has `frames`.
    """
    if part.frames is not None:
        raise ValueError(f"data.frames must be null where data.triplets is true, got {part.frames}")
    info = triplet_info(part.dataset)
    info.check_fold(part.fold)
    if info.read_triplets is not None:
        return info.read_triplets(part, transform, seed)
    return listed_triplets(part, transform)


def listed_triplets(part: Part, transform: Transform) -> TripletDataset:
    """Return a part as triplets named by a list."""
    return ListTriplets(
        root_of(part),
        part.dataset,
        part.fold,
        part.split,
        lists=part.lists,
        images=part.images,
        transform=transform,
    )


def people_of(part: Part) -> list[int] | None:
    """Return the numbers of the subjects of a part, or None for faces that are not generated.

    Raises:
        ValueError: no such data set or fold.
    """
    info = triplet_info(part.dataset)
    info.check_fold(part.fold)
    return None if info.people is None else info.people(part)


def triplet_info(dataset: str) -> DatasetInfo:
    """Return the entry of a data set of triplets; an unregistered name is a prefix of lists."""
    return dataset_info(dataset, AUSet.unnamed(1))


def root_of(part: Part) -> str:
    """Return the folder of a data set on disk.

    Raises:
        ValueError: the part has none.
    """
    if part.root is None:
        raise ValueError(f"data.root must be the folder of {part.dataset}, got None")
    return part.root


def layout_of(info: DatasetInfo, part: Part) -> Layout:
    """Return the layout of a part on disk, "lists", "owner" or "shards".

    With `part.layout` "auto" it is "shards" where the root holds shards, "lists" where the folder
    of lists holds any of the data set, of any fold, and else "owner" where the annotation of the
    owner is found.

    Raises:
        ValueError: "owner" of a data set without one, or several annotations of the owner.
    """
    if part.layout == "owner" and info.owner is None:
        raise ValueError(f"data.layout must be auto, lists or shards for {info.name}, got owner")
    if part.layout != "auto":
        return part.layout
    root = Path(root_of(part))
    if has_shards(root):
        return "shards"
    if info.owner is None:
        return "lists"
    folder = list_folder(root) if part.lists is None else Path(part.lists)
    if has_lists(folder, list_prefixes(info, part.dataset)):
        return "lists"
    return "lists" if info.owner.annotation(root) is None else "owner"


def _read_images(info: DatasetInfo, part: Part) -> AUDataset:
    if info.read_images is not None:
        _check_occurrence(info, part)
        return info.read_images(part)
    layout = layout_of(info, part)
    if layout == "owner":
        return OwnerFaces(info, part)
    listed: dict[str, Any] = {"lists": part.lists, "aus": part.aus}
    if part.intensity:
        listed |= {"codes": INTENSITIES, "label_kinds": ("intensity", "label")}
    place = root_of(part), part.dataset, part.fold, part.split
    if layout == "shards":
        return ShardFaces(*place, **listed)
    try:
        return ListDataset(*place, images=part.images, **listed)
    except FileNotFoundError as error:
        root = Path(root_of(part))
        if info.owner is None or not root.is_dir():
            raise
        if info.owner.annotation(root) is None:
            hint = f"and no {info.owner.tree.split()[0]} of the owner's layout"
        else:
            hint = "but files of the owner, which --data.layout owner reads"
        raise type(error)(f"{error}, {hint}") from error


def _check_occurrence(info: DatasetInfo, part: Part) -> None:
    if part.intensity:
        raise ValueError(
            f"data.target must be occurrence for {info.name}, whose intensities are not read, got "
            "intensity"
        )

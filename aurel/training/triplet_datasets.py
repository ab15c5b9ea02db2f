"""The triplets of faces of a run, from the `data` section of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aurel.data.base import TripletDataset
from aurel.data.readers import people_of, read_triplets, triplet_info
from aurel.data.registry import ListSplit, NoSuchPart
from aurel.data.subjects import check_apart, hold_out
from aurel.facs import AUSet
from aurel.training.data_module import Splits
from aurel.training.datasets import augmentation, part_of
from aurel.training.options import DataOptions


def triplet_splits(options: DataOptions, seed: int = 0) -> Splits:
    """Return the triplets of a training run.

    The best epoch is chosen on triplets of subjects held out of the training part for generated
    faces; on the ``val`` list, where there is one, for listed triplets; or on the test part where
    `options.select_on` is "test".

    Args:
        options: the recipe's section.
        seed: seed of the subjects that are held out, and of the triplets of generated faces.

    Raises:
        FileNotFoundError: a folder or a list is missing.
        ValueError: a list is malformed, or a subject is in training and in another part.
    """
    parts: dict[str, TripletDataset | None]
    if (people := people_of(part_of(options, "train"))) is not None:
        parts = _generated(options, people, seed)
    else:
        parts = _listed(options)
    if options.select_on == "test":
        parts["validation"] = parts["test"]
    names = {part: _subjects(options, data) for part, data in parts.items()}
    for part in ("validation", "test"):
        check_apart(names["train"], names[part], f"train and {part}")
    if options.select_on == "test":
        names["validation"] = []
    train = parts["train"]
    assert train is not None
    return Splits(
        aus=train.aus,
        train=train,
        validation=parts["validation"],
        test=parts["test"],
        protocol={
            "dataset": triplet_info(options.dataset).name,
            "fold": options.fold,
            **{f"{part}_subjects": people for part, people in names.items()},
            "select_on": options.select_on,
        },
    )


def triplet_test_splits(options: DataOptions) -> Splits:
    """Return the test triplets, with their subjects in the protocol."""
    test = _load(options, "test")
    protocol: dict[str, Any] = {
        "dataset": triplet_info(options.dataset).name,
        "fold": options.fold,
        "test_subjects": _subjects(options, test),
    }
    return Splits(aus=test.aus, test=test, protocol=protocol)


def _generated(
    options: DataOptions, people: list[int], seed: int
) -> dict[str, TripletDataset | None]:
    held: list[int] = []
    if options.select_on == "validation" and options.validation:
        kept, out = hold_out(people, options.validation, seed)
        people, held = [people[i] for i in kept], [people[i] for i in out]
    return {
        "train": _load(options, "train", seed, people),
        "validation": _load(options, "val", seed, held) if held else None,
        "test": _load(options, "test", seed),
    }


def _listed(options: DataOptions) -> dict[str, TripletDataset | None]:
    train = _load(options, "train")
    test = _load(options, "test") if options.select_on == "test" else None
    return {
        "train": train,
        "validation": _load_if_listed(options, "val"),
        "test": test or _load_if_listed(options, "test"),
    }


def _load(
    options: DataOptions,
    split: ListSplit,
    seed: int = 0,
    people: Sequence[int] | None = None,
) -> TripletDataset:
    # A flip exchanges label columns, of which triplets have none.
    augmented = augmentation(options, AUSet.unnamed(1))
    transform = augmented if split == "train" else augmented.evaluation()
    return read_triplets(replace(part_of(options, split), people=people), transform, seed)


def _load_if_listed(options: DataOptions, split: ListSplit) -> TripletDataset | None:
    try:
        return _load(options, split)
    except NoSuchPart:
        return None


def _subjects(options: DataOptions, data: TripletDataset | None) -> list[str]:
    if data is None:
        return []
    return triplet_info(options.dataset).subject_names(data.subjects)

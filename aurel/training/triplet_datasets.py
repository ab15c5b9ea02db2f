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
from aurel.training.datasets import augmentation, held_share, part_of, selection
from aurel.training.options import DataOptions


def triplet_splits(options: DataOptions, seed: int = 0) -> Splits:
    """Return the triplets of a training run.

    The best epoch is chosen on triplets of subjects held out of the training part for generated
    faces; on the ``val`` list, where there is one, for listed triplets; or on the test part, see
    `aurel.training.datasets.selection`.

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
    select_on = selection(options)
    if select_on != "validation":
        parts["validation"] = parts["test"] if select_on == "test" else None
    names = {part: _subjects(options, data) for part, data in parts.items()}
    for part in ("validation", "test"):
        check_apart(names["train"], names[part], f"train and {part}")
    if select_on == "test":
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
            "select_on": select_on,
            "protocol": options.protocol,
        },
    )


def triplet_test_splits(options: DataOptions) -> Splits:
    """Return the test triplets, or those of the ``val`` list where there is no test list.

    Papers score FEC on its validation list. The protocol has the subjects, and the name of the
    part.
    """
    test, part = _load_if_listed(options, "test"), "test"
    if test is None:
        test, part = _load_if_listed(options, "val") or _load(options, "test"), "val"
    protocol: dict[str, Any] = {
        "dataset": triplet_info(options.dataset).name,
        "fold": options.fold,
        "part": part,
        "test_subjects": _subjects(options, test),
    }
    return Splits(aus=test.aus, test=test, protocol=protocol)


def _generated(
    options: DataOptions, people: list[int], seed: int
) -> dict[str, TripletDataset | None]:
    held: list[int] = []
    if selection(options) == "validation" and (share := held_share(options)):
        kept, out = hold_out(people, share, seed)
        people, held = [people[i] for i in kept], [people[i] for i in out]
    return {
        "train": _load(options, "train", seed, people),
        "validation": _load(options, "val", seed, held) if held else None,
        "test": _load(options, "test", seed),
    }


def _listed(options: DataOptions) -> dict[str, TripletDataset | None]:
    train = _load(options, "train")
    chosen_on = selection(options)
    needs_val = chosen_on == "validation" and options.protocol is not None
    return {
        "train": train,
        "validation": (_load if needs_val else _load_if_listed)(options, "val"),
        "test": (_load if chosen_on == "test" else _load_if_listed)(options, "test"),
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

"""From the `data` section of a recipe to the triplets of faces of a run."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from aurel.data.lists import ListSplit
from aurel.data.subjects import check_apart, hold_out
from aurel.data.synthetic.dataset import SyntheticFaces
from aurel.data.triplets import ListTriplets, SyntheticTriplets
from aurel.facs import AUSet
from aurel.training.data_module import Splits
from aurel.training.datasets import SYNTHETIC, augmentation, embedded_faces, embedded_people
from aurel.training.options import DataOptions

Triplets = ListTriplets | SyntheticTriplets


def triplet_splits(options: DataOptions, seed: int = 0) -> Splits:
    """Return triplets for a training run.

    The best epoch is chosen on triplets of embedded people who are held out of the training part;
    of listed triplets on the ``val`` list, where there is one; or, if `options.select_on` asks for
    it, on the test part.

    Args:
        options: the recipe's section.
        seed: who is held out, and which embedded faces meet.

    Raises:
        FileNotFoundError: a folder or a list is missing.
        ValueError: a list is malformed, or a person is in training and in another part.
    """
    train: Triplets
    validation: Triplets | None
    test: Triplets | None
    if options.dataset == SYNTHETIC:
        people, held = embedded_people(options, "train"), list[int]()
        if options.select_on == "validation" and options.validation:
            kept, out = hold_out(people, options.validation, seed)
            people, held = [people[i] for i in kept], [people[i] for i in out]
        train = _embedded(options, people, seed, train=True)
        test = _embedded(options, embedded_people(options, "test"), seed)
        validation = _embedded(options, held, seed) if held else None
    else:
        train = _listed(options, "train")
        test = _listed(options, "test") if options.select_on == "test" else None
        test = test or _if_listed(options, "test")
        validation = _if_listed(options, "val")
    if options.select_on == "test":
        validation = test
    parts = {"train": train, "validation": validation, "test": test}
    names = {part: _people(options, data) for part, data in parts.items()}
    for part in ("validation", "test"):
        check_apart(names["train"], names[part], f"train and {part}")
    if options.select_on == "test":
        names["validation"] = []
    return Splits(
        aus=_aus(options),
        train=train,
        validation=validation,
        test=test,
        protocol={
            "dataset": options.dataset,
            "fold": options.fold,
            **{f"{part}_subjects": people for part, people in names.items()},
            "select_on": options.select_on,
        },
    )


def triplet_test_splits(options: DataOptions) -> Splits:
    """Return the test triplets and who is in them."""
    test: Triplets
    if options.dataset == SYNTHETIC:
        test = _embedded(options, embedded_people(options, "test"), seed=0)
    else:
        test = _listed(options, "test")
    protocol: dict[str, Any] = {
        "dataset": options.dataset,
        "fold": options.fold,
        "test_subjects": _people(options, test),
    }
    return Splits(aus=_aus(options), test=test, protocol=protocol)


def _aus(options: DataOptions) -> AUSet:
    """Return the AUs that embedded faces are compared by; of listed triplets nothing is known."""
    if options.dataset == SYNTHETIC:
        return AUSet.of(options.aus or "BP4D")
    return AUSet.unnamed(1)


def _people(options: DataOptions, data: Dataset[Any] | None) -> list[str]:
    if data is None:
        return []
    assert isinstance(data, Triplets)
    return [f"{options.dataset}/{subject}" for subject in data.subjects]


def _embedded(
    options: DataOptions, people: list[int], seed: int, train: bool = False
) -> SyntheticTriplets:
    faces = embedded_faces(options, people)
    if not isinstance(faces, SyntheticFaces):
        raise ValueError("data.frames must be left out where data.triplets is true")
    augmented = augmentation(options, faces.aus)
    transform = augmented if train else augmented.evaluation()
    return SyntheticTriplets(faces, transform=transform, seed=seed)


def _listed(options: DataOptions, split: ListSplit) -> ListTriplets:
    if options.root is None:
        raise ValueError(f"data.root must be given: the folder of {options.dataset}")
    augmented = augmentation(options, AUSet.unnamed(1))
    return ListTriplets(
        options.root,
        options.dataset,
        options.fold,
        split,
        lists=options.lists,
        images=options.images,
        transform=augmented if split == "train" else augmented.evaluation(),
    )


def _if_listed(options: DataOptions, split: ListSplit) -> ListTriplets | None:
    try:
        return _listed(options, split)
    except FileNotFoundError:
        return None

"""From the `data` section of a recipe to the data sets of a run."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Subset

from aurel.data.aff_wild2 import AffWild2Faces, is_aff_wild2
from aurel.data.clips import ListClips
from aurel.data.lists import ListDataset, ListSplit, read_class_weights
from aurel.data.sampling import thin_frames
from aurel.data.subjects import check_apart, hold_out
from aurel.data.synthetic.dataset import SyntheticClips, SyntheticFaces
from aurel.data.transforms import TrainTransform
from aurel.facs import AUSet
from aurel.losses import au_class_weights
from aurel.training.data_module import Splits
from aurel.training.options import DataOptions

SYNTHETIC = "synthetic"
SYNTHETIC_FOLDS = 3
Faces = ListDataset | ListClips | SyntheticFaces | SyntheticClips


def training_splits(options: DataOptions, seed: int = 0) -> Splits:
    """Return data for a training run.

    The best epoch is chosen on people held out of the training part, on the ``val`` list where
    the data set has one, or, if `options.select_on` asks for it, on the test part.

    Args:
        options: the recipe's section.
        seed: which people are held out.

    Raises:
        FileNotFoundError: a folder, a list or an image is missing.
        ValueError: a list is malformed, or a person is in training and test.
    """
    train = _load(options, "train")
    test = _load(options, "test") if options.select_on == "test" else None
    test = test or _load_if_listed(options, "test")
    people = named_subjects(train, options)
    tested = set() if test is None else set(named_subjects(test, options))
    check_apart(people, tested, "train and test")
    validation: Dataset[dict[str, Any]] | None
    kept = list(range(len(train)))
    held: list[int] = []
    if options.select_on == "test":
        validation = test
    elif (given := _load_if_listed(options, "val")) is not None:
        check_apart(people, named_subjects(given, options), "train and val")
        validation = given
    elif options.validation:
        kept, held = hold_out(people, options.validation, seed)
        validation = _images_of({people[index] for index in held}, train, options)
    else:
        validation = None
    kept = _thinned(kept, train, options)
    return Splits(
        aus=train.aus,
        train=Subset(train, kept),
        validation=validation,
        test=test,
        class_weights=_class_weights(options, train, labels_of(train, kept)),
        protocol={
            "dataset": options.dataset,
            "fold": options.fold,
            "train_subjects": sorted({people[index] for index in kept}),
            "validation_subjects": sorted({people[index] for index in held}),
            "test_subjects": sorted(tested),
            "select_on": options.select_on,
        },
    )


def test_splits(options: DataOptions) -> Splits:
    """Return the test data and who is in them."""
    test = _load(options, "test")
    protocol = {
        "dataset": options.dataset,
        "fold": options.fold,
        "test_subjects": sorted(set(named_subjects(test, options))),
    }
    return Splits(aus=test.aus, test=test, protocol=protocol)


def check_fold(trained: dict[str, Any], tested: dict[str, Any]) -> None:
    """Raise where a checkpoint has seen people that it is to be tested on.

    Args:
        trained: the protocol that the checkpoint holds; one that says nothing passes.
        tested: the protocol of the data.

    Raises:
        ValueError: another fold of the same data, or a shared person.
    """
    if "train_subjects" not in trained:
        return
    ours, theirs = (f"{p['dataset']} fold {p['fold']}" for p in (trained, tested))
    if trained["dataset"] == tested["dataset"] and trained["fold"] != tested["fold"]:
        raise ValueError(
            f"the checkpoint was trained on {ours} and the data are {theirs}, most of whose test "
            f"people it has seen: use data.fold {trained['fold']}, or the checkpoint of that fold"
        )
    seen = trained["train_subjects"] + trained["validation_subjects"]
    check_apart(seen, tested["test_subjects"], f"trained on {ours}, tested on {theirs}")


def without_augmentation(data: Faces) -> Faces:
    """Return the same images as `data`, seen as in a test."""
    plain = data.side_by_side() if isinstance(data, ListClips) else copy.copy(data)
    assert isinstance(data.transform, TrainTransform)
    plain.transform = data.transform.evaluation()
    return plain


def labels_of(data: Faces, items: list[int]) -> Tensor:
    """Return the labels of these images, or of all frames of these clips, (M, N)."""
    labels = data.labels_of(items) if isinstance(data, ListClips) else data.labels[items]
    return labels.reshape(-1, len(data.aus))


def named_subjects(data: Faces, options: DataOptions) -> list[str]:
    """Return who is in each image, under names that differ between data sets."""
    if options.dataset == "hybrid":
        return [str(subject) for subject in data.subjects]
    return [f"{options.dataset}/{subject}" for subject in data.subjects]


def augmentation(options: DataOptions, aus: AUSet) -> TrainTransform:
    """Return what training images go through; its `evaluation()` is for the others."""
    return TrainTransform(
        aus,
        options.resize,
        options.crop,
        options.flip,
        options.brightness,
        options.contrast,
        options.saturation,
    )


def embedded_people(options: DataOptions, split: ListSplit) -> list[int]:
    """Return which of the embedded faces' people are in a part.

    Raises:
        ValueError: there is no such fold.
        FileNotFoundError: they have no such part.
    """
    if split == "val":
        raise FileNotFoundError("the embedded faces have no validation part of their own")
    fold = options.fold
    if fold is None or not 1 <= fold <= SYNTHETIC_FOLDS:
        raise ValueError(f"data.fold must be in 1..{SYNTHETIC_FOLDS}, got {fold}")
    people = range(options.synthetic.subjects)
    return [p for p in people if (p % SYNTHETIC_FOLDS == fold - 1) == (split == "test")]


def _load(options: DataOptions, split: ListSplit) -> Faces:
    data: Faces
    if options.dataset == SYNTHETIC:
        data = embedded_faces(options, embedded_people(options, split))
    else:
        data = _listed(options, split)
    augmented = augmentation(options, data.aus)
    data.transform = augmented if split == "train" else augmented.evaluation()
    return data


def _thinned(kept: list[int], train: Faces, options: DataOptions) -> list[int]:
    """Return the training images that are left after `options.every` and what belongs to it."""
    if options.every == options.rare_every == 1:
        return kept
    if options.frames is not None:
        raise ValueError(
            f"data.every must be 1 where data.frames is given, got {options.every}: clips are of "
            "consecutive frames"
        )
    people = [train.subjects[index] for index in kept]
    rare = [train.aus.index(au) for au in options.rare_aus]
    taken = thin_frames(labels_of(train, kept), people, options.every, rare, options.rare_every)
    return [kept[place] for place in taken]


def _images_of(people: set[str], train: Faces, options: DataOptions) -> Subset[dict[str, Any]]:
    """Return the training images, or clips, of these people, seen as in a test."""
    plain = without_augmentation(train)
    subjects = named_subjects(plain, options)
    return Subset(plain, [index for index, name in enumerate(subjects) if name in people])


def _listed(options: DataOptions, split: ListSplit) -> ListDataset | ListClips:
    if options.root is None:
        raise ValueError(f"data.root must be given: the folder of {options.dataset}")
    images: ListDataset
    if is_aff_wild2(options.dataset):
        if options.fold is not None:
            raise ValueError(
                f"data.fold must be null for Aff-Wild2, which has one split, got {options.fold}"
            )
        images = AffWild2Faces(options.root, split, lists=options.lists, images=options.images)
    else:
        images = ListDataset(
            options.root,
            options.dataset,
            options.fold,
            split,
            lists=options.lists,
            images=options.images,
            aus=options.aus,
        )
    if options.frames is None:
        return images
    at_random = split == "train"
    return ListClips(images, options.frames, context=options.context, at_random=at_random)


def embedded_faces(options: DataOptions, people: list[int]) -> SyntheticFaces | SyntheticClips:
    """Return the embedded faces of these people, or their clips where `options` has frames."""
    rest = asdict(options.synthetic)
    del rest["subjects"]
    aus, speed = options.aus or "BP4D", rest.pop("speed")
    if options.frames is None:
        return SyntheticFaces(aus, people, **rest)
    if options.context:
        raise ValueError(
            f"data.context must be 0, got {options.context}: an embedded clip is a whole video"
        )
    return SyntheticClips(aus, people, frames=options.frames, speed=speed, **rest)


def _load_if_listed(options: DataOptions, split: ListSplit) -> Faces | None:
    try:
        return _load(options, split)
    except FileNotFoundError:
        return None


def _class_weights(options: DataOptions, data: Faces, labels: Tensor) -> Tensor | None:
    if options.class_weights == "labels":
        return au_class_weights(labels)
    if options.class_weights == "file":
        if isinstance(data, SyntheticFaces | SyntheticClips):
            raise ValueError("the embedded faces have no file of class weights")
        return read_class_weights(data.lists, options.dataset, options.fold, len(data.aus))
    return None

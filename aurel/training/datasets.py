"""The data sets of a run, from the `data` section of a recipe."""

from __future__ import annotations

import logging
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Dataset, Subset

from aurel.data.base import AUDataset
from aurel.data.readers import read_part
from aurel.data.registry import ListSplit, NoSuchPart, Part, dataset_info
from aurel.data.sampling import thin_frames
from aurel.data.subjects import check_apart, hold_out, normalized_subject, one_spelling
from aurel.data.transforms import TrainTransform
from aurel.facs import AUSet
from aurel.losses import au_class_weights, ordinal_cutpoints
from aurel.training.data_module import Splits
from aurel.training.options import DataOptions

_log = logging.getLogger("aurel")


def training_splits(options: DataOptions, seed: int = 0) -> Splits:
    """Return the data of a training run.

    Data for the choice of the best epoch are the ``val`` list of the data set, or subjects held out
    of the training part, or the test part, see `selection`.

    Args:
        options: the recipe's section.
        seed: seed of the choice of subjects that are held out.

    Raises:
        FileNotFoundError: a folder, a list or an image is missing.
        ValueError: a list is malformed, a subject is in two parts under any spelling, a part is
            empty or without a known label, or the data lack what the protocol needs.
    """
    select_on = selection(options)
    train = _load(options, "train")
    test = _load(options, "test") if select_on == "test" else _load_if_listed(options, "test")
    people = _subjects(train, options)
    tested = set() if test is None else set(_subjects(test, options))
    check_apart(people, tested, "train and test")
    validation: Dataset[dict[str, Any]] | None = None
    kept = list(range(len(train)))
    chosen_on: list[str] = []
    listed = _load_if_listed(options, "val")
    if listed is not None:
        check_apart(people, _subjects(listed, options), "train and val")
    if select_on == "test":
        validation = test
    elif select_on == "validation" and listed is not None:
        validation, chosen_on = listed, _subjects(listed, options)
        check_apart(chosen_on, tested, "val and test")
    elif select_on == "validation" and (share := held_share(options)):
        kept, held = hold_out(people, share, seed)
        chosen_on = [people[index] for index in held]
        validation = _images_of(set(chosen_on), train, options)
        _check_known(train.labels_of(held), "validation", options)
    kept = _thinned(kept, train, options)
    _check_known(train.labels_of(kept), "train", options)
    intensity = options.target == "intensity"
    return Splits(
        aus=train.aus,
        train=Subset(train, kept),
        validation=validation,
        test=test,
        class_weights=_class_weights(options, train, train.labels_of(kept)),
        cutpoints=ordinal_cutpoints(train.labels_of(kept)) if intensity else None,
        train_labels=[run.clamp(max=1) for run in train.label_runs(kept)],
        protocol={
            "dataset": dataset_info(options.dataset, options.aus).name,
            "fold": options.fold,
            "train_subjects": sorted({people[index] for index in kept}),
            "validation_subjects": sorted(set(chosen_on)),
            "test_subjects": sorted(tested),
            "select_on": select_on,
            "protocol": options.protocol,
        },
    )


def selection(options: DataOptions) -> Literal["validation", "test", "last"]:
    """Return on which data the best epoch is chosen: `select_on`, unless subjects are held out."""
    return "validation" if options.protocol == "held-out" else options.select_on


def held_share(options: DataOptions) -> float:
    """Return the share of the training subjects to hold out, where there is no ``val`` list.

    Raises:
        ValueError: the protocol needs other data.
    """
    if options.protocol == "published":
        raise ValueError(
            "data.select_on must be test or last with data.protocol published and data without a "
            "val list, got validation: --protocol held-out holds out training subjects"
        )
    if not 0 <= options.validation < 1:
        raise ValueError(f"data.validation must be in [0, 1), got {options.validation}")
    if options.protocol == "held-out" and not options.validation:
        raise ValueError(
            "data.validation must be above 0 with data.protocol held-out and data without a val "
            f"list, got {options.validation}"
        )
    return options.validation


def test_splits(options: DataOptions) -> Splits:
    """Return the test data, with their subjects in the protocol."""
    test = _load(options, "test")
    protocol = {
        "dataset": dataset_info(options.dataset, options.aus).name,
        "fold": options.fold,
        "test_subjects": sorted(set(_subjects(test, options))),
    }
    return Splits(aus=test.aus, test=test, protocol=protocol)


def check_fold(trained: dict[str, Any], tested: dict[str, Any]) -> None:
    """Raise unless the test subjects of the data differ from the subjects of a checkpoint.

    Args:
        trained: the protocol that the checkpoint holds; one without subjects passes.
        tested: the protocol of the data.

    Raises:
        ValueError: another fold of the same data, or a shared subject.
    """
    if "train_subjects" not in trained:
        return
    source, target = (f"{p['dataset']} fold {p['fold']}" for p in (trained, tested))
    if trained["dataset"] == tested["dataset"] and trained["fold"] != tested["fold"]:
        raise ValueError(
            f"data.fold must be {trained['fold']}, that of the checkpoint, got {tested['fold']}: "
            f"the checkpoint was trained on {source}, which holds most test subjects of {target}"
        )
    # The list on which the epoch was chosen may be scored: the table of the score says so.
    chosen_on = [] if tested.get("part") == "val" else trained["validation_subjects"]
    known = trained["train_subjects"] + chosen_on
    check_apart(known, tested["test_subjects"], f"trained on {source}, tested on {target}")


def check_start(source: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise unless a run may start from a checkpoint: `check_fold`, and its epoch is no leak.

    A warning says of how many people on whom the run chooses its epoch the checkpoint has learned.

    Args:
        source: the protocol that the checkpoint holds; one without subjects passes.
        here: the protocol of the run.

    Raises:
        ValueError: another fold, a shared subject, or an epoch that was chosen on test people of
            the run, which chooses its own on others.
    """
    check_fold(source, here)
    if source.get("select_on") == "test" and here.get("select_on") != "test":
        check_apart(
            source.get("test_subjects", []),
            here.get("test_subjects", []),
            "people on whom the epoch of model.init_from was chosen (its data.select_on: test), "
            f"and test people of a run with data.select_on {here.get('select_on')},",
        )
    known = set(map(normalized_subject, source.get("train_subjects", [])))
    people = here.get("validation_subjects", [])
    if seen := [person for person in people if normalized_subject(person) in known]:
        _log.warning(
            "model.init_from was trained on %d of the %d people on whom the epoch is chosen",
            len(seen),
            len(people),
        )


def part_of(options: DataOptions, split: ListSplit) -> Part:
    """Return the description of a part for its reader."""
    return Part(
        dataset=options.dataset,
        split=split,
        root=options.root,
        fold=options.fold,
        lists=options.lists,
        images=options.images,
        aus=options.aus,
        frames=options.frames,
        context=options.context,
        segment=options.segment,
        intensity=options.target == "intensity",
        synthetic=options.synthetic,
        layout=options.layout,
        owner=options.owner,
    )


def augmentation(options: DataOptions, aus: AUSet) -> TrainTransform:
    """Return the transform of training images; its `evaluation()` is for validation and test."""
    return TrainTransform(
        aus,
        options.resize,
        options.crop,
        options.flip,
        options.brightness,
        options.contrast,
        options.saturation,
    )


def without_augmentation(data: AUDataset) -> AUDataset:
    """Return the same images as `data`, transformed as in a test."""
    plain = data.for_scoring()
    assert isinstance(data.transform, TrainTransform)
    plain.transform = data.transform.evaluation()
    return plain


def _load(options: DataOptions, split: ListSplit) -> AUDataset:
    if options.segment is not None and options.frames is None:
        raise ValueError(
            f"data.segment must be null where data.frames is null, got {options.segment}"
        )
    data = read_part(part_of(options, split))
    if not len(data):
        raise ValueError(f"the {split} part of {options.dataset} must have an item, got none")
    _check_known(data.labels_of(range(len(data))), split, options)
    augmented = augmentation(options, data.aus)
    data.transform = augmented if split == "train" else augmented.evaluation()
    return data


def _check_known(labels: Tensor, part: str, options: DataOptions) -> None:
    if not (labels >= 0).any():
        raise ValueError(
            f"the {part} part of {options.dataset} must have a known label, got only unknown ones"
        )


def _load_if_listed(options: DataOptions, split: ListSplit) -> AUDataset | None:
    try:
        return _load(options, split)
    except NoSuchPart:
        return None


def _subjects(data: AUDataset, options: DataOptions) -> list[str]:
    """Return the subject of each image in one spelling, with the data set in its name."""
    return one_spelling(dataset_info(options.dataset, options.aus).subject_names(data.subjects))


def _thinned(kept: list[int], train: AUDataset, options: DataOptions) -> list[int]:
    """Return the indices of `kept` that `options.every` and `options.rare_every` keep."""
    if options.every == options.rare_every == 1:
        return kept
    if options.frames is not None:
        raise ValueError(
            f"data.every must be 1 where data.frames is given, got {options.every}: clips are of "
            "consecutive frames"
        )
    people = [train.subjects[index] for index in kept]
    rare = [train.aus.index(au) for au in options.rare_aus]
    labels = train.labels_of(kept).clamp(max=1)
    taken = thin_frames(labels, people, options.every, rare, options.rare_every)
    return [kept[index] for index in taken]


def _images_of(people: set[str], train: AUDataset, options: DataOptions) -> Subset[dict[str, Any]]:
    """Return the training images, or clips, of these subjects, transformed as in a test."""
    plain = without_augmentation(train)
    subjects = _subjects(plain, options)
    return Subset(plain, [index for index, name in enumerate(subjects) if name in people])


def _class_weights(options: DataOptions, data: AUDataset, labels: Tensor) -> Tensor | None:
    if options.class_weights == "labels":
        return au_class_weights(labels.clamp(max=1))
    return data.class_weights() if options.class_weights == "file" else None

"""The folds of a cross-validation: their people, their folders, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aurel.data.readers import layout_of, people_of, read_part
from aurel.data.registry import ListSplit, dataset_info
from aurel.data.subjects import check_apart
from aurel.files import atomic_path
from aurel.models.checkpoint import read_checkpoint
from aurel.training.datasets import part_of
from aurel.training.options import DataOptions
from aurel.training.recipe_text import PLACE, differences
from aurel.training.results import NAME, read_results
from aurel.training.run import checkpoint_file

CONFIG = "config.yaml"


@dataclass(frozen=True)
class FoldRun:
    """One fold with one seed.

    Args:
        fold: number of the fold.
        seed: seed of the run.
        folder: folder of the run.
    """

    fold: int
    seed: int
    folder: Path

    @property
    def label(self) -> str:
        """The fold and the seed in words."""
        return f"fold {self.fold}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Whether the run has been trained and tested."""
        return (self.folder / NAME).is_file()

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint to continue from."""
        return (self.folder / "checkpoints" / "last.ckpt").is_file()


def choose_folds(options: DataOptions, text: str) -> list[int]:
    """Return the folds that a text names: "all", or numbers such as "1,3".

    Raises:
        ValueError: no such fold, a fold twice, or data without folds.
    """
    info = dataset_info(options.dataset, options.aus)
    if info.folds == 0:
        raise ValueError(f"folds must be of a data set with folds, got {info.name}, which has none")
    if text == "all":
        number = info.folds
        if number is None and info.owner is not None:
            layout = layout_of(info, part_of(options, "train"))
            number = info.owner.folds if layout == "owner" else None
        if number is None:
            raise ValueError(f"folds must be numbers for {info.name}, such as 1,2,3, got 'all'")
        return list(range(1, number + 1))
    try:
        folds = [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ValueError(f"folds must be 'all' or numbers such as 1,2,3, got {text!r}") from error
    for fold in folds:
        info.check_fold(fold)
    if len(set(folds)) < len(folds):
        raise ValueError(f"folds must be different, got {text}")
    return folds


def plan(
    folder: Path, folds: Sequence[int], seeds: Sequence[int], recipe_seed: int
) -> list[FoldRun]:
    """Return the runs: ``fold1`` of the recipe's seed, ``seed7/fold1`` of another one."""
    return [
        FoldRun(fold, seed, folder / ("" if seed == recipe_seed else f"seed{seed}") / f"fold{fold}")
        for seed in seeds
        for fold in folds
    ]


def check_people(options: DataOptions, folds: Sequence[int], every: bool) -> int:
    """Return the number of people that are tested, after a check that folds are exclusive.

    Args:
        options: the data of the recipe.
        folds: the folds.
        every: whether these are all folds, so that everybody who is trained on must be tested.

    Raises:
        FileNotFoundError: lists are missing.
        ValueError: a person is in training and test of a fold, in the test of two folds, or in that
            of none.
    """
    trained: set[str] = set()
    tested: dict[int, list[str]] = {}
    for fold in folds:
        train = _people(options, fold, "train")
        tested[fold] = _people(options, fold, "test")
        check_apart(train, tested[fold], f"train and test of fold {fold}")
        for other in folds[: folds.index(fold)]:
            check_apart(tested[other], tested[fold], f"the test parts of folds {other} and {fold}")
        trained.update(train)
    everybody = {person for people in tested.values() for person in people}
    if every and (never := sorted(trained - everybody)):
        names = ", ".join(never[:5]) + (", ..." if len(never) > 5 else "")
        raise ValueError(
            f"the folds must test every person once, got {len(never)} in none ({names})"
        )
    return len(everybody)


def write_recipe(folder: Path, text: str) -> Path:
    """Write the recipe of a cross-validation into its folder, and return the file.

    Raises:
        ValueError: the folder holds runs of a recipe with other options.
    """
    file = folder / CONFIG
    if file.is_file():
        changed = differences(file.read_text(encoding="utf-8"), text, PLACE | {"data.fold"})
        if changed:
            raise ValueError(
                f"out must be a folder of this recipe, got {folder} with another "
                f"{', '.join(changed)}: give the same options, or another --out"
            )
    with atomic_path(file) as partial:
        partial.write_text(text, encoding="utf-8")
    return file


def fit_arguments(run: FoldRun, recipe: Path) -> list[str]:
    """Return the command line of `aurel` that trains a run, or continues it."""
    options = ["--data.fold", str(run.fold), "--seed", str(run.seed), "--out", str(run.folder)]
    resume = ["--ckpt_path", "last"] if run.started else []
    return ["fit", "--config", str(recipe), *options, *resume]


def test_arguments(run: FoldRun) -> list[str]:
    """Return the command line of `aurel` that scores a trained run.

    Thresholds are tuned where the epoch was chosen on validation data, which are not the test data.
    """
    checkpoint = checkpoint_file(run.folder, None)
    chosen = read_checkpoint(checkpoint).metadata.get("select_on") == "validation"
    tune = ["--tune"] if chosen and checkpoint.name == "best.ckpt" else []
    return ["test", *tune, "--config", str(run.folder / CONFIG)]


def check_tested_once(runs: Sequence[FoldRun]) -> None:
    """Raise ValueError where the result files of one seed hold a test person twice."""
    for seed in {run.seed for run in runs}:
        seen: list[str] = []
        for run in runs:
            if run.seed == seed and run.finished:
                people = read_results(run.folder / NAME)["test_subjects"]
                check_apart(seen, people, f"the tests of the folds, up to {run.folder},")
                seen += people


def _people(options: DataOptions, fold: int, split: ListSplit) -> list[str]:
    part = part_of(replace(options, fold=fold), split)
    info = dataset_info(options.dataset, options.aus)
    generated = people_of(part)
    if generated is not None:
        return sorted(set(info.subject_names(generated)))
    return sorted(set(info.subject_names(read_part(part).subjects)))

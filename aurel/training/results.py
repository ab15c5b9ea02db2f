"""Result files: the scores of a checkpoint, and what is needed to compare and repeat them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from aurel.training.checksum import part_checksum
from aurel.training.data_module import Splits
from aurel.training.groups import Group, group_report
from aurel.training.options import RunOptions
from aurel.training.recipe_text import differences
from aurel.training.run import checkpoint_file
from aurel.training.task import AUTask, Task

FORMAT = 1
NAME = "results.json"
_PACKAGES = ("aurel-au", "lightning", "torchmetrics", "timm", "numpy")
_NEEDED = ("model", "dataset", "fold", "seed", "protocol", "select_on", "aus", "scores")
_CHUNK = 1 << 20
_SCORES = {"val/f1": "mean F1", "val/icc": "mean ICC", "val/triplets": "accuracy of triplets"}


def results_of(
    options: RunOptions,
    task: Task,
    checkpoints: Sequence[Path],
    recipe: str,
    splits: Splits,
    groups: Sequence[Group] = (),
) -> dict[str, Any]:
    """Return the content of a result file.

    Args:
        options: options of the test.
        task: the result of `aurel.training.scoring.score`.
        checkpoints: the file that was scored, or those whose vote was.
        recipe: the options of the test as YAML; where the run has a ``config.yaml``, that is stored
            as the recipe, and this one beside it if it differs.
        splits: the test data.
        groups: the groups of people that were scored.
    """
    checkpoint = checkpoints[0]
    several = len(checkpoints) > 1
    content = {
        "format": FORMAT,
        "model": options.model.name,
        "backbone": None if several else task.model.config.backbone,
        "aus": list(splits.aus.names),
        **_data(task, splits),
        "part": task.metadata["scored_part"],
        "checkpoint": f"the vote of {len(checkpoints)} checkpoints" if several else str(checkpoint),
        "checkpoints": {str(file): sha256(file) for file in checkpoints},
        "selection": "vote" if several else _selection(task, checkpoint),
        "versions": versions(),
        "device": _device(task),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "threshold": 0.5,
        "thresholds": task.metadata.get("thresholds"),
        "scores": task.scores,
        **task.visibility_scores,
        **_recipe(recipe, checkpoint),
    }
    if isinstance(task, AUTask) and task.tuned_scores:
        content["tuned_scores"] = task.tuned_scores
    if isinstance(task, AUTask) and groups:
        content["groups"] = group_report(groups, task.group_scores)
    return content


def results_file(folder: Path, checkpoints: Sequence[Path], task: Task) -> Path:
    """Return the file for the results of a test.

    The run's own results are ``results.json``: those of its best checkpoint (the last one, where
    there is no best) on the data that it was made for. Other data and other checkpoints have their
    names in the name of the file, so that they never replace these.

    Args:
        folder: folder of the run, or any other one.
        checkpoints: the file that was scored, or those whose vote was.
        task: the result of `aurel.training.scoring.score`.
    """
    parts = []
    trained, tested = task.metadata, task.tested
    if any(trained.get(key) != tested[key] for key in ("dataset", "fold")):
        fold = "" if tested["fold"] is None else f"_fold{tested['fold']}"
        parts.append(f"on_{tested['dataset']}{fold}")
    checkpoint = checkpoints[0]
    if len(checkpoints) > 1:
        digests = "".join(sha256(file) for file in checkpoints)
        parts.append(f"vote_{hashlib.sha256(digests.encode()).hexdigest()[:8]}")
    elif checkpoint.parent.resolve() != (folder / "checkpoints").resolve():
        parts.append(f"{checkpoint.stem}_{sha256(checkpoint)[:8]}")
    elif checkpoint.name != checkpoint_file(folder, None).name:
        parts.append(checkpoint.stem)
    return folder / ("_".join(["results", *parts]) + ".json")


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a result file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a result file of this version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a result file, got no JSON: {error}") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ValueError(f"{path} must be a result file of `aurel test`, got another one")
    if missing := [key for key in _NEEDED if key not in content]:
        raise ValueError(f"{path} must hold {', '.join(missing)}, got none")
    return dict(content)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which scores depend."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "torch": torch.__version__}  # with the version of CUDA


def _data(task: Task, splits: Splits) -> dict[str, Any]:
    """Return the entries about the data of the training and of the test."""
    trained, tested = task.metadata, task.tested
    assert splits.test is not None
    return {
        "dataset": tested["dataset"],
        "fold": tested["fold"],
        "trained_on": {key: trained.get(key) for key in ("dataset", "fold")},
        "seed": trained.get("seed"),
        "protocol": trained.get("protocol"),
        "select_on": trained.get("select_on"),
        "people": {
            "train": _count(trained, "train_subjects"),
            "validation": _count(trained, "validation_subjects"),
            "test": len(tested["test_subjects"]),
        },
        "test_subjects": tested["test_subjects"],
        "split_checksum": trained.get("split_checksum"),
        "test_checksum": part_checksum(splits.test),
    }


def _recipe(tested_with: str, checkpoint: Path) -> dict[str, str]:
    """Return the recipe of the run, and that of the test if its options differ."""
    config = checkpoint.parent.parent / "config.yaml"
    if not config.is_file():
        return {"recipe": tested_with}
    recipe = config.read_text(encoding="utf-8")
    changed = differences(recipe, tested_with, frozenset())
    return {"recipe": recipe, **({"tested_with": tested_with} if changed else {})}


def _selection(task: Task, checkpoint: Path) -> str:
    """Return how the epoch of a checkpoint was chosen, in words."""
    trained = task.metadata
    score = "mean ICC" if "cutpoints" in trained else _SCORES[task.monitor]
    if checkpoint.stem == "last" or trained.get("select_on") == "last":
        return "the last epoch"
    return {
        "test": f"the epoch with the best {score} on the test part",
        "validation": f"the epoch with the best {score} on the validation part",
    }.get(str(trained.get("select_on")), "not known")


def _count(trained: Mapping[str, Any], key: str) -> int | None:
    return len(trained[key]) if key in trained else None


def _device(task: Task) -> str:
    kind = type(task.trainer.accelerator).__name__.removesuffix("Accelerator").lower()
    return f"cuda, {torch.cuda.get_device_name()}" if kind == "cuda" else kind

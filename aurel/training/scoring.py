"""Scores of checkpoints on the test data of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from aurel.models.base import AUModel
from aurel.models.checkpoint import Checkpoint, load_model, read_checkpoint
from aurel.models.voting import VotingEnsemble
from aurel.training.data_module import Splits
from aurel.training.datasets import check_fold, test_splits
from aurel.training.groups import Group, GroupedData
from aurel.training.model_inputs import check_items, task_of
from aurel.training.options import RunOptions
from aurel.training.task import AUTask, Task
from aurel.training.trainer import data_module, make_trainer
from aurel.training.triplet_datasets import triplet_test_splits


def load_test_splits(options: RunOptions) -> Splits:
    """Return the test data of a run, as `load_splits` the training data."""
    load = triplet_test_splits if options.data.triplets else test_splits
    return load(options.data)


def check_test(options: RunOptions, checkpoint: Path) -> None:
    """Raise ValueError unless a checkpoint is of the model of `options`, and that takes the data.

    Raises:
        ValueError: another model, or a model of other inputs.
    """
    held = read_checkpoint(checkpoint).model
    if held != options.model.name:
        raise ValueError(f"{checkpoint} must hold a {options.model.name}, got a {held}")
    check_items(options)


def score(
    options: RunOptions,
    checkpoint: Path | Sequence[Path],
    callbacks: Sequence[Callback] = (),
    splits: Splits | None = None,
    groups: Sequence[Group] = (),
) -> Task:
    """Score a checkpoint, or the vote of several, on the test data of a run.

    A checkpoint with thresholds (`aurel.training.tuning.tune`) is scored at these, too.

    Args:
        options: options of the run; its data section has the fold.
        checkpoint: a training checkpoint, or a file of `save_model`; of several models the vote is
            scored, see `VotingEnsemble`.
        callbacks: callbacks, such as one that prints the progress.
        splits: the data, where they are loaded already.
        groups: groups of people, for models of AUs, from `aurel.training.groups.read_groups`.

    Returns:
        The task with `scores`, `tested`, and where they exist `visibility_scores` (the data have a
        mask of hidden AUs), `tuned_scores` and `group_scores`; scores are a dict of dicts by row
        (an AU, or the mean) and by name of the score.

    Raises:
        FileNotFoundError: data or the checkpoint are missing.
        ValueError: a checkpoint is for other AUs, or was trained on subjects of the test fold.
    """
    files = [checkpoint] if isinstance(checkpoint, Path) else list(checkpoint)
    for file in files:
        check_test(options, file)
    contents = [read_checkpoint(file) for file in files]
    splits = splits or load_test_splits(options)
    for file, content in zip(files, contents, strict=True):
        if content.aus != splits.aus:
            raise ValueError(
                f"{file} must be for the AUs of the data, {', '.join(splits.aus.names)}, got "
                f"{', '.join(content.aus.names)}"
            )
        check_fold(content.metadata, splits.protocol or {})
    allow_hub = ":" in (options.model.backbone or "")
    models = [load_model(file, allow_hub=allow_hub) for file in files]
    model: Any = models[0] if len(models) == 1 else _vote_of(models)
    part = (splits.protocol or {}).get("part", "test")
    task = task_of(models[0])(model, objective=None, metadata=_metadata(contents, part))
    task.tested = {**(splits.protocol or {})}
    if isinstance(task, AUTask):
        task.score_more(task.metadata.get("thresholds"), len(groups))
        if options.data.target == "intensity":
            task.score_intensities(_cutpoints(contents[0].metadata, files[0]))
    if groups:
        splits = replace(splits, test=GroupedData(splits.test, groups))  # type: ignore[arg-type]
    trainer = make_trainer(options.trainer, callbacks, logger=False)
    trainer.test(task, datamodule=data_module(options, splits), verbose=False)
    return task


def _metadata(contents: Sequence[Checkpoint], part: str) -> dict[str, Any]:
    """Return the metadata of the checkpoint, or what those of a vote have in common.

    People are those of all of them, and the epoch was chosen on the test part if any one was.
    """
    every = [content.metadata for content in contents]
    metadata = {**every[0], "scored_part": part}
    if len(every) == 1:
        return metadata
    metadata.pop("thresholds", None)
    for key in ("seed", "protocol", "select_on", "split_checksum"):
        if any(other.get(key) != metadata.get(key) for other in every):
            metadata[key] = None
    if any(other.get("select_on") == "test" for other in every):
        metadata["select_on"] = "test"
    for key in ("train_subjects", "validation_subjects"):
        if all(key in other for other in every):
            metadata[key] = sorted({person for other in every for person in other[key]})
    return metadata


def _vote_of(models: Sequence[AUModel]) -> VotingEnsemble:
    if models[0].inputs == "triplets":
        raise ValueError("ckpt_path must be given once for an encoder, which cannot vote")
    return VotingEnsemble(models)


def _cutpoints(metadata: dict[str, Any], checkpoint: Path) -> Tensor:
    """Return the cutpoints of the intensities that a checkpoint was trained on."""
    if "cutpoints" not in metadata:
        raise ValueError(
            f"data.target must be occurrence for {checkpoint}, which was trained on that, got "
            "intensity"
        )
    return torch.tensor(metadata["cutpoints"])

"""A training run, and the test of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

from aurel.files import atomic_path
from aurel.models.base import AUModel
from aurel.models.checkpoint import describe, read_checkpoint
from aurel.models.registry import create_model, model_info
from aurel.models.relation_head import HEAD
from aurel.training.checksum import split_checksum
from aurel.training.data_module import AUDataModule, Splits
from aurel.training.datasets import check_start, training_splits
from aurel.training.finite import FiniteLoss
from aurel.training.history import History
from aurel.training.mean_face import start_from_mean_face
from aurel.training.model_inputs import check_items, task_of
from aurel.training.objective import Objective, losses_of
from aurel.training.options import RunOptions
from aurel.training.plugins import make_logger
from aurel.training.process_errors import one_line_process_errors
from aurel.training.run_lock import check_not_held, hold_folder
from aurel.training.seeding import StepSeed
from aurel.training.start import initial_checkpoint, load_backbone_weights, start_from
from aurel.training.task import AUTask, Task
from aurel.training.trainer import checkpointing, chosen_callbacks, data_module, make_trainer
from aurel.training.triplet_datasets import triplet_splits

_log = logging.getLogger("aurel")


def run_folder(options: RunOptions) -> Path:
    """Return the folder of a run: `options.out`, or a name from model, data and fold."""
    if options.out is not None:
        return Path(options.out)
    fold = "" if options.data.fold is None else f"_fold{options.data.fold}"
    return Path("runs") / f"{options.model.name}_{options.data.dataset}{fold}".lower()


def checkpoint_file(folder: Path, name: str | None) -> Path:
    """Return the file of a checkpoint: "best" or "last" of the run in `folder`, or a path.

    Args:
        folder: folder of the run.
        name: None for the best, or for the last where there is no best.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if name is None:
        best = folder / "checkpoints" / "best.ckpt"
        return best if best.is_file() else checkpoint_file(folder, "last")
    file = folder / "checkpoints" / f"{name}.ckpt" if name in ("best", "last") else Path(name)
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint {file}")
    return file


def check_free(folder: Path, resume: Path | None) -> None:
    """Raise ValueError where a run would overwrite another.

    Raises:
        ValueError: the folder holds a run, and `resume` is None; or another process writes it.
    """
    check_not_held(folder)
    if resume is None and (folder / "checkpoints" / "last.ckpt").exists():
        raise ValueError(
            f"out must be a folder without a run, got {folder}: resume that run by --ckpt_path "
            "last, or choose another --out"
        )


def load_splits(options: RunOptions) -> Splits:
    """Return the data of a training run, see `training_splits` and `triplet_splits`.

    Raises:
        FileNotFoundError: data are missing.
        ValueError: invalid data, an unknown model, or a model of other inputs.
    """
    check_items(options)
    return load_splits_of(options)


def load_splits_of(options: RunOptions) -> Splits:
    """Return the data of a training run of any model, see `load_splits`."""
    load = triplet_splits if options.data.triplets else training_splits
    return load(options.data, options.seed)


def fit(
    options: RunOptions,
    resume: Path | None = None,
    callbacks: Sequence[Callback] = (),
    splits: Splits | None = None,
    config: str | None = None,
) -> Task:
    """Train a model, and write its checkpoints, logs and history into the folder of the run.

    Args:
        options: options of the run.
        resume: checkpoint to resume from; None for a new run.
        callbacks: callbacks besides those of every run.
        splits: the data, where they are loaded already.
        config: text for the run's ``config.yaml``, written when all checks have passed.

    Returns:
        The trained task. ``checkpoints/best.ckpt``, ``checkpoints/last.ckpt``, ``history.csv`` and
        TensorBoard's files are in `run_folder(options)`.

    Raises:
        FileNotFoundError: data are missing.
        ValueError: invalid data or options; the folder holds a run and `resume` is None, or
            another process writes it; or the loss is NaN or infinite (see `FiniteLoss`).
        ChildProcessError: a process that reads data ended; ``last.ckpt`` is complete.
        ConnectionError: another process of the run ended or does not answer.
        KeyboardInterrupt: the user stopped the run; ``last.ckpt`` is complete.
    """
    folder = run_folder(options)
    check_free(folder, resume)
    seed_everything(options.seed, workers=True, verbose=False)
    splits = splits or load_splits(options)
    task = _training_task(options, splits, new=resume is None)
    if resume is not None:
        _check_same_run(resume, task)
    monitor = None if splits.validation is None else task.monitor
    always = checkpointing(folder / "checkpoints", monitor)
    always += [History(folder / "history.csv"), StepSeed(options.seed), FiniteLoss(folder)]
    if options.optimizer.ema_decay is not None:
        always.append(EMAWeightAveraging(decay=options.optimizer.ema_decay))
    always += chosen_callbacks(options, folder, monitor)
    logger = make_logger(options.logger, folder)
    trainer = make_trainer(options.trainer, [*always, *callbacks], logger)
    data = data_module(options, splits)
    data.check_batch(trainer.world_size)
    with hold_folder(folder), one_line_process_errors():
        if config is not None and trainer.is_global_zero:
            with atomic_path(folder / "config.yaml") as partial:
                partial.write_text(config)
        if options.trainer.compile:
            task.model.compile()
        _fit_or_interrupt(trainer, task, data, resume)
    return task


def _training_task(options: RunOptions, splits: Splits, new: bool = True) -> Task:
    """Return the task; that of a resumed run, which is not `new`, gets its weights later."""
    name = options.model.name
    model = _make_model(options, splits)
    if options.model.backbone_weights is not None:
        load_backbone_weights(model, options.model.backbone_weights)
    fresh = list(model.state_dict())
    if options.model.init_from is None and model.landmark_predictor is not None:
        start_from_mean_face(model.landmark_predictor, splits)
    if options.model.init_from is not None:
        source = initial_checkpoint(options.model.init_from, options.data.fold)
        before = read_checkpoint(source)
        check_start(before.metadata, splits.protocol or {})
        model.trained_on = before.trained_on
        fresh = start_from(model, source)
        names = ", ".join(fresh) or "none"
        _log.warning("tensors with initial values, which %s lacks: %s", source, names)
    losses = losses_of(name, options.losses)
    head = model.relation_head
    if head is not None:
        losses.setdefault("joint", 1.0)
        if new and HEAD + "inference.couplings" in fresh:
            if splits.train_labels is None:
                raise ValueError("splits.train_labels must be given for a relation head, got None")
            head.fit_labels(splits.train_labels)
    for loss, reason in model.required_losses.items():
        if not losses.get(loss):
            raise ValueError(f"losses.{loss} must be above 0: {reason}")
    joint_nll = None if head is None else head.nll
    if splits.cutpoints is not None:
        losses.setdefault("ordinal", 1.0)
    objective = Objective(
        losses,
        splits.class_weights,
        model.region_plan,
        joint_nll,
        splits.cutpoints,
        detach_focus=options.detach_focus,
    )
    metadata = {
        **(splits.protocol or {}),
        "seed": options.seed,
        "image_size": options.data.crop,
        "resize": options.data.resize,
        "frames": options.data.frames,
        "split_checksum": split_checksum(splits),
    }
    model.trained_on = tuple(dict.fromkeys((*model.trained_on, options.data.dataset)))
    task = task_of(model)(model, objective, options.optimizer, metadata)
    if splits.cutpoints is not None:
        metadata["cutpoints"] = splits.cutpoints.tolist()
        cast(AUTask, task).score_intensities(splits.cutpoints)
    return task


def _make_model(options: RunOptions, splits: Splits) -> AUModel:
    name, chosen = options.model.name, dict(options.model.options)
    aus, info = splits.aus, model_info(name)
    check_items(options)
    if "image_size" in info.options:
        chosen.setdefault("image_size", options.data.crop)
    if splits.train_labels is not None:
        chosen |= info.config.from_labels(aus, chosen, torch.cat(splits.train_labels))
    backbone, pretrained = options.model.backbone, options.model.pretrained
    try:
        return create_model(name, aus=aus, backbone=backbone, pretrained=pretrained, **chosen)
    except RuntimeError as error:
        raise ValueError(f"the model {name} cannot be created: {error}") from error


def _check_same_run(resume: Path, task: Task) -> None:
    before = read_checkpoint(resume)
    changed = [key for key, value in task.metadata.items() if before.metadata.get(key) != value]
    current = describe(task.model)
    if before.model != current["model"]:
        changed.append(f"model ({before.model} there, {current['model']} here)")
    else:
        changed += [
            f"model option {key} ({before.config.get(key)} there, {value} here)"
            for key, value in current["config"].items()
            if before.config.get(key) != value
        ]
    if before.aus != task.model.aus:
        changed.append("AUs")
    if changed:
        raise ValueError(
            f"{resume} must be a checkpoint of this run, got one with another "
            f"{', '.join(changed)}; start a new run in another out folder (model.init_from copies "
            "the weights)"
        )


def _fit_or_interrupt(
    trainer: Trainer, task: Task, data: AUDataModule, resume: Path | None
) -> None:
    try:
        trainer.fit(task, datamodule=data, ckpt_path=resume)
    except SystemExit as stop:
        # Lightning replaces a KeyboardInterrupt by SystemExit.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise

"""A training run, and the test of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from aurel.facs import AUSet
from aurel.files import atomic_path
from aurel.models.base import AUModel
from aurel.models.checkpoint import describe, load_model, read_checkpoint
from aurel.models.registry import create_model, model_info
from aurel.models.relation_head import HEAD
from aurel.training.checkpoint_io import AtomicCheckpointIO
from aurel.training.data_module import AUDataModule, Splits
from aurel.training.datasets import check_fold, test_splits, training_splits
from aurel.training.finite import FiniteLoss
from aurel.training.history import History
from aurel.training.objective import Objective, losses_of
from aurel.training.options import RunOptions, TrainerOptions
from aurel.training.plugins import early_stopping, make_callbacks, make_logger
from aurel.training.process_errors import one_line_process_errors
from aurel.training.run_lock import check_not_held, hold_folder
from aurel.training.seeding import StepSeed
from aurel.training.start import load_backbone_weights, start_from
from aurel.training.step_checkpoint import StepCheckpoint
from aurel.training.sync_norms import SyncNorms
from aurel.training.task import AUTask, Task
from aurel.training.trainer_arguments import trainer_arguments
from aurel.training.triplet_datasets import triplet_splits, triplet_test_splits
from aurel.training.triplet_task import TripletTask

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
    _check_items(options)
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
    always = _checkpointing(folder / "checkpoints", monitor)
    always += [History(folder / "history.csv"), StepSeed(options.seed), FiniteLoss(folder)]
    if options.optimizer.ema_decay is not None:
        always.append(EMAWeightAveraging(decay=options.optimizer.ema_decay))
    always += _chosen_callbacks(options, folder, monitor)
    logger = make_logger(options.logger, folder)
    trainer = make_trainer(options.trainer, [*always, *callbacks], logger)
    data = _data_module(options, splits)
    data.check_batch(trainer.world_size)
    with hold_folder(folder), one_line_process_errors():
        if config is not None and trainer.is_global_zero:
            with atomic_path(folder / "config.yaml") as partial:
                partial.write_text(config)
        if options.trainer.compile:
            task.model.compile()
        _fit_or_interrupt(trainer, task, data, resume)
    return task


def score(
    options: RunOptions,
    checkpoint: Path,
    callbacks: Sequence[Callback] = (),
    splits: Splits | None = None,
) -> Task:
    """Score a checkpoint on the test data of a run.

    Args:
        options: options of the run; its data section has the fold.
        checkpoint: a training checkpoint, or a file of `save_model`.
        callbacks: callbacks, such as one that prints the progress.
        splits: the data, where they are loaded already.

    Returns:
        The task with `scores` and, where the data have a mask of hidden AUs, `visibility_scores`,
        both as a dict of dicts by row (an AU, or the mean) and by name of the score.

    Raises:
        FileNotFoundError: data or the checkpoint are missing.
        ValueError: the checkpoint is for other AUs, or was trained on subjects of the test fold.
    """
    content = read_checkpoint(checkpoint)
    if content.model != options.model.name:
        raise ValueError(f"{checkpoint} must hold a {options.model.name}, got a {content.model}")
    _check_items(options)
    splits = splits or (triplet_test_splits if options.data.triplets else test_splits)(options.data)
    if content.aus != splits.aus:
        raise ValueError(
            f"{checkpoint} must be for the AUs of the data, {', '.join(splits.aus.names)}, got "
            f"{', '.join(content.aus.names)}"
        )
    check_fold(content.metadata, splits.protocol or {})
    model = load_model(checkpoint, allow_hub=":" in (options.model.backbone or ""))
    task = _task_of(model)(model, objective=None, metadata=content.metadata)
    trainer = make_trainer(options.trainer, callbacks, logger=False)
    trainer.test(task, datamodule=_data_module(options, splits), verbose=False)
    return task


def make_trainer(options: TrainerOptions, callbacks: Sequence[Callback], logger: Any) -> Trainer:
    """Return a Lightning trainer that prints nothing and writes checkpoints atomically."""
    try:
        return Trainer(
            **trainer_arguments(options),
            callbacks=list(callbacks),
            logger=logger,
            plugins=[AtomicCheckpointIO(), *([SyncNorms()] if options.sync_batchnorm else [])],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        )
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error


def _training_task(options: RunOptions, splits: Splits, new: bool) -> Task:
    """Return the task; that of a resumed run, which is not `new`, gets its weights later."""
    name = options.model.name
    model = _make_model(options, splits.aus)
    if options.model.backbone_weights is not None:
        load_backbone_weights(model, options.model.backbone_weights)
    fresh = list(model.state_dict())
    if options.model.init_from is not None:
        source = options.model.init_from.replace("{fold}", str(options.data.fold))
        check_fold(read_checkpoint(source).metadata, splits.protocol or {})
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
    objective = Objective(losses, splits.class_weights, model.region_plan, joint_nll)
    metadata = {
        **(splits.protocol or {}),
        "seed": options.seed,
        "image_size": options.data.crop,
        "resize": options.data.resize,
        "frames": options.data.frames,
    }
    return _task_of(model)(model, objective, options.optimizer, metadata)


def _task_of(model: AUModel) -> type[Task]:
    return TripletTask if model.inputs == "triplets" else AUTask


def _make_model(options: RunOptions, aus: AUSet) -> AUModel:
    name, chosen = options.model.name, dict(options.model.options)
    _check_items(options)
    if "image_size" in model_info(name).options:
        chosen.setdefault("image_size", options.data.crop)
    backbone, pretrained = options.model.backbone, options.model.pretrained
    try:
        return create_model(name, aus=aus, backbone=backbone, pretrained=pretrained, **chosen)
    except RuntimeError as error:
        raise ValueError(f"the model {name} cannot be created: {error}") from error


def _check_items(options: RunOptions) -> None:
    name, frames = options.model.name, options.data.frames
    inputs = model_info(name).inputs
    if inputs == "clips" and frames is None:
        raise ValueError(
            f"data.frames must be the length of a clip, such as 16, for {name}, got None"
        )
    triplets = options.data.triplets
    if triplets != (inputs == "triplets"):
        items = "single faces" if triplets else "triplets of faces"
        raise ValueError(
            f"data.triplets must be {not triplets} for {name}, which takes {items}, got {triplets}"
        )
    if frames is not None and inputs != "clips":
        raise ValueError(
            f"data.frames must be null for {name}, which takes single images, got {frames}"
        )


def _checkpointing(folder: Path, monitor: str | None) -> list[Callback]:
    """Return the callbacks that save the last epoch, and that of the highest `monitor` if any."""
    every_epoch: dict[str, Any] = {
        "dirpath": folder,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    last = ModelCheckpoint(filename="last", **every_epoch)
    if monitor is None:
        return [last]
    return [ModelCheckpoint(filename="best", monitor=monitor, mode="max", **every_epoch), last]


def _chosen_callbacks(options: RunOptions, folder: Path, monitor: str | None) -> list[Callback]:
    """Return the callbacks that the recipe asks for."""
    chosen = make_callbacks(options.callbacks)
    if options.early_stopping is not None:
        chosen.append(early_stopping(options.early_stopping, monitor))
    if options.checkpoint.every_steps is not None:
        last = folder / "checkpoints" / "last.ckpt"
        chosen.append(StepCheckpoint(last, options.checkpoint.every_steps))
    return chosen


def _data_module(options: RunOptions, splits: Splits) -> AUDataModule:
    data = options.data
    return AUDataModule(
        splits,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        seed=options.seed,
        balanced=data.sampler == "balanced",
    )


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

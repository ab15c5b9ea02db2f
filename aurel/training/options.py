"""The options of a run; each class is a section of a recipe file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from aurel.data.owners.options import OwnerOptions
from aurel.data.registry import Layout
from aurel.data.synthetic.options import SyntheticOptions
from aurel.training.schedules import Schedule


@dataclass
class ModelOptions:
    """Options of the model.

    Args:
        name: a name that `aurel models` lists.
        backbone: name of the image backbone; none for the paper's.
        pretrained: start the backbone from its published ImageNet weights (downloads them).
        backbone_weights: file with initial weights of the backbone.
        options: further options of the model, such as {k: 3}.
        init_from: checkpoint of a trained model to start from; "{fold}" in it stands for data.fold.
    """

    name: str
    backbone: str | None = None
    pretrained: bool = False
    backbone_weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    init_from: str | None = None


@dataclass
class DataOptions:
    """Options of the data.

    Args:
        dataset: a registered name (`aurel.data.list_datasets`), such as BP4D, DISFA or synthetic
            for the synthetic faces; or the prefix of your own list files, with `aus`.
        root: folder of the data set.
        fold: number in the names of the list files; none for names without a number.
        lists: folder of the list files; by default root/list, or root.
        images: folder that the listed paths are relative to; by default root/img or similar.
        aus: AU numbers in the order of the label columns, where `dataset` has none.
        target: "intensity" to learn and score intensities from 0 to 5, the codes of label lists,
            besides occurrence, which is then any intensity above 0.
        triplets: read triplets of faces, for `expression_encoder`, see `aurel.data.triplets`; of
            listed ones, the best epoch is chosen on a "val" list.
        frames: length of a clip, for a model that takes clips; none for single images.
        context: frames on either side of a clip that enter no loss and no score, see
            `aurel.data.clips.ListClips`.
        segment: cut runs of frames for training into segments of at most this many frames, from
            each of which an epoch takes one clip; none for whole runs.
        every: n to train on every n-th frame of each subject, or of each video of Aff-Wild2.
        rare_aus: AUs of which more frames are taken: of frames in which one of them is present,
            every `rare_every`-th is taken.
        rare_every: see `rare_aus`.
        batch_size: images, or clips, per step and process.
        num_workers: processes that read images.
        sampler: "shuffle" takes each item once an epoch, "balanced" those with rare labels more
            often, see `aurel.training.order.balanced_weights`.
        resize: length of the shorter side in pixels before the crop.
        crop: side in pixels of the square that the model takes.
        flip: probability of a horizontal flip.
        brightness: strength of the random brightness.
        contrast: strength of the random contrast.
        saturation: strength of the random saturation.
        protocol: "published" trains on all training subjects and chooses the epoch by `select_on`;
            "held-out" chooses it on held-out subjects, or on a "val" list, whatever `select_on` is;
            none for what `select_on` and `validation` say.
        validation: share of the training subjects that is held out to choose the best epoch.
        select_on: data on which the best epoch is chosen: "validation" for a "val" list or held-out
            subjects, "test" for the test fold, as the code of several papers does, or "last" for
            the last epoch without a choice.
        class_weights: from the training "labels", from the published "file", or "none".
        synthetic: options of the synthetic faces.
        layout: "lists" of the authors' form, the "owner"'s files, "shards" of `aurel prepare`, or
            "auto" for shards or lists where there are some and else the owner's.
        owner: options of the owner's files.
    """

    dataset: str = "BP4D"
    root: str | None = None
    fold: int | None = 1
    lists: str | None = None
    images: str | None = None
    aus: list[int | str] | None = None
    target: Literal["occurrence", "intensity"] = "occurrence"
    triplets: bool = False
    frames: int | None = None
    context: int = 0
    segment: int | None = None
    every: int = 1
    rare_aus: list[int | str] = field(default_factory=list)
    rare_every: int = 1
    batch_size: int = 16
    num_workers: int = 4
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    resize: int = 256
    crop: int = 224
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    protocol: Literal["published", "held-out"] | None = None
    validation: float = 0.15
    select_on: Literal["validation", "test", "last"] = "validation"
    class_weights: Literal["labels", "file", "none"] = "labels"
    synthetic: SyntheticOptions = field(default_factory=SyntheticOptions)
    layout: Layout = "auto"
    owner: OwnerOptions = field(default_factory=OwnerOptions)


@dataclass
class OptimizerOptions:
    """Options of the optimizer and of its learning rate.

    Args:
        name: adamw, adam or sgd.
        lr: highest learning rate.
        weight_decay: weight decay of all parameters.
        momentum: momentum of sgd.
        nesterov: whether that is Nesterov's momentum.
        betas: coefficients of adam and adamw.
        schedule: schedule of the learning rate, which changes after every step.
        warmup_epochs: epochs of linear warm-up, part of the run.
        warmup_steps: the same in steps; above 0 it replaces `warmup_epochs`.
        milestones: epochs after which the rate of multi_step is divided by 10.
        sam: radius of adaptive sharpness-aware minimization, which takes two passes per step (see
            `aurel.training.sam`); none for plain steps.
        ema_decay: decay of an exponential moving average of the weights, which is then validated
            and saved; none for no average.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    milestones: list[float] = field(default_factory=list)
    sam: float | None = None
    ema_decay: float | None = None


@dataclass
class TrainerOptions:
    """Options of Lightning's Trainer, under its names.

    Args:
        max_epochs: epochs of the run.
        max_steps: largest number of optimizer steps; -1 for no such limit.
        accelerator: cpu, gpu, mps, or auto for the first that is available.
        devices: number of devices, or their indices, such as [0, 2].
        num_nodes: number of machines.
        strategy: ddp for several devices; auto chooses it.
        precision: 32-true, 16-mixed or bf16-mixed.
        accumulate_grad_batches: batches whose gradients are summed for a step.
        gradient_clip_val: largest norm of the gradient; none for no limit.
        sync_batchnorm: batch statistics over all devices instead of over each; on GPUs.
        deterministic: raise on operations whose results may differ between runs.
        compile: compile the model by torch.compile.
        timeout: seconds after which a process that waits for another ends with an error, with
            strategy ddp; none for the half hour of torch.
        check_val_every_n_epoch: epochs between two validations.
        limit_train_batches: number or share of the training batches of an epoch.
        limit_val_batches: number or share of the validation batches.
        limit_test_batches: number or share of the test batches.
    """

    max_epochs: int = 20
    max_steps: int = -1
    accelerator: str = "auto"
    devices: int | list[int] | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    sync_batchnorm: bool = False
    deterministic: bool = False
    compile: bool = False
    timeout: float | None = None
    check_val_every_n_epoch: int = 1
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None


@dataclass
class CheckpointOptions:
    """Options of the checkpoints of a run, which are written at the end of every epoch.

    Args:
        every_steps: write last.ckpt also after so many optimizer steps, from which a stopped run
            continues in the middle of an epoch; none for the ends of epochs only.
    """

    every_steps: int | None = None


@dataclass
class RunOptions:
    """All options of a run.

    Args:
        model: options of the model.
        data: options of the data.
        losses: factor of each loss; by default that of the model's paper.
        optimizer: options of the optimizer.
        trainer: options of the trainer.
        seed: seed of weights, order, augmentation, and of the subjects held out for validation.
        out: folder of the run; by default runs/MODEL_DATASET_foldF.
        detach_focus: treat the factor p of the asymmetric loss as a constant, see
            `aurel.losses.weighted_asymmetric_loss`.
        checkpoint: options of the checkpoints.
        callbacks: callbacks of Lightning or your own, each with class_path and init_args; those of
            Lightning need no module, such as {class_path: LearningRateMonitor}.
        logger: tensorboard, csv or none; or a class_path and init_args, such as WandbLogger.
        early_stopping: epochs without a better validation score after which the run stops; none
            for all epochs.
    """

    model: ModelOptions
    data: DataOptions = field(default_factory=DataOptions)
    losses: dict[str, float] = field(default_factory=dict)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    seed: int = 0
    out: str | None = None
    detach_focus: bool = True
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    logger: str | dict[str, Any] = "tensorboard"
    early_stopping: int | None = None

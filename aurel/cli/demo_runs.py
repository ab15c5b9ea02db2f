"""The trainings of `aurel demo`, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from aurel.cli.console import quiet_libraries
from aurel.models.base import AUModel
from aurel.models.checkpoint import load_model
from aurel.training.data_module import Splits
from aurel.training.datasets import training_splits
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    SyntheticOptions,
    TrainerOptions,
)
from aurel.training.run import checkpoint_file, fit, run_folder

ALONE, LAYER, EXACT = "alone", "self_adjusting", "pairwise"
VARIANTS: Mapping[str, Mapping[str, str]] = {
    ALONE: {},
    LAYER: {"relation": "self_adjusting"},
    EXACT: {"relation_head": "pairwise"},
}
"""Options of the model `au_windows`, by the name of the variant."""

_splits: dict[str, Splits] = {}


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Args:
        variant: a key of `VARIANTS`.
        seed: of the training.
        probs: of the test faces, (M, N).
        couplings: learned by the relation head, (N, N) symmetric; None without one.
    """

    variant: str
    seed: int
    probs: NDArray[np.float32]
    couplings: NDArray[np.float32] | None


def demo_options(variant: str, out: Path, seed: int, faces: int, quick: bool) -> RunOptions:
    """Return the run of a variant: the same net, data and schedule for all.

    Args:
        variant: a key of `VARIANTS`.
        out: folder of all runs.
        seed: of the training.
        faces: seed of the faces.
        quick: a few faces and one epoch.
    """
    synthetic = SyntheticOptions(
        subjects=12 if quick else 110,
        per_subject=20 if quick else 40,
        size=70,
        occlusion=0.6,
        faintest=0.3,
        seed=faces,
    )
    data = DataOptions(
        dataset="synthetic",
        batch_size=64,
        num_workers=0,
        resize=70,
        crop=64,
        brightness=0.2,
        contrast=0.2,
        saturation=0.0,
        validation=0.1,
        class_weights="none",
        synthetic=synthetic,
    )
    return RunOptions(
        ModelOptions("au_windows", options=dict(VARIANTS[variant])),
        data,
        {},
        OptimizerOptions(lr=3e-3, weight_decay=1e-2, schedule="one_cycle"),
        TrainerOptions(
            max_epochs=1 if quick else 6, accelerator="cpu", devices=1, gradient_clip_val=5.0
        ),
        seed,
        str(out / f"{variant}_{seed}"),
    )


def splits_of(options: RunOptions) -> Splits:
    """Return the faces of a run, drawn once in a process."""
    key = repr(options.data)
    if key not in _splits:
        _splits[key] = training_splits(options.data)
    return _splits[key]


def train_all(runs: list[tuple[str, RunOptions]]) -> Iterator[Outcome]:
    """Train and test each run, two at a time; yield the outcomes as they come.

    Args:
        runs: variant and options.
    """
    workers = min(2, os.cpu_count() or 1, len(runs))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    try:
        futures: list[Future[Outcome]] = [pool.submit(train, *run) for run in runs]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process when its parent has ended, such as by a kill, which ends no children."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train(variant: str, options: RunOptions) -> Outcome:
    """Train one model on one thread and test its best epoch."""
    quiet_libraries()
    torch.set_num_threads(1)
    splits = splits_of(options)
    fit(options, splits=splits)
    model = load_model(checkpoint_file(run_folder(options), "best"))
    return Outcome(variant, options.seed, test_probabilities(model, splits), couplings_of(model))


@torch.inference_mode()
def test_probabilities(model: AUModel, splits: Splits) -> NDArray[np.float32]:
    """Return the probabilities of the test faces, (M, N)."""
    assert splits.test is not None
    model.eval()
    batches: Any = DataLoader(splits.test, batch_size=100)
    return torch.cat([model(batch["image"]).probs for batch in batches]).numpy()


def couplings_of(model: AUModel) -> NDArray[np.float32] | None:
    """Return the couplings of a model's relation head as a symmetric matrix, if it has one."""
    if model.relation_head is None:
        return None
    graph = model.relation_head.inference.graph()
    adjacency: NDArray[np.float32] = graph.adjacency()[0].detach().numpy()
    return adjacency

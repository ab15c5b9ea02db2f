"""`aurel demo`: train and test a small model on the synthetic faces, and draw its graph."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurel.cli.errors import Interrupted

if TYPE_CHECKING:
    from aurel.training.data_module import Splits
    from aurel.training.options import RunOptions
    from aurel.training.task import Task

_ABOUT = """\
Train a small SACL model with and without relations on synthetic faces, in which AUs occur together
as in BP4D, and compare the two models on new subjects. Objects cover parts of the faces. An AU is
hidden if nothing that shows it is visible: it can be predicted only from its relations to other
AUs. Takes a few minutes on two CPU cores.
"""
WITH, WITHOUT = "with_relations", "without_relations"


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="train and test a small model on synthetic faces, in a few minutes",
        description=_ABOUT,
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the results (default: demo, or demo_2, ...)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the faces and of training (0)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use few faces and one epoch, to check the installation",
    )


def run(args: argparse.Namespace) -> int:
    """Train both models, print their scores, and write all results into a folder."""
    from aurel.cli.console import make_console
    from aurel.cli.demo_results import comparison, draw, summary
    from aurel.cli.progress import TrainingProgress
    from aurel.cli.tables import write_json
    from aurel.training.datasets import training_splits
    from aurel.training.run import checkpoint_file, fit, run_folder, score

    started = time.monotonic()
    console = make_console()
    out = args.out or _free_folder()
    runs = {name: demo_options(name, out, args.seed, args.quick) for name in (WITH, WITHOUT)}
    console.print(_ABOUT)
    with console.status("rendering faces"):
        splits = training_splits(runs[WITH].data, args.seed)
    console.print(_summary(splits))
    tasks: dict[str, Task] = {}
    for name, options in runs.items():
        title = name.replace("_", " ")
        console.print(f"\n[bold]{title}[/] (F1 and AUC on the validation subjects)")
        try:
            fit(options, callbacks=[TrainingProgress(console, title)], splits=splits)
        except KeyboardInterrupt as stop:
            raise Interrupted(f"interrupted; the results so far are in {out}") from stop
        best = checkpoint_file(run_folder(options), "best")
        tasks[name] = score(options, best, [TrainingProgress(console, "testing")], splits)
    results = {name: {"all": task.scores, **task.visibility_scores} for name, task in tasks.items()}
    console.print()
    console.print(comparison(results[WITH], results[WITHOUT]))
    console.print(f"\n{summary(results[WITH], results[WITHOUT])}")
    with console.status("drawing pictures"):
        pictures = draw(tasks[WITH].model, splits, out)
    seconds = time.monotonic() - started
    metrics = out / "metrics.json"
    write_json(metrics, {"seed": args.seed, "quick": args.quick, "seconds": seconds, **results})
    files: Mapping[str, Path] = {
        "checkpoint": checkpoint_file(run_folder(runs[WITH]), "best"),
        "scores": metrics,
        **pictures,
    }
    console.print("\n" + "\n".join(f"{name:<12} {path}" for name, path in files.items()))
    console.print(f"\ndone in {seconds:.0f} s")
    return 0


def demo_options(name: str, out: Path, seed: int, quick: bool) -> RunOptions:
    """Return the options of one of the two runs, which differ only in the graph.

    Without relations, each node has itself as its only neighbor; the parameters are the same.
    """
    from aurel.training.options import (
        DataOptions,
        ModelOptions,
        OptimizerOptions,
        RunOptions,
        SyntheticOptions,
        TrainerOptions,
    )

    model = ModelOptions(
        "sacl",
        backbone="test_resnet",
        options={
            "dims": [32, 64],
            "depths": [1, 1],
            "token_dim": 16,
            "landmark_widths": [16, 32, 64],
            "graph": "knn" if name == WITH else "self",
        },
    )
    faces = SyntheticOptions(
        subjects=88, per_subject=40, size=88, occlusion=0.6, faintest=0.3, seed=seed
    )
    if quick:
        faces.subjects, faces.per_subject = 12, 20
    data = DataOptions(
        dataset="synthetic",
        batch_size=32,
        num_workers=0,
        resize=88,
        crop=80,
        brightness=0.3,
        contrast=0.3,
        saturation=0.0,
        validation=0.1,
        synthetic=faces,
    )
    optimizer = OptimizerOptions(lr=3e-3, weight_decay=1e-2, schedule="one_cycle")
    trainer = TrainerOptions(
        max_epochs=1 if quick else 8, accelerator="cpu", devices=1, gradient_clip_val=5.0
    )
    return RunOptions(model, data, {}, optimizer, trainer, seed, str(out / name))


def _free_folder() -> Path:
    folder, number = Path("demo"), 1
    while folder.exists():
        number += 1
        folder = Path(f"demo_{number}")
    return folder


def _summary(splits: Splits) -> str:
    protocol = splits.protocol or {}
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    parts = [
        f"{len(data)} faces of {len(protocol[f'{part}_subjects'])} subjects for {part}"  # type: ignore[arg-type]
        for part, data in sets.items()
    ]
    return "synthetic faces: " + ", ".join(parts)

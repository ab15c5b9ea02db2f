"""`aurel test`: score a checkpoint on the test fold."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel test`; its options are read by jsonargparse later."""
    parser = subparsers.add_parser(
        "test", help="score a checkpoint on the test fold of a recipe file", add_help=False
    )
    parser.set_defaults(takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Print the scores of each AU and write them to ``metrics.json`` in the run's folder."""
    from aurel.cli.config import parse, take_checkpoints

    names, rest = take_checkpoints(args.rest)
    options, _, _ = parse("test", rest)

    from aurel.cli.console import is_first_process, make_console
    from aurel.cli.progress import TrainingProgress
    from aurel.cli.tables import score_table, write_json
    from aurel.training.run import checkpoint_file, run_folder, score

    console = make_console()
    folder = run_folder(options)
    given: list[str | None] = [*names] or [None]
    files = [checkpoint_file(folder, name) for name in given]
    task = score(options, files, [TrainingProgress(console, "testing")])
    checkpoint = str(files[0]) if len(files) == 1 else f"the vote of {len(files)} checkpoints"
    fold = "" if options.data.fold is None else f" fold {options.data.fold}"
    console.print(score_table(task.scores, f"{checkpoint} on {options.data.dataset}{fold}"))
    if "train_subjects" not in task.metadata:
        console.print(
            "the checkpoint does not contain the subjects of its training data", style="yellow"
        )
    if task.metadata["scored_part"] == "val":
        console.print("scored on the val list: the data have no test list", style="yellow")
    if task.metadata.get("select_on") == "test":
        console.print("warning: the best epoch was chosen on this fold", style="yellow")
    if is_first_process():
        content = {
            "checkpoint": checkpoint,
            "checkpoints": [str(file) for file in files],
            "part": task.metadata["scored_part"],
            "dataset": options.data.dataset,
            "fold": options.data.fold,
            "threshold": 0.5,
            "select_on": task.metadata.get("select_on"),
            "scores": task.scores,
            **task.visibility_scores,
        }
        write_json(folder / "metrics.json", content)
    console.print(f"metrics     {folder / 'metrics.json'}")
    return 0

"""`aurel test`: score a checkpoint on the test fold."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from aurel.training.task import Task

_DESCRIPTION = """\
Score a checkpoint on the test fold of a recipe file.

The scores of each AU are printed and written to results.json in the folder of the run, with the
recipe, a checksum of the split, versions and the SHA-256 of the checkpoint. Results on other data
(`--data.dataset`, `--data.root`) are in a file with their name, beside it.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel test`; the options of the recipe are read by jsonargparse later."""
    parser = subparsers.add_parser(
        "test",
        help="score a checkpoint on the test fold of a recipe file",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="choose the threshold of each AU on the validation people, store it in the checkpoint",
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="CSV file, person,attribute,...: score each group of people",
    )
    parser.set_defaults(takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Print the scores of each AU and write them to ``results.json`` in the run's folder."""
    from aurel.cli.config import parse, take_checkpoints

    names, rest = take_checkpoints(args.rest)
    options, _, text = parse("test", rest)

    from aurel.cli.console import is_first_process, make_console
    from aurel.cli.progress import TrainingProgress
    from aurel.files import write_json
    from aurel.training.groups import read_groups
    from aurel.training.results import results_file, results_of
    from aurel.training.run import checkpoint_file, run_folder
    from aurel.training.scoring import check_test, load_test_splits, score
    from aurel.training.tuning import tune

    console = make_console()
    folder = run_folder(options)
    given: list[str | None] = [*names] or [None]
    files = [checkpoint_file(folder, name) for name in given]
    for file in files:
        check_test(options, file)
    if args.tune and len(files) > 1:
        raise ValueError(f"--tune must be with one --ckpt_path, got {len(files)}")
    if args.tune and "RANK" in os.environ:  # of torchrun: the others would not wait
        raise ValueError("--tune must be without torchrun, which starts several processes")
    if args.tune and is_first_process():
        tune(options, files[0], [TrainingProgress(console, "tuning")])
    splits = load_test_splits(options)
    groups = []
    if args.groups is not None:
        groups = read_groups(args.groups, splits.test.subjects, splits.protocol["dataset"])  # type: ignore
    task = score(options, files, [TrainingProgress(console, "testing")], splits, groups)
    content = results_of(options, task, files, text, splits, groups)
    _print(console, task, content)
    file = results_file(folder, files, task)
    if is_first_process():
        write_json(file, content)
    console.print(f"results     {file}")
    return 0


def _print(console: Console, task: Task, content: dict[str, Any]) -> None:
    from aurel.cli.tables import group_table, score_table

    fold = "" if content["fold"] is None else f" fold {content['fold']}"
    title = f"{content['checkpoint']} on {content['dataset']}{fold}"
    console.print(score_table(task.scores, title))
    if "tuned_scores" in content:
        console.print(
            score_table(content["tuned_scores"], "at thresholds tuned on the validation people")
        )
    for attribute, report in content.get("groups", {}).items():
        console.print(group_table(report, attribute))
    if "train_subjects" not in task.metadata:
        console.print(
            "the checkpoint does not contain the subjects of its training data", style="yellow"
        )
    if task.metadata["scored_part"] == "val":
        console.print("scored on the val list: the data have no test list", style="yellow")
    if task.metadata.get("select_on") == "test":
        console.print("warning: the best epoch was chosen on this fold", style="yellow")

"""`aurel fit`: train a model from a recipe file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aurel.cli import crossval
from aurel.cli.crossval import add_options
from aurel.cli.errors import Interrupted


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel fit`; its options are read by jsonargparse later."""
    parser = subparsers.add_parser(
        "fit", help="train a model from a recipe file", add_help=False, allow_abbrev=False
    )
    add_options(parser, folds=None)
    parser.set_defaults(takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Train a model, or those of several folds; return 0 after the last epoch."""
    if args.folds is not None:
        return crossval.run(args)
    if args.jobs != 1 or args.seeds is not None:
        raise ValueError("--folds must be given with --jobs or --seeds, got none")
    from aurel.cli.config import parse

    options, checkpoint, text = parse("fit", args.rest)

    from aurel.cli.console import make_console
    from aurel.cli.progress import TrainingProgress
    from aurel.training.report import data_report
    from aurel.training.run import check_free, checkpoint_file, fit, load_splits, run_folder

    console = make_console()
    folder = run_folder(options)
    resume = None if checkpoint is None else checkpoint_file(folder, checkpoint)
    check_free(folder, resume)
    splits = load_splits(options)
    console.print(_summary(options, splits, folder))
    report = data_report(splits)
    console.print(str(report), markup=False, highlight=False, soft_wrap=True)
    report.check()
    if (splits.protocol or {}).get("select_on") == "test":
        console.print(_SELECTED_ON_TEST, style="yellow")
    try:
        fit(options, resume, [TrainingProgress(console, options.model.name)], splits, text)
    except KeyboardInterrupt as stop:
        raise Interrupted(how_to_continue(folder)) from stop
    console.print(f"checkpoint  {checkpoint_file(folder, None)}")
    console.print(f"score it    aurel test --config {folder / 'config.yaml'}")
    return 0


_SELECTED_ON_TEST = (
    "warning: the best epoch is chosen on the test fold (data.select_on: test), as in published "
    "protocols; the test score is then too high an estimate of the score on new subjects; "
    "--protocol held-out chooses it on training subjects"
)
_CHOSEN = {
    "test": "the best epoch is chosen on the test fold",
    "last": "the last epoch is kept, without a choice",
    "validation": "the best epoch is chosen on the validation data",
}


def _summary(options: Any, splits: Any, folder: Path) -> str:
    protocol = splits.protocol
    fold = "" if protocol["fold"] is None else f", fold {protocol['fold']}"
    frames = options.data.frames
    items = "images" if frames is None else f"clips of {frames} frames"
    if options.data.triplets:
        items = "triplets"
    parts = [f"{len(splits.train)} training {items} of {len(protocol['train_subjects'])} subjects"]
    if held := len(protocol["validation_subjects"]):
        parts.append(f"{len(splits.validation)} validation {items} of {held} other subjects")
    return (
        f"model       {options.model.name}\n"
        f"data        {protocol['dataset']}{fold}: {', '.join(parts)}\n"
        f"protocol    {_protocol(splits)}\n"
        f"run         {folder}"
    )


def _protocol(splits: Any) -> str:
    """Return what the run trains on, and how its epoch is chosen."""
    protocol = splits.protocol
    if held := len(protocol["validation_subjects"]):
        parts = [f"the best epoch is chosen on {held} other subjects"]
    else:
        chosen = "last" if splits.validation is None else protocol["select_on"]
        parts = ["all training subjects", _CHOSEN[chosen]]
    if splits.test is None:
        parts.append("no test part, so its subjects are not compared with those of training")
    named = "" if protocol["protocol"] is None else f"{protocol['protocol']}: "
    return named + "; ".join(parts)


def how_to_continue(folder: Path) -> str:
    """Return a message that names the last checkpoint of a stopped run."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        return f"interrupted; the last checkpoint is {last}; continue with --ckpt_path last"
    return "interrupted before the first checkpoint"

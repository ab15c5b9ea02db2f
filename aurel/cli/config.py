"""Recipe files and their overrides on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from aurel.cli.recipes import recipe_file
from aurel.training.options import RunOptions

try:
    from jsonargparse import ActionConfigFile, ArgumentParser
except ImportError as error:
    raise ImportError("recipes need jsonargparse: pip install 'aurel-au[train]'") from error

_ABOUT = {
    "fit": (
        "Train a model from a recipe file. With --folds all, --jobs N and --seeds LIST: several "
        "folds, see aurel crossval --help.",
        "to continue from",
    ),
    "test": (
        "Score a checkpoint on the test fold. --tune: choose thresholds on the validation people, "
        "and store them in the checkpoint. --groups FILE: score groups of people, by a CSV file "
        "with person,attribute,...",
        "to score (default: best); of several the vote",
    ),
    "data check": ("Report on the data of a run.", None),
    "graph": ("Average the graph of a model over the test fold and draw it.", None),
}


class _Parser(ArgumentParser):
    """A parser that raises ValueError instead of printing the usage and exiting."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(message) from ex


def parse(command: str, arguments: Sequence[str]) -> tuple[RunOptions, str | None, str]:
    """Read ``--config FILE``, or the name of a recipe, and the options that override it.

    Args:
        command: "fit", "test", "data check" or "graph"; the last two take
            no ``--ckpt_path``.
        arguments: the command line after the command.

    Returns:
        The options; the value of ``--ckpt_path``, or None; the options as YAML.

    Raises:
        ValueError: an unknown option or recipe, or a value of the wrong type.
    """
    about, use = _ABOUT[command]
    if len(given := take_checkpoints(arguments)[0]) > 1:
        raise ValueError(f"ckpt_path must be given once, got {', '.join(given)}")
    parser = _Parser(prog=f"aurel {command}", description=about, allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile, help="recipe: a YAML file or a name")
    if use is not None:
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            help=f"checkpoint {use}: a file, or 'last' or 'best' of the run",
        )
    parser.add_class_arguments(RunOptions, fail_untyped=True)
    values = parser.parse_args(_config_first([_whole_name(word) for word in arguments]))
    checkpoint = values.pop("ckpt_path", None)
    values.pop("config")
    # Include nulls: without them, reading the file again would give the defaults.
    text = parser.dump(values, skip_validation=True, skip_unset=False)
    return RunOptions(**parser.instantiate(values)), checkpoint, text


def take_checkpoints(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of all ``--ckpt_path``, and the other arguments."""
    found, others = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--ckpt_path="):
            found.append(argument.removeprefix("--ckpt_path="))
        elif argument == "--ckpt_path" and (value := next(rest, None)) is not None:
            found.append(value)
        else:
            others.append(argument)
    return found, others


def _whole_name(word: str) -> str:
    """Return an argument with ``--protocol``, a short name, written as ``--data.protocol``."""
    is_short = word == "--protocol" or word.startswith("--protocol=")
    return f"--data.{word.removeprefix('--')}" if is_short else word


def _config_first(arguments: Sequence[str]) -> list[str]:
    """Move the recipe before the options, so that options override it in any order."""
    recipe, options = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--config":
            recipe += [argument, *([recipe_file(value)] if (value := next(rest, None)) else [])]
        elif argument.startswith("--config="):
            recipe += ["--config", recipe_file(argument.removeprefix("--config="))]
        else:
            options.append(argument)
    return recipe + options

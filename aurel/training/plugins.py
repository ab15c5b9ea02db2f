"""Callbacks and the logger of a run, from the names in a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

CALLBACKS = "lightning.pytorch.callbacks"
LOGGERS = "lightning.pytorch.loggers"


def make_callbacks(entries: Sequence[Mapping[str, Any]]) -> list[Callback]:
    """Return the callbacks of a recipe.

    Args:
        entries: each with a ``class_path``, of which Lightning's need no module, and ``init_args``.

    Raises:
        ImportError: a package is missing; the message names it.
        ValueError: no such class, one that is no callback, or arguments that it does not take.
    """
    return [
        _make(entry, f"callbacks[{number}]", Callback, CALLBACKS)
        for number, entry in enumerate(entries)
    ]


def make_logger(entry: str | Mapping[str, Any], folder: Path) -> Logger | bool:
    """Return the logger of a recipe, which writes into the folder of the run.

    Args:
        entry: "tensorboard", "csv" or "none"; or a ``class_path``, such as WandbLogger or
            MLFlowLogger, and ``init_args``, of which ``save_dir`` is the folder unless given.
        folder: folder of the run.

    Raises:
        ImportError: a package is missing; the message names it.
        ValueError: no such logger, or arguments that it does not take.
    """
    if entry == "none":
        return False
    if entry == "tensorboard":
        return TensorBoardLogger(folder, name="tensorboard", version="")
    if entry == "csv":
        return CSVLogger(folder, name="csv", version="")
    if isinstance(entry, str):
        raise ValueError(
            f"logger must be tensorboard, csv, none or a class_path with init_args, got {entry!r}"
        )
    return _make(entry, "logger", Logger, LOGGERS, {"save_dir": str(folder)})


def early_stopping(epochs: int, monitor: str | None) -> Callback:
    """Return the callback that stops a run after `epochs` epochs without a better score.

    Args:
        epochs: at least 1.
        monitor: the validation score; None where the run has no validation.

    Raises:
        ValueError: no epochs, or no validation.
    """
    if epochs < 1:
        raise ValueError(f"early_stopping must be at least 1, got {epochs}")
    if monitor is None:
        raise ValueError(
            f"early_stopping must be null for a run without validation data, got {epochs}"
        )
    return EarlyStopping(monitor=monitor, mode="max", patience=epochs)


def _make(
    entry: Mapping[str, Any],
    where: str,
    kind: type[Any],
    module: str,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    if not isinstance(entry, Mapping) or not {"class_path"} <= set(entry) <= {
        "class_path",
        "init_args",
    }:
        raise ValueError(f"{where} must have class_path and perhaps init_args, got {entry}")
    name, arguments = entry["class_path"], entry.get("init_args") or {}
    made = _class(name, where, module)
    if not (isinstance(made, type) and issubclass(made, kind)):
        raise ValueError(f"{where} must be a {kind.__name__} of Lightning, got {name}")
    known = inspect.signature(made).parameters
    arguments = {
        **{key: value for key, value in (defaults or {}).items() if key in known},
        **arguments,
    }
    try:
        return made(**arguments)
    except ImportError as error:
        raise _missing(where, name, error) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {made.__name__} cannot be made: {error}") from error


def _class(name: Any, where: str, default: str) -> Any:
    if not isinstance(name, str):
        raise ValueError(f"{where}.class_path must be the name of a class, got {name!r}")
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module or default), attribute, None)
    except ImportError as error:
        raise _missing(where, name, error) from error
    if found is None:
        raise ValueError(f"{where}.class_path must be the name of a class, got {name}")
    return found


def _missing(where: str, name: str, error: ImportError) -> ImportError:
    package = error.name.partition(".")[0] if error.name else None
    advice = f"pip install {package}" if package else " ".join(str(error).split())
    return ImportError(f"{where} ({name}) needs a package that is not installed: {advice}")

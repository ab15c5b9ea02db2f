"""Find a file of weights that another installed package brings, without importing the package."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path


def packaged_file(package: str, member: str) -> Path | None:
    """Return the path of a file in an installed package, or None if it is not there.

    Args:
        package: name of a top-level package; it is not imported.
        member: path of the file in the folder of the package, with forward slashes.
    """
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, member)
        if path.is_file():
            return path
    return None


def weights_file(name: str, variable: str, places: tuple[tuple[str, str], ...]) -> Path | None:
    """Return a file of weights, or None if it is nowhere.

    The environment variable comes first, then the packages, then the cache of `aurel weights`.

    Args:
        name: name of the file in the list of `aurel weights`.
        variable: environment variable with the path of the file.
        places: package and member, as in `packaged_file`, in the order in which they are searched.

    Raises:
        ValueError: the environment variable names no file.
    """
    chosen = os.environ.get(variable)
    if chosen:
        if not Path(chosen).is_file():
            raise ValueError(f"{variable} must be the path of a file, got {chosen}")
        return Path(chosen)
    for package, member in places:
        path = packaged_file(package, member)
        if path is not None:
            return path
    return _cached(name)


def _cached(name: str) -> Path | None:
    try:
        weights = import_module("aurel.weights")
    except ModuleNotFoundError:
        return None
    return weights.find(name)

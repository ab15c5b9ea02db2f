"""The registry of released weights, read from registry.toml beside this file."""

from __future__ import annotations

import difflib
import fnmatch
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from aurel.weights.entry import License, Weights, make_entry

REGISTRY = Path(__file__).with_name("registry.toml")


def list_weights(pattern: str = "*") -> list[str]:
    """Return the names of the released weights that match a shell-style `pattern`, sorted."""
    return sorted(fnmatch.filter(read_registry(), pattern))


def weights_info(name: str) -> Weights:
    """Return the entry of the weights `name`.

    Raises:
        ValueError: no such weights; the message lists the nearest names.
    """
    known = read_registry()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise ValueError(
            f"name must be that of released weights, got {name!r}; nearest: "
            f"{', '.join(close or sorted(known))}"
        )
    return known[name]


def weights_of(model: str) -> list[str]:
    """Return the names of the released weights of a model, sorted."""
    return sorted(name for name, entry in read_registry().items() if entry.model == model)


@cache
def read_registry(path: Path = REGISTRY) -> dict[str, Weights]:
    """Return the entries of a registry file by name.

    A section `weights.NAME` is an entry. With `folds = [1, 2, 3]` it is one entry for each fold,
    NAME_fold1 and so on, and "{fold}" in its values is the number.

    Raises:
        ValueError: the file is no TOML, or an entry is malformed; the message names the file.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        licenses = {key: License(id=key, **values) for key, values in content["licenses"].items()}
        defaults = content.get("preprocessing", {})
        entries = {}
        for section, values in content["weights"].items():
            for name, expanded in _folds(section, values):
                about = expanded.get("preprocessing")
                if isinstance(about, str):
                    expanded["preprocessing"] = defaults[about]
                entries[name] = make_entry(name, expanded, licenses)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return entries


def _folds(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    values = dict(values)
    folds = values.pop("folds", None)
    if folds is None:
        yield section, values
        return
    for fold in folds:
        yield (
            f"{section}_fold{fold}",
            {
                key: value.replace("{fold}", str(fold)) if isinstance(value, str) else value
                for key, value in values.items()
            },
        )

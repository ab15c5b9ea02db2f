"""The options in which two recipes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PLACE = frozenset(
    {
        "out",
        "data.root",
        "data.lists",
        "data.images",
        "data.num_workers",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
    }
)
"""Options that say where a run is computed."""
PART = frozenset({"seed", "data.fold"})
"""Options in which the runs of a cross-validation differ."""


def differences(first: str, second: str, ignored: frozenset[str] = PLACE) -> list[str]:
    """Return the names of the options in which two recipes differ, such as "optimizer.lr".

    Args:
        first: a recipe as YAML.
        second: another one.
        ignored: names of options that are not compared.

    Raises:
        ValueError: a text is no YAML mapping.
    """
    one, other = (dict(_options(_mapping(text))) for text in (first, second))
    missing = object()
    return sorted(
        name
        for name in {*one, *other} - ignored
        if one.get(name, missing) != other.get(name, missing)
    )


def _mapping(text: str) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"the recipe must be YAML, got other text: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"the recipe must be a YAML mapping, got {type(content).__name__}")
    return content


def _options(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _options(value, f"{name}.")
        else:
            yield name, value

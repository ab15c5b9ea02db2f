"""Key trees of published checkpoints, written short."""

from __future__ import annotations

import itertools
import re


def expand(tree: str) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every entry of a state dict.

    A line is a name, in which ``{a,b}`` and ``{0..4}`` stand for several, and a kind with its
    weight's shape: C, L or PR without bias, Cb, Lb or LN with one, BN with statistics too; CBN is a
    convolution ``conv`` and a norm ``bn``.
    """
    entries: dict[str, tuple[int, ...]] = {}
    for line in filter(None, tree.split("\n")):
        pattern, kind, sizes = re.fullmatch(r"(\S+) +(\w+)\((.*)\)", line).groups()  # type: ignore[union-attr]
        shape = tuple(map(int, sizes.split(",")))
        parts = re.split(r"[{}]", pattern)
        choices = [_choices(part) if odd % 2 else [part] for odd, part in enumerate(parts)]
        for name in map("".join, itertools.product(*choices)):
            if kind == "CBN":
                entries |= _entries(f"{name}.conv", "C", shape)
                entries |= _entries(f"{name}.bn", "BN", shape[:1])
            else:
                entries |= _entries(name, kind, shape)
    return entries


def _entries(name: str, kind: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    entries = {f"{name}.weight": shape}
    if kind in ("Cb", "Lb", "LN", "BN"):
        entries[f"{name}.bias"] = shape[:1]
    if kind == "BN":
        entries[f"{name}.running_mean"] = entries[f"{name}.running_var"] = shape
        entries[f"{name}.num_batches_tracked"] = ()
    return entries


def _choices(part: str) -> list[str]:
    if ".." not in part:
        return part.split(",")
    first, last = map(int, part.split(".."))
    return [str(number) for number in range(first, last + 1)]

"""The public names of `aurel.ops`, and the defaults of definitions."""

from __future__ import annotations

from importlib import import_module
from inspect import signature

import pytest

from aurel import ops


def test_every_public_name_is_there() -> None:
    assert [name for name in ops.__all__ if not hasattr(ops, name)] == []


DEFINED = [
    name
    for name in ops.__all__
    if name[0].islower()
    and hasattr(import_module(getattr(ops, name).__module__), f"{name}_reference")
]


def test_most_ops_have_a_definition_of_their_name() -> None:
    assert len(DEFINED) >= 9


@pytest.mark.parametrize("name", DEFINED)
def test_a_definition_has_the_defaults_of_its_op(name: str) -> None:
    op = getattr(ops, name)
    definition = getattr(import_module(op.__module__), f"{name}_reference")
    defaults = {each.name: each.default for each in signature(op).parameters.values()}
    for each in signature(definition).parameters.values():
        assert each.default == defaults[each.name]

from __future__ import annotations

from aurel import ops


def test_every_public_name_is_there() -> None:
    assert [name for name in ops.__all__ if not hasattr(ops, name)] == []

"""The backends that can serve a call on a CPU, for tests that hold for all of them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NUMBA = pytest.param(
    "numba", marks=pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
)
every_backend = pytest.mark.parametrize("backend", ["definition", "torch", NUMBA])
every_fast_backend = pytest.mark.parametrize("backend", ["torch", NUMBA])

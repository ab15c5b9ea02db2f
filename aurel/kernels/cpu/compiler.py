"""How kernels are compiled: without the interpreter lock, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit

# Sums may be reordered and fused; NaN and infinities keep their meaning.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}


# Python calls kernels alone, and C calls no function: wrappers would take long to compile.
_KERNEL: dict[str, Any] = {**_OPTIONS, "no_cfunc_wrapper": True}
_INNER: dict[str, Any] = {**_KERNEL, "no_cpython_wrapper": True}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, at its first call."""
    try:
        compiled = njit(cache=True, **_KERNEL)(function)
    except RuntimeError:  # no folder can be written
        return njit(**_KERNEL)(function)
    # A kernel contains the functions that it calls. Numba compiles anew where the kernel's own file
    # has changed; with this it does where any file of the package has.
    compiled._cache._cache_file._source_stamp = _digest()
    return compiled


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call."""
    return njit(**_INNER)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into each kernel that calls it."""
    return njit(forceinline=True, **_INNER)(function)


def uncounted(function: Callable[..., Any]) -> Any:
    """Compile a function, which creates and returns no array, into each kernel that calls it.

    It does not count references to its arrays, which its caller holds: that would take longer than
    the work on a row of a small graph.
    """
    return njit(forceinline=True, _nrt=False, **_INNER)(function)  # type: ignore[call-overload]


@cache
def _digest() -> str:
    """Return a number that changes with the sources of this package."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

"""How kernels are compiled: without the interpreter lock, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock  # a dependency of PyTorch
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

_PATIENCE = 300  # seconds to wait for a process that compiles the same kernel


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, at its first call."""
    try:
        compiled = njit(cache=True, **_KERNEL)(function)
    except RuntimeError:  # no folder can be written
        return njit(**_KERNEL)(function)
    # A kernel contains the functions that it calls. Numba compiles anew where the kernel's own file
    # has changed; with this it does where any file of the package has.
    compiled._cache._cache_file._source_stamp = _digest()
    compiled.compile = _compile_in_one_process(compiled)
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


def _compile_in_one_process(compiled: Any) -> Callable[[Any], Any]:
    """Return the compiler of a kernel; a process that needs one meanwhile waits and loads it."""
    compile_or_load = compiled.compile
    lock = Path(compiled._cache.cache_path) / f"{compiled.__qualname__}.lock"

    def compile_alone(signature: Any) -> Any:
        with ExitStack() as stack:
            with suppress(OSError, NotImplementedError):  # without a lock it only takes longer
                lock.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(lock, timeout=_PATIENCE))
            return compile_or_load(signature)

    return compile_alone


@cache
def _digest() -> str:
    """Return a number that changes with the sources of this package."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

"""The implementation of an op: by its argument, then `use_backend`, then AUREL_BACKEND."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from aurel.ops.numba_support import numba_obstacle
from aurel.ops.triton_support import triton_obstacle

Backend = Literal["auto", "definition", "torch", "numba", "triton", "pyg"]
BACKENDS = ("auto", "definition", "torch", "numba", "triton", "pyg")

_reported: set[tuple[str, str]] = set()

NOT_RAGGED = "serves ragged graphs and is not available for dense tensors"


def check_backend(backend: str, name: str = "backend") -> str:
    """Return `backend`; raise ValueError, which calls it `name`, unless it is a known backend."""
    if backend not in BACKENDS:
        raise ValueError(f"{name} must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


_initial = check_backend(os.environ.get("AUREL_BACKEND", "auto"), "AUREL_BACKEND")
_traced = _initial  # torch.compile cannot trace a thread's own values


class _Default(threading.local):
    """The backend of calls that name none, in one thread."""

    backend = _initial


_default = _Default()


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Make `backend` the default of every op inside the `with` block, in this thread.

    A function that torch.compile traces meanwhile in another thread uses it, too.

    Args:
        backend: "auto" (the fastest that can serve a call), "definition" (the equation in plain
            torch, differentiable to any order), "torch" (plain torch, optimized), "numba" (compiled
            for a CPU), "triton" (compiled for a GPU) or "pyg" (torch-cluster and torch-scatter).

    Raises:
        ValueError: `backend` is none of these.
    """
    global _traced
    previous, previous_traced = _default.backend, _traced
    _default.backend = _traced = check_backend(backend)
    try:
        yield
    finally:
        _default.backend, _traced = previous, previous_traced


def requested_backend(backend: str) -> str:
    """Return the backend that a call asks for: its argument, or the default if that is "auto"."""
    if backend != "auto":
        return check_backend(backend)
    return _traced if torch.compiler.is_compiling() else _default.backend


def resolve_backend(
    op: str,
    backend: str,
    tensors: tuple[Tensor, ...],
    sizes: Callable[[], str | None] | None = None,
    pyg: Callable[[], str | None] | None = None,
    float64: bool = False,
) -> str:
    """Choose the implementation of one call of `op`.

    Args:
        op: name of the op, for messages.
        backend: the call's argument; "auto" defers to `use_backend` and AUREL_BACKEND.
        tensors: floating-point tensors of the call; the device of the first decides under "auto".
        sizes: returns why the Triton kernels cannot serve these sizes, or None if they can; None
            for an op without Triton kernels of its own.
        pyg: returns why torch-cluster and torch-scatter cannot serve the call, or None if they can.
        float64: whether the Triton kernels of the op serve float64, too.

    Returns:
        A backend's name other than "auto".

    Raises:
        ValueError: an explicit backend cannot serve the call; the message gives the reason.
    """
    requested = requested_backend(backend)
    if requested in ("definition", "torch"):
        if requested == "torch" and is_transformed():
            raise ValueError(f"{op}: backend='torch' {_TRANSFORMED}")
        return requested
    if requested == "auto":
        if is_transformed():
            return "definition"
        return _fastest(op, tensors, sizes, float64)
    obstacle = _TRANSFORMED if is_transformed() else None
    if requested == "triton":
        obstacle = obstacle or triton_obstacle(tensors, sizes, float64)
    elif requested == "numba":
        obstacle = obstacle or numba_obstacle(tensors)
    else:
        obstacle = obstacle or (NOT_RAGGED if pyg is None else pyg())
    if obstacle is not None:
        raise ValueError(f"{op}: backend={requested!r} cannot serve this call: {obstacle}")
    return requested


_TRANSFORMED = (
    "is not available inside torch.func transforms or forward-mode differentiation; "
    "use backend='definition'"
)


def is_transformed() -> bool:
    """Return whether a `torch.func` transform or a level of forward-mode derivatives is active.

    While torch.compile traces, only forward-mode derivatives are detected; it handles operators
    in the other transforms correctly.
    """
    if forward_ad._current_level >= 0:
        return True
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None


def _fastest(
    op: str, tensors: tuple[Tensor, ...], sizes: Callable[[], str | None] | None, float64: bool
) -> str:
    if tensors[0].is_cpu:
        return "torch" if numba_obstacle(tensors) is not None else "numba"
    if not tensors[0].is_cuda or sizes is None:
        return "torch"
    obstacle = triton_obstacle(tensors, sizes, float64)
    if obstacle is None:
        return "triton"
    _report_once(op, obstacle)
    return "torch"


def _report_once(op: str, reason: str) -> None:
    # No warning while torch.compile traces: it would break the graph.
    if not torch.compiler.is_compiling() and (op, reason) not in _reported:
        _reported.add((op, reason))
        warnings.warn(f"{op} runs without its Triton kernel: {reason}", stacklevel=4)

"""Which implementation serves an op: its argument, then `use_backend`, then AUREL_BACKEND."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Backend = Literal["auto", "torch", "triton", "pyg"]
BACKENDS = ("auto", "torch", "triton", "pyg")

_log = logging.getLogger("aurel")
_reported: set[tuple[str, str]] = set()


def check_backend(backend: str, name: str = "backend") -> str:
    """Return `backend` if it is a known name; ValueError, which calls it `name`, otherwise."""
    if backend not in BACKENDS:
        raise ValueError(f"{name} must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


_default = check_backend(os.environ.get("AUREL_BACKEND", "auto"), "AUREL_BACKEND")


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Make `backend` the default of every op inside the `with` block (process-wide).

    Args:
        backend: "auto", "torch", "triton" or "pyg".

    Raises:
        ValueError: `backend` is none of these.
    """
    global _default
    previous, _default = _default, check_backend(backend)
    try:
        yield
    finally:
        _default = previous


def requested_backend(backend: str) -> str:
    """Return what a call asks for: its argument, or the default where that is "auto"."""
    return _default if check_backend(backend) == "auto" else backend


def resolve_backend(
    op: str,
    backend: str,
    x: torch.Tensor,
    triton_obstacle: str | None,
    pyg_obstacle: str | None = "serves ragged graphs and is not available for dense tensors",
) -> str:
    """Choose the implementation of one call of `op` on tensor `x`: "torch", "triton" or "pyg".

    Args:
        op: name of the op, for messages.
        backend: the call's argument; "auto" defers to `use_backend` and AUREL_BACKEND.
        x: the tensor whose device decides under "auto".
        triton_obstacle: why Triton cannot serve this call, or None if it can.
        pyg_obstacle: what torch-cluster and torch-scatter say to it, or None if they can.

    Raises:
        ValueError: an explicit backend cannot serve the call; the message says why.
    """
    wanted = requested_backend(backend)
    if wanted == "auto":
        if x.device.type != "cuda":
            return "torch"
        if triton_obstacle is None:
            return "triton"
        _report_once(op, triton_obstacle)
        return "torch"
    if wanted == "triton" and triton_obstacle is not None:
        raise ValueError(f"{op}: backend='triton' cannot serve this call: {triton_obstacle}")
    if wanted == "pyg" and pyg_obstacle is not None:
        raise ValueError(f"{op}: backend='pyg' {pyg_obstacle}")
    return wanted


def _report_once(op: str, reason: str) -> None:
    # A compiled program says nothing: logging would break its graph.
    if not torch.compiler.is_compiling() and (op, reason) not in _reported:
        _reported.add((op, reason))
        _log.debug("%s: falling back to torch: %s", op, reason)

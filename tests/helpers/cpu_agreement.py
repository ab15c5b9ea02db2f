"""Compare the results of CPU kernels with float64 oracles, and with themselves on more threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.kernels.cpu import threads

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ROUNDINGS = {torch.float32: 128, torch.float64: 128, torch.float16: 2, torch.bfloat16: 2}


def assert_close(got: Tensor, want: Any) -> None:
    """Assert that `got` is `want` but for the rounding of its dtype, relative to the largest."""
    assert got.is_contiguous()
    expected = torch.as_tensor(np.asarray(want), dtype=torch.float64)
    assert got.shape == expected.shape
    finite = expected[expected.isfinite()].abs()
    scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
    tolerance = ROUNDINGS[got.dtype] * torch.finfo(got.dtype).eps
    torch.testing.assert_close(
        got.double(), expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True
    )


def wide(*tensors: Tensor | None) -> list[Any]:
    """Return tensors as float64 arrays; bool ones and None as they are."""
    return [
        x if x is None else x.detach().numpy() if x.dtype == torch.bool else x.double().numpy()
        for x in tensors
    ]


def strided(x: Tensor) -> Tensor:
    """Return the same numbers, with the last axis first in memory."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """Let torch, and so the kernels, use `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_same_on_more_threads(
    monkeypatch: pytest.MonkeyPatch, compute: Callable[[], Sequence[Tensor]]
) -> None:
    """Assert that one and three threads give equal bits, however little work there is."""
    monkeypatch.setattr(threads, "_WORTH", 1)
    results = []
    for count in (1, 3):
        with thread_count(count):
            results.append(compute())
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)

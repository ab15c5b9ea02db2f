"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

# Without a GPU the kernels run in Triton's interpreter, which Triton decides at its own import.
if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Load arrays made by running the authors' layer in float64."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(HERE / "golden" / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def shared() -> Path:
    """Papers, checkpoint key lists and real photographs beside the project, where there are any."""
    path = HERE.parents[1] / "shared"
    if not path.is_dir():
        pytest.skip("no ../shared here")
    return path

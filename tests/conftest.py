"""Fixtures for all tests."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import is_hypothesis_test, settings

# "ci" runs the same examples every time; "long" (make test-long) runs more, and new ones.
LONG = 20
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=LONG * 50, deadline=None, print_blob=True)
settings.load_profile("ci")

# Without a GPU the kernels run in Triton's interpreter; Triton reads the variable at its import.
if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Otherwise torch formats the stack for each missing device, which takes as long as an example.
if not torch.cuda.is_available():
    torch.manual_seed = torch.default_generator.manual_seed

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With the profile "long", multiply the number of examples in the settings of tests, too."""
    if config.getoption("--hypothesis-profile") != "long":
        return
    functions = {item.function for item in items if isinstance(item, pytest.Function)}
    for function in filter(is_hypothesis_test, functions):
        own = function._hypothesis_internal_use_settings
        if own.max_examples != settings.default.max_examples:
            function._hypothesis_internal_use_settings = settings(
                own, max_examples=LONG * own.max_examples
            )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the objects of modules and tests, which stay, out of garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Return a function that loads arrays computed by the authors' layer in float64."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(HERE / "golden" / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def released() -> Callable[[str], dict[str, list[int]]]:
    """Return a function that gives the keys and shapes of a released checkpoint."""

    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, list[int]]:
        shapes = {}
        for name, below in tree.items():
            key = prefix + name
            shapes.update({key: below} if isinstance(below, list) else flat(below, f"{key}."))
        return shapes

    return lambda name: flat(json.loads((HERE / "checkpoints" / f"{name}.json").read_text()))


@pytest.fixture
def shared() -> Path:
    """Return the folder with papers and real photographs beside the project, if it exists."""
    path = HERE.parents[1] / "shared"
    if not path.is_dir():
        pytest.skip("no ../shared here")
    return path

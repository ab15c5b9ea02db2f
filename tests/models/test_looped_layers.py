"""The batched layers of all models give the numbers of loops over AUs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_models import small_input, small_model
from torch import Tensor
from torch.utils import _pytree as pytree

from aurel.models.registry import list_models

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def looped(model: Any) -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import looped_layers
    finally:
        sys.path.remove(str(BENCHMARKS))
    return looped_layers.looped(model)


# Without a layer that has a slow form in benchmarks/looped_layers.py.
OTHERS = ("au_windows", "openface3")


@pytest.mark.parametrize("name", [name for name in list_models() if name not in OTHERS])
def test_one_au_after_the_other_gives_the_same_numbers(name: str) -> None:
    model = small_model(name).train()
    other, replaced = looped(model)
    assert replaced
    images = small_input(name)
    results = []
    for each in (model, other):
        torch.manual_seed(3)
        outputs = [leaf for leaf in pytree.tree_leaves(each(images)) if isinstance(leaf, Tensor)]
        torch.stack([(out * torch.randn_like(out)).sum() for out in outputs]).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in each.backbone.parameters()])
        results.append([*outputs, gradient])
    for value, expected in zip(*results, strict=True):
        assert (value - expected).norm() <= 1e-3 * expected.norm()

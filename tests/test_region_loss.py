"""region_cross_entropy against a numpy oracle, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.facs import RegionPlan, region_plan
from aurel.losses import region_cross_entropy

NAN = float("nan")


def oracle(logits: list[Tensor], labels: Tensor, plan: RegionPlan) -> float:
    """Look at every frame and group by itself, in float64."""
    frames = labels.reshape(-1, labels.shape[-1]).tolist()
    means = []
    for group, columns in zip(logits, plan.columns, strict=True):
        losses = []
        for z, row in zip(group.double().reshape(len(frames), -1).numpy(), frames, strict=True):
            bits = [row[column] for column in columns]
            if -1 not in bits:
                index = int("".join(str(int(bit)) for bit in bits), 2)
                losses.append(np.log(np.exp(z).sum()) - z[index])
        means.append(np.mean(losses) if losses else 0.0)
    return float(np.mean(means))


def random_logits(plan: RegionPlan, *shape: int) -> list[Tensor]:
    return [torch.randn(*shape, classes, dtype=torch.float64) for classes in plan.num_classes]


@pytest.mark.parametrize("aus", ["BP4D", "DISFA", [1, 12, 2, 25, 6, 17, 20, 15, 27]])
@pytest.mark.parametrize("lowest", [0, -1], ids=["known", "some unknown"])
def test_equals_the_oracle(aus: object, lowest: int) -> None:
    plan = region_plan(aus)
    labels = torch.randint(lowest, 2, (3, 20, len(plan.group_of)))
    logits = random_logits(plan, 3, 20)
    loss = region_cross_entropy(logits, labels, plan)
    np.testing.assert_allclose(loss.item(), oracle(logits, labels, plan), atol=1e-12)
    as_floats = region_cross_entropy(logits, labels.float(), plan)
    assert torch.equal(loss, as_floats)


def test_classes_of_the_authors_lists() -> None:
    plan = region_plan("BP4D")
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0])
    logits = []
    for index, classes in zip((1, 0, 2, 12), plan.num_classes, strict=True):
        group = torch.full((classes,), -50.0)
        group[index] = 50.0
        logits.append(group)
    assert region_cross_entropy(logits, labels, plan) == 0


def test_unknown_has_no_part() -> None:
    plan = region_plan("DISFA")
    labels = torch.randint(0, 2, (4, 8))
    labels[1, 0] = -1
    labels[2] = -1
    logits = [group.requires_grad_() for group in random_logits(plan, 4)]
    with torch.no_grad():
        logits[0][1] = NAN
        for group in logits:
            group[2] = NAN
    loss = region_cross_entropy(logits, labels, plan)
    loss.backward()
    assert loss.isfinite()
    unknown = torch.zeros(3, 4, dtype=torch.bool)
    unknown[0, 1] = unknown[:, 2] = True
    for group, rows in zip(logits, unknown, strict=True):
        assert group.grad is not None and not group.grad[rows].any()
        assert group.grad.isfinite().all() and group.grad[~rows].any()


def test_nothing_known_is_zero() -> None:
    plan = region_plan("DISFA")
    logits = [group.requires_grad_() for group in random_logits(plan, 2)]
    loss = region_cross_entropy(logits, torch.full((2, 8), -1), plan)
    loss.backward()
    assert loss == 0 and not any(group.grad.any() for group in logits)


def test_gradcheck() -> None:
    plan = region_plan([1, 2, 12])
    labels = torch.tensor([[1, 0, 1], [0, -1, 1], [1, 1, 0]])
    logits = [group.requires_grad_() for group in random_logits(plan, 3)]
    assert torch.autograd.gradcheck(
        lambda *groups: region_cross_entropy(groups, labels, plan), tuple(logits)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32(dtype: torch.dtype) -> None:
    plan = region_plan("BP4D")
    labels = torch.randint(0, 2, (6, 12))
    logits = [group.to(dtype) for group in random_logits(plan, 6)]
    loss = region_cross_entropy(logits, labels, plan)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), oracle(logits, labels, plan), rtol=1e-5)


def test_messages() -> None:
    plan = region_plan([1, 12])
    logits, labels = random_logits(plan, 3), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"labels must have shape \(\.\.\., N=2\).* got \(3, 4\)"):
        region_cross_entropy(logits, torch.zeros(3, 4), plan)
    with pytest.raises(ValueError, match=r"shapes \[\(3, 2\), \(3, 2\)\], got \[\(3, 2\)\]"):
        region_cross_entropy(logits[:1], labels, plan)
    with pytest.raises(ValueError, match="labels must be 1 .* got 9 at"):
        region_cross_entropy(logits, labels + 9, plan)

"""Gradients of several batches equal those of one large batch, also with unknown labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aurel.output import AUOutput
from aurel.training.accumulation import COUNTED, term_factors
from aurel.training.objective import TERMS, Objective

IN_ONE_BATCH = ["asymmetric", "bce", "bce_sum", "circle", "dice", "edge", "landmark"]


def batch(rows: slice, labels: torch.Tensor, landmarks: torch.Tensor) -> dict[str, Any]:
    image = torch.zeros(len(labels[rows]), 3, 4, 4)
    return {"image": image, "labels": labels[rows], "landmarks": landmarks[rows]}


def test_every_loss_is_counted() -> None:
    assert COUNTED.keys() == TERMS.keys()


@pytest.mark.parametrize("loss", IN_ONE_BATCH)
def test_the_gradient_is_that_of_one_batch(loss: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(-1, 2, (8, 5)).float()
    labels[2] = -1
    labels[4:, 1:] = -1
    landmarks = 100 * torch.rand(8, 49, 2)
    landmarks[5:] = torch.nan
    parameters = {
        "logits": torch.randn(8, 5, dtype=torch.float64),
        "edges": torch.randn(8, 5, 5, 4, dtype=torch.float64),
        "landmarks": 100 * torch.rand(8, 49, 2, dtype=torch.float64),
    }
    for tensor in parameters.values():
        tensor.requires_grad_()

    def output(rows: slice) -> AUOutput:
        logits = parameters["logits"][rows]
        return AUOutput(
            logits.sigmoid(),
            logits,
            edge_logits=parameters["edges"][rows],
            landmarks=parameters["landmarks"][rows],
        )

    def gradients(parts: list[slice]) -> list[torch.Tensor | None]:
        for tensor in parameters.values():
            tensor.grad = None
        group = [batch(rows, labels, landmarks) for rows in parts]
        objective = Objective({loss: 0.7})
        for rows, part, factors in zip(parts, group, term_factors(group, 4)[0], strict=True):
            total, _ = objective(output(rows), {**part, "term_factors": factors})
            (total / 4).backward()
        return [tensor.grad for tensor in parameters.values()]

    whole = gradients([slice(0, 8)])
    split = gradients([slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 8)])
    assert any(one is not None and one.abs().sum() > 0 for one in whole)
    for one, other in zip(whole, split, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other)

"""Every model can be trained to predict a few faces without error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_models import REPEATED, small_model
from torch import Tensor

from aurel.data import SyntheticFaces
from aurel.facs import AUSet
from aurel.losses import weighted_asymmetric_loss
from aurel.metrics import AUF1
from aurel.models.registry import list_models, model_info

AUS = [1, 4, 12, 25, 26]
OF_ONE_SIDE = [4, 12, 25, "L12", "R12"]
STEPS = 200


def faces(aus: AUSet) -> tuple[Tensor, Tensor]:
    """Return 16 images and their labels; an AU of one side has the labels of both."""
    both = sorted(set(aus.numbers))
    data = SyntheticFaces(both, subjects=range(2, 6), per_subject=4, size=64, occlusion=0.0)
    samples = [data[index] for index in range(16)]
    images, labels = (
        torch.stack([sample[key] for sample in samples]) for key in ("image", "labels")
    )
    assert labels.sum(0).min() > 0 and labels.sum(0).max() < 16
    return images, labels[:, [both.index(number) for number in aus.numbers]]


def mean_f1(model: Any, images: Tensor, labels: Tensor) -> float:
    f1 = AUF1(model.aus, average="mean")
    with torch.no_grad():
        f1.update(model.eval()(images).probs.flatten(0, -2), labels.flatten(0, -2))
    return float(f1.compute())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*list_models()} - REPEATED))
def test_every_model_can_fit_a_few_faces(name: str) -> None:
    aus = OF_ONE_SIDE if name.startswith("open_graphau") else AUS
    model = small_model(name, aus=aus)
    images, labels = faces(model.aus)
    if model_info(name).takes_clips:
        images, labels = images.unflatten(0, (4, 4)), labels.unflatten(0, (4, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    score = 0.0
    for step in range(1, STEPS + 1):
        model.train()
        optimizer.zero_grad()
        weighted_asymmetric_loss(model(images).probs, labels).backward()
        optimizer.step()
        if step % 10 == 0:
            score = mean_f1(model, images, labels)
            if score == 1:
                break
    assert score == 1

"""Steps by the gradients at perturbed weights."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aurel.models.checkpoint import read_checkpoint
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    TrainerOptions,
)
from aurel.training.run import checkpoint_file, fit, run_folder
from aurel.training.sam import at_perturbed_weights


def test_the_gradient_is_that_at_the_weights_of_the_formula() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    idle = nn.Parameter(torch.ones(2).double())
    model.register_parameter("idle", idle)
    x = torch.randn(5, 3).double()

    def closure() -> float:
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return float(loss.detach())

    first = closure()
    moving = [p for p in model.parameters() if p.grad is not None]
    before = [p.detach().clone() for p in model.parameters()]
    w = np.concatenate([p.detach().numpy().ravel() for p in moving])
    g = np.concatenate([p.grad.numpy().ravel() for p in moving])  # type: ignore[union-attr]
    perturbed = w + 0.3 * w**2 * g / np.sqrt(((w * g) ** 2).sum())

    other = copy.deepcopy(model)
    start = 0
    for parameter in list(other.parameters())[-len(moving) :]:
        part = perturbed[start : start + parameter.numel()]
        parameter.data.copy_(torch.from_numpy(part).view_as(parameter))
        start += parameter.numel()
    other.zero_grad()
    expected = other(x).square().mean()
    expected.backward()

    assert at_perturbed_weights(model, 0.3, closure) == pytest.approx(float(expected.detach()))
    assert float(expected.detach()) > first
    for parameter, reference in zip(model.parameters(), other.parameters(), strict=True):
        if reference.grad is not None:
            torch.testing.assert_close(parameter.grad, reference.grad)
    assert idle.grad is None
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("gradient", ["zero", "infinite"])
def test_weights_and_statistics_are_restored_after_errors_too(gradient: str) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.0 if gradient == "zero" else torch.inf)

    def closure() -> None:
        model(torch.randn(4, 2))
        if gradient == "infinite":
            raise RuntimeError("nothing here")

    if gradient == "zero":
        at_perturbed_weights(model, 2.0, closure)
    else:
        with pytest.raises(RuntimeError, match="nothing here"):
            at_perturbed_weights(model, 2.0, closure)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def run(root: Path, out: Path, **changes: Any) -> RunOptions:
    data = DataOptions(root=str(root), batch_size=8, num_workers=0, resize=16, crop=16)
    data = replace(data, validation=0.0, flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    trainer = TrainerOptions(max_epochs=1, max_steps=1, accelerator="cpu", devices=1)
    optimizer = OptimizerOptions("sgd", lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")
    chosen = RunOptions(ModelOptions("tiny"), data, {}, optimizer, trainer, seed=1, out=str(out))
    return replace(chosen, optimizer=replace(optimizer, **changes))


def test_a_run_steps_by_it(stripes: Path, tmp_path: Path) -> None:
    plain, sharp, tiny = (
        run(stripes, tmp_path / name, sam=sam)
        for name, sam in (("plain", None), ("sharp", 0.5), ("tiny", 1e-9))
    )
    states, losses = [], []
    for chosen in (plain, sharp, tiny):
        task = fit(chosen)
        assert task.trainer.global_step == 1
        states.append(read_checkpoint(checkpoint_file(run_folder(chosen), "last")).state_dict)
        (row,) = csv.DictReader((run_folder(chosen) / "history.csv").open())
        losses.append(float(row["train/loss"]))
    # The logged loss is that of the weights, not of the perturbed weights.
    assert losses[1] == pytest.approx(losses[0]) and losses[2] == pytest.approx(losses[0])
    name = "linear.weight"
    torch.testing.assert_close(states[0][name], states[2][name], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(states[0][name], states[1][name], rtol=1e-5, atol=1e-6)


def test_options_that_exclude_each_other(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="optimizer.sam must be above 0, got -1"):
        fit(run(stripes, tmp_path / "a", sam=-1.0))
    chosen = run(stripes, tmp_path / "b", sam=1.0)
    chosen.trainer.accumulate_grad_batches = 2
    with pytest.raises(ValueError, match="must be 1 with optimizer.sam, got 2"):
        fit(chosen)

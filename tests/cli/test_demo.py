"""The demo: its files, its scores and their intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aurel.cli.demo_runs import Outcome
from aurel.cli.demo_scores import score, weighted_auc
from aurel.cli.main import main
from aurel.metrics import AUAUC
from aurel.models import load_model


@pytest.mark.slow
def test_a_quick_demo_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    command = ["demo", "--quick", "--seeds", "1", "--out", str(out), "--seed", "1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    for name in ("couplings.png", "predictions.png", "metrics.json"):
        assert str(out / name) in said and (out / name).is_file()
    for picture in out.glob("*.png"):
        Image.open(picture).verify()
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["variants"]) == ["alone", "self_adjusting", "pairwise"]
    for parts in metrics["variants"].values():
        assert f"{parts['covered']['auc'][0]:.3f}" in said
        mean, low, high = parts["covered"]["gain"]
        assert low <= mean <= high
    assert metrics["variants"]["alone"]["covered"]["gain"] == [0, 0, 0]
    nets = [
        load_model(out / f"{variant}_0" / "checkpoints" / "best.ckpt")
        for variant in metrics["variants"]
    ]
    assert [net.config.relation for net in nets] == ["none", "self_adjusting", "none"]
    assert [net.relation_head is None for net in nets] == [True, True, False]
    assert nets[2].relation_head.inference.couplings.abs().max() > 0.1


def test_a_demo_needs_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seeds", "0"]) == 2
    assert "--seeds must be at least 1, got 0" in capsys.readouterr().err


def test_auc_with_weights_is_that_of_repeated_items() -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.normal(size=30), generator.random(30) < 0.4
    weights = generator.integers(0, 4, (5, 30)).astype(float)
    for row, area in zip(weights, weighted_auc(scores, positive, weights), strict=True):
        repeats = row.astype(int)
        all_scores, is_positive = scores.repeat(repeats), positive.repeat(repeats)
        wins = all_scores[is_positive][:, None] - all_scores[~is_positive]
        expected = (wins > 0).mean() + (wins == 0).mean() / 2
        assert area == pytest.approx(expected)
    assert np.isnan(weighted_auc(scores, np.ones(30, bool), weights)).all()


def test_scores_are_those_of_the_metric_and_intervals_hold_the_gain() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (400, 2)).astype(np.int8)
    visible = generator.random((400, 2)) < 0.5
    people = [f"person {i // 10}" for i in range(400)]

    def outcome(variant: str, seed: int, skill: float) -> Outcome:
        probs = skill * labels + generator.random((400, 2))
        return Outcome(variant, seed, (probs / 3).astype(np.float32), None)

    outcomes = [outcome("alone", seed, 0.1) for seed in (0, 1)]
    outcomes += [outcome("better", seed, 1.0) for seed in (1, 0)]
    outcomes += [replace(first, variant="same") for first in outcomes[:2]]
    scores = score(outcomes, labels, visible, people)
    for part, kept in (("covered", ~visible), ("visible", visible)):
        metric = AUAUC([1, 2])
        known = torch.from_numpy(labels).long().where(torch.from_numpy(kept), -1)
        metric.update(torch.from_numpy(outcomes[0].probs), known)
        assert scores["alone"][part]["auc"][0] == pytest.approx(float(metric.compute()), abs=1e-6)
        mean, low, high = scores["better"][part]["gain"]
        assert 0.1 < low < mean < high
        assert scores["same"][part]["gain"] == [0, 0, 0]

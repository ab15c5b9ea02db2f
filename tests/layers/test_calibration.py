"""Calibrated logits: the likelihood is the highest, and calibrated logits stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from aurel.layers import PlattScaling


def labels_of(logits: Tensor) -> Tensor:
    return torch.bernoulli(logits.sigmoid()).to(torch.int8)


def test_starts_as_the_identity() -> None:
    logits = torch.randn(2, 3, 4)
    assert torch.equal(PlattScaling(4)(logits), logits)
    assert torch.equal(PlattScaling(4, shared=True)(logits), logits)


def test_recovers_the_scale_and_shift_of_each_au() -> None:
    true = torch.randn(20000, 2) * 2
    labels = labels_of(true)
    layer = PlattScaling(2).fit(
        (true - torch.tensor([1.0, -0.5])) / torch.tensor([0.5, 2.0]), labels
    )
    torch.testing.assert_close(layer.scale.data, torch.tensor([0.5, 2.0]), rtol=0.1, atol=0)
    assert layer.shift is not None
    torch.testing.assert_close(layer.shift.data, torch.tensor([1.0, -0.5]), rtol=0, atol=0.1)


def test_one_temperature_is_fitted_to_all_aus() -> None:
    true = torch.randn(20000, 2)
    layer = PlattScaling(2, shared=True).fit(3 * true, labels_of(true))
    assert layer.shift is None
    assert layer.scale.tolist() == pytest.approx([1 / 3], rel=0.05)


def test_the_fit_is_that_of_an_independent_minimizer() -> None:
    """Unknown labels count in no sum, and their logits may be NaN."""
    logits, labels = torch.randn(50, 1), torch.randint(-1, 2, (50, 1))
    with_gaps = logits.where(labels >= 0, torch.nan)
    layer = PlattScaling(1).fit(with_gaps, labels, ridge=0.01)
    known = labels[:, 0] >= 0
    u, y = logits[known, 0].double().numpy(), labels[known, 0].double().numpy()

    def loss(ab: np.ndarray) -> float:
        z = ab[0] * u + ab[1]
        return float(np.mean(np.logaddexp(0, z) - y * z) + 0.01 * ((ab[0] - 1) ** 2 + ab[1] ** 2))

    expected = minimize(loss, [1.0, 0.0], tol=1e-12).x
    assert layer.shift is not None
    got = [layer.scale.item(), layer.shift.item()]
    assert got == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("value", [0, 1])
def test_an_au_that_never_or_always_occurs_stays_finite(value: int) -> None:
    layer = PlattScaling(1).fit(torch.randn(100, 1), torch.full((100, 1), value))
    assert torch.isfinite(layer(torch.randn(5, 1))).all()


def test_without_known_labels_nothing_changes() -> None:
    layer = PlattScaling(2).fit(torch.randn(5, 2), torch.full((5, 2), -1))
    logits = torch.randn(3, 2)
    torch.testing.assert_close(layer(logits), logits)


def test_bad_input_is_named() -> None:
    layer = PlattScaling(2)
    with pytest.raises(ValueError, match=r"logits must be \(..., 2\), got \(3, 4\)"):
        layer(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="logits must be finite where the label is known"):
        layer.fit(torch.full((3, 2), torch.nan), torch.ones(3, 2))
    with pytest.raises(ValueError, match="labels must have shape"):
        layer.fit(torch.zeros(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="num_aus must be at least 1, got 0"):
        PlattScaling(0)

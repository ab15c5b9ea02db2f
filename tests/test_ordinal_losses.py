"""The loss of intensities against numpy, and the intensities of scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aurel.losses import (
    binary_cross_entropy_loss,
    ordinal_cutpoints,
    ordinal_intensity,
    ordinal_loss,
)

NAN = float("nan")


def oracle(s: np.ndarray, y: np.ndarray, cut: np.ndarray, w: np.ndarray) -> float:
    total, count = 0.0, 0
    for (b, n), score in np.ndenumerate(s):
        if y[b, n] < 0:
            continue
        count += 1
        for k in range(1, 6):
            p = 1 / (1 + np.exp(cut[n, k - 1] - score))
            total -= w[n] * np.log(p if y[b, n] >= k else 1 - p)
    return total / count


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8))
def test_the_loss_is_its_equation(seed: int, samples: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    s = 3 * torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(-1, 6, (samples, 3), generator=generator)
    y[0, 0] = 4
    cut = torch.randn(3, 5, generator=generator, dtype=torch.float64).sort(-1).values
    w = torch.rand(3, generator=generator, dtype=torch.float64)
    expected = oracle(s.numpy(), y.numpy(), cut.numpy(), w.numpy())
    assert ordinal_loss(s, y, cut, w).item() == pytest.approx(expected, rel=1e-10)
    unweighted = oracle(s.numpy(), y.numpy(), cut.numpy(), np.ones(3))
    assert ordinal_loss(s, y, cut).item() == pytest.approx(unweighted, rel=1e-10)


def test_gradients_and_unknown_labels() -> None:
    cut = torch.randn(2, 5, dtype=torch.float64)
    y = torch.tensor([[0, 5], [3, -1]])
    s = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ordinal_loss(x, y, cut), s)
    dirty = s.detach().clone()
    dirty[1, 1] = NAN
    dirty.requires_grad_()
    loss = ordinal_loss(dirty, y, cut)
    loss.backward()
    assert loss.isfinite() and dirty.grad is not None and dirty.grad[1, 1] == 0
    assert ordinal_loss(torch.randn(2, 2), torch.full((2, 2), -1), torch.zeros(2, 5)) == 0
    assert ordinal_loss(torch.randn(2, 2).bfloat16(), y, cut.float()).dtype == torch.float32


def test_one_level_alone_is_the_binary_loss() -> None:
    """With the other cutpoints far away, levels above 1 cost nothing for labels of 0 and 1."""
    s, y = torch.randn(6, 2, dtype=torch.float64), torch.randint(0, 2, (6, 2))
    cut = torch.tensor([0.0, 100, 100, 100, 100]).expand(2, 5)
    expected = binary_cross_entropy_loss(s, y)
    torch.testing.assert_close(ordinal_loss(s, y, cut), expected)


def test_cutpoints_give_the_rates_of_the_labels() -> None:
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 10 + [3] * 10 + [5] * 10 + [-1] * 7)
    cut = ordinal_cutpoints(torch.stack([labels, torch.full_like(labels, -1)], -1))
    rates = (torch.tensor([50, 30, 20, 10, 10]) + 0.5) / 101
    torch.testing.assert_close((rates[0].logit() - cut[0]).sigmoid(), rates)
    assert cut[0, 0] == 0 and (cut[0].diff() >= 0).all() and cut[0, 3] == cut[0, 4]
    assert (cut[1] == 0).all()
    clips = labels[:105].view(5, 21, 1)
    torch.testing.assert_close(ordinal_cutpoints(clips), ordinal_cutpoints(labels[:105, None]))


def test_intensities_are_in_range_and_grow_with_the_score() -> None:
    cut = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]])
    scores = torch.linspace(-60, 60, 101)[:, None]
    found = ordinal_intensity(scores, cut)
    assert (found >= 0).all() and (found <= 5).all() and (found.diff(dim=0) >= 0).all()
    assert found[0].item() == pytest.approx(0) and found[-1].item() == pytest.approx(5)
    assert ordinal_intensity(torch.tensor([2.0]), cut).item() == pytest.approx(2.5)


def test_fitted_scores_give_the_levels_back() -> None:
    labels = torch.tensor([[0], [1], [2], [3], [4], [5]])
    cut = torch.tensor([[0.0, 4.0, 8.0, 12.0, 16.0]], dtype=torch.float64)
    scores = torch.zeros(6, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        ordinal_loss(scores, labels, cut).backward()
        optimizer.step()
    found = ordinal_intensity(scores.detach(), cut)
    torch.testing.assert_close(found.round().long(), labels)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"whole numbers 0 to 5, or -1 .*, got 6 at \(0, 1\)"):
        ordinal_loss(torch.zeros(1, 2), torch.tensor([[0, 6]]), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"got 0.5 at \(0, 0\)"):
        ordinal_cutpoints(torch.tensor([[0.5]]))
    with pytest.raises(ValueError, match=r"cutpoints must have shape \(N=2, 5\), got \(2, 4\)"):
        ordinal_intensity(torch.zeros(1, 2), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="logits and labels must have the same shape"):
        ordinal_loss(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(2, 5))

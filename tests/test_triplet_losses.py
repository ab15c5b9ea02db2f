"""The triplet loss against numpy, by hand, and what moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aurel.losses import expression_triplet_loss, triplets_right


def oracle(embeddings: np.ndarray, margins: np.ndarray) -> float:
    total = 0.0
    for (a, p, n), m in zip(embeddings, margins, strict=True):
        ap, an, pn = ((x - y) @ (x - y) for x, y in ((a, p), (a, n), (p, n)))
        total += max(0.0, ap - an + m) + max(0.0, ap - pn + m)
    return total / len(embeddings)


def test_equals_the_equation() -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(40, 3, 4, dtype=torch.float64), dim=-1)
    margins = torch.tensor([0.1, 0.2]).double().repeat(20)
    expected = oracle(embeddings.numpy(), margins.numpy())
    assert expression_triplet_loss(embeddings, margins).item() == pytest.approx(expected, rel=1e-12)
    alike = oracle(embeddings.numpy(), np.full(40, 0.2))
    assert expression_triplet_loss(embeddings, 0.2).item() == pytest.approx(alike, rel=1e-12)
    assert expression_triplet_loss(embeddings).item() == pytest.approx(alike, rel=1e-12)


def test_by_hand() -> None:
    a, p, n = [1.0, 0.0], [0.0, 1.0], [0.8, 0.6]  # squared distances 2, 0.4, 0.8
    loss = expression_triplet_loss(torch.tensor([[a, p, n]]), 0.1)
    assert loss.item() == pytest.approx(2 - 0.4 + 0.1 + 2 - 0.8 + 0.1)
    right = torch.tensor([[a, p, n], [a, n, p], [n, p, a]])
    assert triplets_right(right).tolist() == [False, True, False]


def test_triplets_in_any_number_of_dimensions() -> None:
    embeddings, margins = torch.randn(8, 3, 5), torch.rand(8)
    grid = embeddings.view(2, 4, 3, 5)
    loss = expression_triplet_loss(embeddings, margins)
    torch.testing.assert_close(expression_triplet_loss(grid, margins.view(2, 4)), loss)
    right = triplets_right(embeddings)
    assert torch.equal(triplets_right(grid), right.view(2, 4))
    assert [triplets_right(one).item() for one in embeddings] == right.tolist()


def test_a_tie_is_not_right() -> None:
    """Anchor and positive are as far from each other as one of them from the negative."""
    line = torch.tensor([[[0.0], [1.0], [-1.0]], [[1.0], [0.0], [-1.0]]])
    assert triplets_right(line).tolist() == [False, False]


def test_anchor_and_positive_may_be_exchanged() -> None:
    embeddings = torch.randn(6, 3, 5)
    exchanged = embeddings[:, [1, 0, 2]]
    torch.testing.assert_close(
        expression_triplet_loss(exchanged), expression_triplet_loss(embeddings)
    )
    assert torch.equal(triplets_right(exchanged), triplets_right(embeddings))


def test_a_triplet_that_is_right_by_the_margin_rests() -> None:
    embeddings = torch.tensor([[[1.0, 0], [1, 0], [-1, 0]], [[1, 0], [0, 1], [1, 0]]])
    embeddings.requires_grad_()
    (gradient,) = torch.autograd.grad(expression_triplet_loss(embeddings, 0.2), embeddings)
    assert not gradient[0].any() and gradient[1].any()


def test_gradient() -> None:
    embeddings = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: expression_triplet_loss(x, 0.2), embeddings)


def test_half_precision_and_nothing() -> None:
    embeddings = torch.randn(5, 3, 4)
    half = expression_triplet_loss(embeddings.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expression_triplet_loss(embeddings), rtol=1e-2, atol=1e-2)
    assert expression_triplet_loss(torch.zeros(0, 3, 4)) == 0
    assert triplets_right(torch.zeros(2, 3, 4)).tolist() == [False, False]


def test_bad_shapes() -> None:
    with pytest.raises(
        ValueError, match=r"embeddings must have shape \(\.\.\., 3, D\), got \(4, 2, 5\)"
    ):
        expression_triplet_loss(torch.zeros(4, 2, 5))
    with pytest.raises(
        ValueError, match=r"embeddings must have shape \(\.\.\., 3, D\), got \(3,\)"
    ):
        expression_triplet_loss(torch.zeros(3))
    with pytest.raises(ValueError, match=r"margin must be one number or have shape \(4,\), got"):
        expression_triplet_loss(torch.zeros(4, 3, 5), torch.zeros(3))

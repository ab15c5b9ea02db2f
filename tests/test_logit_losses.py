"""Losses of logits against numpy oracles, numbers by hand and their invariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.losses import binary_cross_entropy_loss, multilabel_circle_loss

Loss = Callable[..., Tensor]
LOSSES: list[Loss] = [binary_cross_entropy_loss, multilabel_circle_loss]
both = pytest.mark.parametrize("loss", LOSSES)
SCORES, LABELS = [2.0, -1.0, 0.5], [1, 0, 0]


def random_labels(*shape: int) -> Tensor:
    """Return float64 labels in {1, 0, -1}."""
    return torch.randint(-1, 2, shape).double()


def cross_entropy_oracle(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    total, count = 0.0, 0
    for (b, n), score in np.ndenumerate(s):
        if y[b, n] >= 0:
            p = 1 / (1 + np.exp(-score))
            total -= w[n] * (np.log(p) if y[b, n] == 1 else np.log(1 - p))
            count += 1
    return total / count


def circle_oracle(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    terms = []
    for scores, labels in zip(s, y, strict=True):
        if (labels >= 0).any():
            absent = sum(w[n] * np.exp(scores[n]) for n in np.flatnonzero(labels == 0))
            present = sum(w[n] * np.exp(-scores[n]) for n in np.flatnonzero(labels == 1))
            terms.append(np.log(1 + absent) + np.log(1 + present))
    return float(np.mean(terms))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(binary_cross_entropy_loss, 0.471422), (multilabel_circle_loss, 1.231059)],
)
def test_by_hand(loss: Loss, expected: float) -> None:
    value = loss(torch.tensor([SCORES]), torch.tensor([LABELS]))
    assert value.item() == pytest.approx(expected, abs=1e-6)
    assert loss(torch.tensor(SCORES), torch.tensor(LABELS)).item() == pytest.approx(value.item())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "oracle"),
    [(binary_cross_entropy_loss, cross_entropy_oracle), (multilabel_circle_loss, circle_oracle)],
)
def test_unknown_labels_leave_the_mean_of_the_rest(
    loss: Loss, oracle: Callable[..., float], weighted: bool
) -> None:
    logits, labels = 3 * torch.randn(13, 7).double(), random_labels(13, 7)
    labels[5] = -1
    weights = torch.rand(7).double() if weighted else None
    known_weights = np.ones(7) if weights is None else weights.numpy()
    expected = oracle(logits.numpy(), labels.numpy(), known_weights)
    assert loss(logits, labels, weights).item() == pytest.approx(expected, abs=1e-12)
    assert loss(logits, labels.long(), weights).item() == pytest.approx(expected, abs=1e-12)
    clips = loss(logits.view(13, 1, 7), labels.view(13, 1, 7), weights)
    assert clips.item() == pytest.approx(expected, abs=1e-12)


@both
def test_gradcheck(loss: Loss) -> None:
    logits = torch.randn(4, 3).double().requires_grad_()
    labels, weights = random_labels(4, 3), torch.rand(3).double()
    assert torch.autograd.gradcheck(lambda s: loss(s, labels, weights), logits)


@both
def test_nothing_of_an_unknown_entry_passes(loss: Loss) -> None:
    logits = torch.randn(3, 4)
    labels = torch.tensor([[1, 0, -1, 1], [-1, -1, -1, -1], [0, 1, 1, 0]])
    expected = loss(logits, labels)
    logits[labels < 0] = torch.nan
    logits.requires_grad_()
    value = loss(logits, labels)
    value.backward()
    torch.testing.assert_close(value, expected)
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert not logits.grad[labels < 0].any() and logits.grad[labels >= 0].all()


@both
def test_nothing_known_is_zero(loss: Loss) -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    value = loss(logits, torch.full((2, 3), -1))
    value.backward()
    assert value.item() == 0 and logits.grad is not None and not logits.grad.any()
    assert loss(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_finite_at_the_ends_of_half_precision(loss: Loss, dtype: torch.dtype) -> None:
    end = torch.finfo(torch.float16).max
    logits = torch.tensor([[end, -end, end, -end]], dtype=dtype, requires_grad=True)
    value = loss(logits, torch.tensor([[0, 1, 1, 0]]), torch.rand(4) + 0.5)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and value > 1e4
    assert logits.grad is not None and logits.grad.dtype == dtype and logits.grad.isfinite().all()


@both
def test_right_and_sure_costs_nothing(loss: Loss) -> None:
    labels = random_labels(6, 5)
    assert loss(100 * (2 * labels - 1), labels).item() == pytest.approx(0, abs=1e-12)


@both
def test_a_weight_of_zero_takes_an_au_out(loss: Loss) -> None:
    logits, labels = torch.randn(5, 3, requires_grad=True), torch.randint(0, 2, (5, 3))
    loss(logits, labels, torch.tensor([1.0, 0.0, 2.0])).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert not logits.grad[:, 1].any() and logits.grad[:, [0, 2]].all()


@both
def test_weights_of_another_dtype_do_not_widen_the_loss(loss: Loss) -> None:
    logits, labels, weights = torch.randn(5, 3), torch.randint(0, 2, (5, 3)), torch.rand(3)
    value = loss(logits, labels, weights.double())
    assert value.dtype == torch.float32 and value == loss(logits, labels, weights)


@both
def test_order_does_not_matter(loss: Loss) -> None:
    logits, labels, weights = (
        torch.randn(6, 5).double(),
        random_labels(6, 5),
        torch.rand(5).double(),
    )
    rows, columns = torch.randperm(6), torch.randperm(5)
    shuffled = loss(logits[rows][:, columns], labels[rows][:, columns], weights[columns])
    torch.testing.assert_close(shuffled, loss(logits, labels, weights))


def test_circle_loss_looks_at_the_worst_au() -> None:
    logits = torch.tensor([[4.0, -3.0, -3.0, -3.0]], requires_grad=True)
    multilabel_circle_loss(logits, torch.zeros(1, 4)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0.95 and logits.grad[0, 1:].max() < 0.01


@both
def test_compiles_in_one_graph(loss: Loss) -> None:
    logits, labels, weights = torch.randn(4, 3), random_labels(4, 3), torch.rand(3)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, labels, weights), loss(logits, labels, weights))


@both
def test_messages(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"logits and labels must have the same shape, got"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"labels must be 1 .*got 9 at \(0, 1\)"):
        loss(torch.zeros(1, 2), torch.tensor([[1, 9]]))
    with pytest.raises(ValueError, match=r"weights must have shape \(N=2\), one entry an AU, got"):
        loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(3))

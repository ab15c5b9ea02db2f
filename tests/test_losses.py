"""Losses against numpy oracles, the authors' numbers and their invariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from aurel import losses
from aurel.losses import (
    au_class_weights,
    edge_cross_entropy,
    edge_labels,
    landmark_alignment_loss,
    multilabel_dice_loss,
    weighted_asymmetric_loss,
)

Arrays = dict[str, np.ndarray]
ProbabilityLoss = Callable[..., Tensor]
PROBABILITY_LOSSES: list[ProbabilityLoss] = [weighted_asymmetric_loss, multilabel_dice_loss]
NAN = float("nan")


def random_labels(*shape: int) -> Tensor:
    """Return float64 labels in {1, 0, -1}."""
    return torch.randint(-1, 2, shape).double()


def test_every_public_name_is_there() -> None:
    assert all(callable(getattr(losses, name)) for name in losses.__all__)


def asymmetric_oracle(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    total, count = 0.0, 0
    for sample, label in zip(p, y, strict=True):
        for n in range(len(w)):
            if label[n] == -1:
                continue
            count += 1
            if label[n] == 1:
                total -= w[n] * np.log(max(sample[n], 1e-8))
            else:
                total -= w[n] * sample[n] * np.log(max(1 - sample[n], 1e-8))
    return total / count


def dice_oracle(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    terms = w * (1 - (2 * y * p + 1) / (y**2 + p**2 + 1))
    return float(terms[y >= 0].mean())


def test_asymmetric_loss_of_the_authors(golden: Callable[[str], Arrays]) -> None:
    arrays = golden("weighted_asymmetric_loss")
    probs = torch.tensor(arrays["prob"], requires_grad=True)
    labels, weights = torch.tensor(arrays["target"]), torch.tensor(arrays["weight"])
    loss = weighted_asymmetric_loss(probs, labels, weights)
    (grad,) = torch.autograd.grad(loss, probs)
    np.testing.assert_allclose(loss.item(), arrays["loss"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(grad.numpy(), arrays["grad"], rtol=0, atol=1e-12)


def test_asymmetric_loss_by_hand() -> None:
    probs = torch.tensor([[0.9, 0.2, 0.6], [0.3, 0.7, 0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 0, 0], [0, 1, 1]])
    weights = torch.tensor([0.5, 1, 1.5], dtype=torch.float64)
    loss = weighted_asymmetric_loss(probs, labels, weights)
    (grad,) = torch.autograd.grad(loss, probs)
    assert loss.item() == pytest.approx(4.827194690704346, rel=1e-6)
    assert weighted_asymmetric_loss(probs, labels).item() == pytest.approx(
        3.2640204429626465, rel=1e-6
    )
    expected = [[-0.092593, 0.041667, 0.375], [0.035714, -0.238095, 0]]
    np.testing.assert_allclose(grad.numpy(), expected, atol=1e-6)


def test_dice_loss_by_hand() -> None:
    loss = multilabel_dice_loss(torch.tensor([[0.9, 0.2]]), torch.tensor([[1, 0]]))
    assert loss.item() == pytest.approx(0.021010, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "oracle"),
    [(weighted_asymmetric_loss, asymmetric_oracle), (multilabel_dice_loss, dice_oracle)],
)
def test_unknown_labels_leave_the_mean_of_the_rest(
    loss: ProbabilityLoss, oracle: Callable[..., float]
) -> None:
    probs, labels, weights = (
        torch.rand(13, 7).double(),
        random_labels(13, 7),
        torch.rand(7).double(),
    )
    expected = oracle(probs.numpy(), labels.numpy(), weights.numpy())
    assert loss(probs, labels, weights).item() == pytest.approx(expected, abs=1e-12)
    assert loss(probs, labels.long(), weights).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_gradcheck(loss: ProbabilityLoss) -> None:
    probs = (0.05 + 0.9 * torch.rand(4, 3)).double().requires_grad_()
    labels, weights = random_labels(4, 3), torch.rand(3).double()
    options = {} if loss is multilabel_dice_loss else {"detach_focus": False}
    assert torch.autograd.gradcheck(lambda p: loss(p, labels, weights, **options), probs)


def test_the_focus_is_a_constant_unless_asked_otherwise() -> None:
    probs = torch.tensor([0.25], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0])
    for detach, expected in ((True, 0.25 / 0.75), (False, 0.25 / 0.75 - np.log(0.75))):
        loss = weighted_asymmetric_loss(probs, labels, detach_focus=detach)
        (grad,) = torch.autograd.grad(loss, probs)
        assert grad.item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9))
@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_order_of_samples_and_aus_does_not_matter(
    loss: ProbabilityLoss, seed: int, batch: int, num_aus: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(batch, num_aus, generator=generator).double()
    labels = torch.randint(-1, 2, (batch, num_aus), generator=generator)
    weights = torch.rand(num_aus, generator=generator)
    rows = torch.randperm(batch, generator=generator)
    columns = torch.randperm(num_aus, generator=generator)
    expected = loss(probs, labels, weights)
    shuffled = loss(probs[rows][:, columns], labels[rows][:, columns], weights[columns])
    torch.testing.assert_close(shuffled, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss(probs, labels, 3 * weights), 3 * expected)
    clips = loss(probs.reshape(batch, 1, num_aus), labels.reshape(batch, 1, num_aus), weights)
    torch.testing.assert_close(clips, expected)


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_nan_where_nothing_is_known_stays_there(loss: ProbabilityLoss) -> None:
    probs, labels = torch.rand(5, 4).double(), random_labels(5, 4)
    labels[2] = -1
    clean = probs.clone().requires_grad_()
    dirty = probs.masked_fill(labels == -1, NAN).requires_grad_()
    assert loss(clean, labels).item() == loss(dirty, labels).item()
    (expected,) = torch.autograd.grad(loss(clean, labels), clean)
    with torch.autograd.set_detect_anomaly(True):
        (found,) = torch.autograd.grad(loss(dirty, labels), dirty)
    assert torch.equal(found, expected)
    assert (found[labels == -1] == 0).all()


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_nan_where_a_label_is_known_is_not_hidden(loss: ProbabilityLoss) -> None:
    assert loss(torch.tensor([[0.5, NAN]]), torch.tensor([[1, 0]])).isnan()


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_nothing_known_is_zero(loss: ProbabilityLoss, shape: tuple[int, int]) -> None:
    probs = torch.rand(shape, requires_grad=True)
    value = loss(probs, torch.full(shape, -1))
    (grad,) = torch.autograd.grad(value, probs)
    assert value.item() == 0
    assert torch.equal(grad, torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_extreme_probabilities_are_finite_in_every_dtype(
    loss: ProbabilityLoss, dtype: torch.dtype
) -> None:
    above, below = 1 + 1e-2, -1e-2
    values = torch.tensor([0, 1, 6e-8, 1e-6, 1 - 1e-3, above, below, 0.5], dtype=dtype)
    for label in (0, 1):
        probs = values.clone().requires_grad_()
        labels = torch.full((8,), label)
        result = loss(probs, labels)
        (grad,) = torch.autograd.grad(result, probs)
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert result.isfinite() and grad.isfinite().all() and grad.dtype == dtype
        clipped = loss(values.clamp(0, 1), labels)
        assert result.item() == clipped.item()


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_half_precision_is_as_exact_as_its_input(loss: ProbabilityLoss) -> None:
    probs, labels = (0.01 + 0.98 * torch.rand(64, 12)).half(), random_labels(64, 12)
    expected = loss(probs.double(), labels, torch.ones(12))
    for weights in (None, torch.ones(12), torch.ones(12).double()):
        value = loss(probs, labels, weights)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_grad_mode_is_left_alone() -> None:
    probs, labels = torch.rand(2, 3, requires_grad=True), torch.ones(2, 3)
    with torch.no_grad():
        loss = weighted_asymmetric_loss(probs, labels)
        assert not torch.is_grad_enabled() and not loss.requires_grad
    with torch.inference_mode():
        weighted_asymmetric_loss(probs, labels)
    weighted_asymmetric_loss(probs, labels)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_inputs_are_left_alone(loss: ProbabilityLoss) -> None:
    probs, labels = torch.rand(4, 6).t(), random_labels(6, 4)
    before = probs.clone(), labels.clone()
    value = loss(probs, labels)
    assert torch.equal(probs, before[0]) and torch.equal(labels, before[1])
    assert value.item() == loss(probs.contiguous(), labels).item()


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES)
def test_wrong_input_is_named(loss: ProbabilityLoss) -> None:
    probs = torch.rand(2, 3)
    with pytest.raises(ValueError, match=r"^probs and labels must .* \(2, 3\) and \(2, 4\)"):
        loss(probs, torch.zeros(2, 4))
    with pytest.raises(
        ValueError, match=r"weights must have shape \(N=3\), one entry an AU, got \(2,\)"
    ):
        loss(probs, torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(ValueError, match=r"labels must be 1 .* got 9 at \(1, 2\)"):
        loss(probs, torch.tensor([[0, 1, 0], [1, 1, 9]]))


def test_unchecked_labels_count_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels, logits = torch.rand(6, 4), random_labels(6, 4), torch.randn(6, 4, 4, 4)
    uncoded = labels.masked_fill(labels == -1, 999)
    expected = [loss(probs, labels) for loss in PROBABILITY_LOSSES]
    expected.append(edge_cross_entropy(logits, labels))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # as on an accelerator
    found = [loss(probs, uncoded) for loss in PROBABILITY_LOSSES]
    found.append(edge_cross_entropy(logits, uncoded))
    assert found == expected


def test_on_an_accelerator_no_loss_looks_at_values() -> None:
    """A data-dependent branch raises on fake tensors; they are on a GPU only in name."""
    with FakeTensorMode():
        probs = torch.rand(4, 12, device="cuda")
        labels = torch.ones(4, 12, device="cuda")
        points = torch.rand(4, 49, 2, device="cuda")
        losses = (
            weighted_asymmetric_loss(probs, labels, torch.ones(12, device="cuda")),
            multilabel_dice_loss(probs, labels),
            edge_cross_entropy(torch.rand(4, 12, 12, 4, device="cuda"), labels),
            landmark_alignment_loss(points, points),
        )
        assert all(loss.device.type == "cuda" and loss.shape == () for loss in losses)


def test_losses_compile_to_one_graph() -> None:
    def total(probs: Tensor, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (
            weighted_asymmetric_loss(probs, labels, weights)
            + multilabel_dice_loss(probs, labels, weights)
            + edge_cross_entropy(logits, labels)
        )

    inputs = torch.rand(3, 5), torch.randn(3, 5, 5, 4), random_labels(3, 5), torch.rand(5)
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), total(*inputs))


# Landmarks.


def random_face(batch: int) -> Tensor:
    return 224 * torch.rand(batch, 49, 2, dtype=torch.float64)


def landmark_oracle(predicted: np.ndarray, target: np.ndarray) -> float:
    losses = []
    for guess, points in zip(predicted, target, strict=True):
        left, right = points[19:25].mean(0), points[25:31].mean(0)
        losses.append(((guess - points) ** 2).sum() / (2 * ((left - right) ** 2).sum()))
    return float(np.mean(losses))


def test_landmark_loss_is_the_equation() -> None:
    predicted, target = random_face(5), random_face(5)
    expected = landmark_oracle(predicted.numpy(), target.numpy())
    assert landmark_alignment_loss(predicted, target).item() == pytest.approx(expected, rel=1e-12)


def test_landmark_loss_has_no_unit() -> None:
    predicted, target = random_face(4), random_face(4)
    expected = landmark_alignment_loss(predicted, target)
    turned = torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64)).Q
    for unit in (3, 1e-3):
        moved = [unit * face @ turned + 17 for face in (predicted, target)]
        torch.testing.assert_close(landmark_alignment_loss(*moved), expected)


def test_samples_without_landmarks_do_not_count() -> None:
    predicted, target = random_face(4), random_face(4)
    expected = landmark_oracle(predicted[[0, 3]].numpy(), target[[0, 3]].numpy())
    target[1, 3, 0] = NAN
    target[2] = 0
    predicted[1, 5] = NAN
    predicted.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        loss = landmark_alignment_loss(predicted, target)
        (grad,) = torch.autograd.grad(loss, predicted)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert (grad[[1, 2]] == 0).all() and grad[[0, 3]].isfinite().all() and (grad[0] != 0).any()
    nothing = landmark_alignment_loss(predicted, torch.full_like(target, NAN))
    (grad,) = torch.autograd.grad(nothing, predicted)
    assert nothing.item() == 0 and (grad == 0).all()


def test_landmark_gradcheck_and_half_precision() -> None:
    target = random_face(2)
    predicted = random_face(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: landmark_alignment_loss(x, target), predicted)
    half = target.half()
    expected = landmark_alignment_loss(predicted.half().float(), half.float())
    torch.testing.assert_close(landmark_alignment_loss(predicted.half(), half), expected)
    far = torch.full((2, 49, 2), 60000.0, dtype=torch.float16)
    loss = landmark_alignment_loss(far, target.half())
    assert loss.isfinite() and loss.dtype == torch.float32


def test_wrong_landmarks_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(B, 49, 2\), got \(2, 68, 2\) and \(2, 68, 2\)"):
        landmark_alignment_loss(torch.rand(2, 68, 2), torch.rand(2, 68, 2))
    with pytest.raises(ValueError, match=r"\(2, 49, 2\) and \(3, 49, 2\)"):
        landmark_alignment_loss(torch.rand(2, 49, 2), torch.rand(3, 49, 2))


# Edges.


def test_edge_labels_by_hand() -> None:
    relation = edge_labels(torch.tensor([0, 1, 1]))
    assert relation.flatten().tolist() == [0, 1, 1, 2, 3, 3, 2, 3, 3]
    assert relation.dtype == torch.int64
    relation = edge_labels(torch.tensor([[1.0, -1, 0]]))
    assert relation.tolist() == [[[3, -1, 2], [-1, -1, -1], [1, -1, 0]]]


def pairs_of_every_class() -> tuple[Tensor, Tensor]:
    """Return logits and labels."""
    logits, labels = torch.randn(8, 5, 5, 4, dtype=torch.float64), random_labels(8, 5)
    assert edge_labels(labels).unique().tolist() == [-1, 0, 1, 2, 3]
    return logits, labels


def test_edge_cross_entropy_is_the_equation() -> None:
    logits, labels = pairs_of_every_class()
    terms = []
    for b, i, j in np.ndindex(8, 5, 5):
        y_i, y_j = labels[b, i].item(), labels[b, j].item()
        if y_i >= 0 and y_j >= 0:
            z = logits[b, i, j].numpy()
            terms.append(np.log(np.exp(z).sum()) - z[int(2 * y_i + y_j)])
    expected = pytest.approx(np.mean(terms), rel=1e-12)
    assert edge_cross_entropy(logits, labels).item() == expected
    clips = logits.view(2, 4, 5, 5, 4), labels.view(2, 4, 5)
    assert edge_cross_entropy(*clips).item() == expected
    assert edge_cross_entropy(*clips, torch.ones(5)).item() == expected


def test_a_pair_has_the_mean_weight_of_its_aus() -> None:
    logits, labels = pairs_of_every_class()
    weights = torch.rand(5, dtype=torch.float64)
    known, total = edge_labels(labels) >= 0, 0.0
    for b, i, j in known.nonzero().tolist():
        one = labels[b, [i, j]].view(1, 2)
        pair = logits[b, i, j].expand(1, 2, 2, 4)
        entropy = -pair.log_softmax(-1)[0, 0, 1, edge_labels(one)[0, 0, 1]].item()
        total += (weights[i] + weights[j]).item() / 2 * entropy
    loss = edge_cross_entropy(logits, labels, weights)
    assert loss.item() == pytest.approx(total / known.sum().item(), rel=1e-12)
    ones = edge_cross_entropy(logits, labels, torch.ones(5))
    assert ones.item() == edge_cross_entropy(logits, labels).item()
    assert edge_cross_entropy(logits.float(), labels, weights).dtype == torch.float32


def test_pairs_with_an_unknown_member_have_no_part() -> None:
    labels = torch.tensor([[1, -1, 0], [-1, -1, -1]])
    logits = torch.randn(2, 3, 3, 4).double()
    unknown = edge_labels(labels) < 0
    dirty = logits.masked_fill(unknown.unsqueeze(-1), NAN).requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        loss = edge_cross_entropy(dirty, labels)
        (grad,) = torch.autograd.grad(loss, dirty)
    assert loss.item() == edge_cross_entropy(logits, labels).item()
    assert (grad[unknown] == 0).all() and grad[~unknown].isfinite().all()
    nothing = edge_cross_entropy(dirty, torch.full((2, 3), -1))
    (grad,) = torch.autograd.grad(nothing, dirty)
    assert nothing.item() == 0 and (grad == 0).all()


def test_edge_gradcheck_and_half_precision() -> None:
    labels = random_labels(2, 3)
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: edge_cross_entropy(z, labels), logits)
    large = torch.full((2, 3, 3, 4), 6e4, dtype=torch.float16)
    assert edge_cross_entropy(large, torch.ones(2, 3)).item() == pytest.approx(np.log(4))


def test_wrong_edges_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 3, 4\) for labels \(2, 3\), got \(2, 9, 4\)"):
        edge_cross_entropy(torch.rand(2, 9, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"\(N=3\), one entry an AU, got \(4,\)"):
        edge_cross_entropy(torch.rand(2, 3, 3, 4), torch.zeros(2, 3), torch.ones(4))
    with pytest.raises(ValueError, match="got 9"):
        edge_labels(torch.tensor([0, 9]))


# Class weights.

# Share of present labels in parts 1-3 and frames of each part, printed to four digits.
RATES = {
    "BP4D": (
        ".1644 .1614 .1992 .4159 .5898 .5764 .5585 .4004 .1514 .3176 .1585 .1398",
        ".2037 .1309 .1967 .4645 .5510 .5571 .5218 .5134 .1998 .3662 .1725 .1568",
        ".2715 .2253 .2129 .5063 .5019 .6546 .6097 .4853 .1560 .3464 .1653 .1583",
    ),
    "DISFA": (
        ".0422 .0258 .1174 .0541 .0279 .1033 .2488 .1124",
        ".0337 .0202 .1526 .0816 .0295 .1419 .3029 .0946",
        ".0733 .0835 .1872 .1011 .0681 .1413 .2796 .0575",
    ),
    # Part i is the test list of fold 4 - i.
    "EmotioNet": (
        ".0589 .0284 .1122 .0327 .1907 .0178 .3023 .0205 .0052 .4668 .0850 .0252",
        ".0622 .0295 .1187 .0349 .1842 .0234 .3069 .0201 .0063 .4716 .0820 .0287",
        ".0559 .0261 .1170 .0385 .1820 .0202 .3100 .0194 .0048 .4720 .0835 .0274",
    ),
}
FRAMES = {
    "BP4D": (50631, 50182, 46034),
    "DISFA": (43604, 43605, 43605),
    "EmotioNet": (8200, 8199, 8199),
}
SHIPPED = {
    "BP4D": (
        "1.342985 1.689665 1.248091 0.561356 0.433044 0.435894 0.457287 0.541004 1.408054 "
        "0.722762 1.493145 1.666711",
        "1.191051 1.337315 1.246995 0.558933 0.468168 0.418041 0.440099 0.581900 1.670360 "
        "0.774237 1.586367 1.726535",
        "1.132895 1.519623 1.308560 0.552098 0.507140 0.443118 0.474432 0.535111 1.496040 "
        "0.749851 1.582501 1.698632",
    ),
    "DISFA": (
        "1.422290 2.347771 0.399672 0.795021 1.878217 0.440125 0.195583 0.521322",
        "1.390215 1.469573 0.527298 1.034498 1.672842 0.656650 0.303915 0.945009",
        "1.510590 1.560063 0.475896 0.884891 1.656857 0.570937 0.277589 1.063177",
    ),
    "EmotioNet": (
        "0.472388 0.987541 0.247798 0.846718 0.152597 1.387816 0.093910 1.408654 4.937703 "
        "0.060959 0.342646 1.061271",
        "0.460418 0.969247 0.230577 0.741872 0.141771 1.388633 0.086288 1.324934 5.283579 "
        "0.056281 0.313497 1.002902",
        "0.479667 1.018240 0.240330 0.771291 0.154669 1.296976 0.091799 1.433078 5.102388 "
        "0.060013 0.342165 1.009385",
    ),
}


@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("dataset", RATES)
def test_class_weights_are_the_shipped_ones(dataset: str, fold: int) -> None:
    trained = [part for part in range(3) if part != 3 - fold]
    rates = np.array([RATES[dataset][part].split() for part in trained], dtype=float)
    frames = np.array([FRAMES[dataset][part] for part in trained])
    positives = np.rint(frames @ rates)
    labels = torch.arange(frames.sum()).unsqueeze(1) < torch.tensor(positives)
    weights = au_class_weights(labels.to(torch.int8)).numpy()
    shipped = np.array(SHIPPED[dataset][fold - 1].split(), dtype=float)
    # Rates are printed to 5e-5 (and counts are whole), so 1 / r_n is known to that over r_n; a
    # weight is off by that plus the same of the sum.
    relative = (5e-5 + 1 / frames.sum()) / (positives / frames.sum())
    assert (np.abs(weights / shipped - 1) <= relative + relative.max()).all()


def test_class_weights_by_hand() -> None:
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, -1, -1], [0, -1, 0]])
    inverse = np.array([4, 1, 3])
    weights = au_class_weights(labels)
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights.numpy(), 3 * inverse / inverse.sum(), rtol=1e-6)


def test_one_known_label_is_enough_for_a_class_weight() -> None:
    labels = torch.tensor([[1, 1], [-1, 0], [-1, 0]])
    assert au_class_weights(labels).tolist() == [0.5, 1.5]


def test_class_weights_are_finite_without_positives() -> None:
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]])
    inverse = np.array([4, 4 / 3, 4])
    np.testing.assert_allclose(
        au_class_weights(labels).numpy(), 3 * inverse / inverse.sum(), rtol=1e-6
    )
    assert au_class_weights(torch.zeros(5, 3)).tolist() == [1, 1, 1]


def test_class_weights_of_unannotated_aus() -> None:
    labels = torch.tensor([[1, -1, 1], [0, -1, 1], [0, -1, 0]])
    alone = au_class_weights(labels[:, [0, 2]])
    weights = au_class_weights(labels)
    assert weights[1] == 1
    torch.testing.assert_close(weights[[0, 2]], alone)
    assert au_class_weights(torch.full((4, 2), -1)).tolist() == [1, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 9))
def test_class_weights_sum_to_the_number_of_aus(seed: int, samples: int, num_aus: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2, (samples, num_aus), generator=generator)
    weights = au_class_weights(labels)
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(num_aus, rel=1e-5)


def test_wrong_labels_have_no_weights() -> None:
    with pytest.raises(ValueError, match=r"got 9 at \(0, 1\)"):
        au_class_weights(torch.tensor([[0, 9]]))
    with pytest.raises(ValueError, match=r"labels must have shape \(M, N\), got \(3,\)"):
        au_class_weights(torch.zeros(3))

"""Metrics against numpy oracles, the authors' numbers, and one process against several."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("torchmetrics")

from torchmetrics import Metric, MetricCollection

from aurel.facs import AUSet
from aurel.metrics import (
    AUAUC,
    AUF1,
    AUAccuracy,
    AUScores,
    AUThresholds,
    best_f1_thresholds,
    expected_calibration_error,
    roc_auc,
)

Arrays = dict[str, np.ndarray]
METRICS: list[Callable[..., Metric]] = [AUF1, AUAccuracy, AUAUC]
NAN = float("nan")


def random_batch(samples: int, num_aus: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return probabilities with many ties and labels in {1, 0, -1}."""
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randint(0, 21, (samples, num_aus), generator=generator) / 20
    return probs, torch.randint(-1, 2, (samples, num_aus), generator=generator)


def f1_oracle(probs: np.ndarray, labels: np.ndarray, threshold: float = 0.5) -> float:
    known = labels >= 0
    if not known.any():
        return NAN
    detected, present = probs[known] >= threshold, labels[known] == 1
    tp = (detected & present).sum()
    wrong = (detected != present).sum()
    return 2 * tp / (2 * tp + wrong) if tp else 0.0


def auc_oracle(probs: np.ndarray, labels: np.ndarray) -> float:
    present, absent = probs[labels == 1], probs[labels == 0]
    if not len(present) or not len(absent):
        return NAN
    wins = (present[:, None] > absent).sum() + 0.5 * (present[:, None] == absent).sum()
    return float(wins / (len(present) * len(absent)))


def accuracy_oracle(probs: np.ndarray, labels: np.ndarray) -> float:
    known = labels >= 0
    return float(((probs >= 0.5) == (labels == 1))[known].mean()) if known.any() else NAN


def ece_oracle(probs: np.ndarray, labels: np.ndarray, bins: int, equal: str) -> float:
    probs, labels = probs[labels >= 0], labels[labels >= 0]
    if not len(probs):
        return NAN
    total = 0.0
    for b in range(bins):
        if equal == "width":
            low, high = b / bins, (b + 1) / bins
            inside = [low <= p < high or (b == bins - 1 and p == 1) for p in probs]
        else:
            lower = [(probs < p).sum() for p in probs]
            inside = [b * len(probs) <= bins * r < (b + 1) * len(probs) for r in lower]
        if any(inside):
            gap = probs[inside].mean() - labels[inside].mean()
            total += sum(inside) / len(probs) * abs(gap)
    return total


ORACLES: dict[Callable[..., Metric], Callable[..., float]] = {
    AUF1: f1_oracle,
    AUAccuracy: accuracy_oracle,
    AUAUC: auc_oracle,
}


def test_scores_of_the_authors(golden: Callable[[str], Arrays]) -> None:
    arrays = golden("weighted_asymmetric_loss")
    probs, labels = torch.tensor(arrays["prob"]), torch.tensor(arrays["target"])
    for metric, key in ((AUF1, "f1"), (AUAccuracy, "acc")):
        each, mean = metric("BP4D", average="none"), metric("BP4D")
        np.testing.assert_allclose(each(probs, labels).numpy(), arrays[key], rtol=0, atol=1e-12)
        np.testing.assert_allclose(mean(probs, labels).numpy(), arrays[f"{key}_mean"], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 5))
@pytest.mark.parametrize("metric", METRICS)
def test_each_score_is_its_definition(
    metric: Callable[..., Metric], seed: int, samples: int, num_aus: int
) -> None:
    probs, labels = random_batch(samples, num_aus, seed)
    scores = metric(AUSet.unnamed(num_aus), average="none")
    scores.update(probs, labels)
    # The oracle is computed from the float32 values.
    expected = [
        ORACLES[metric](p, y)
        for p, y in zip(probs.double().numpy().T, labels.numpy().T, strict=True)
    ]
    np.testing.assert_allclose(scores.compute().numpy(), expected, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 20), max_size=4))
@pytest.mark.parametrize("metric", METRICS)
def test_batches_clips_and_order_do_not_matter(
    metric: Callable[..., Metric], seed: int, cuts: list[int]
) -> None:
    probs, labels = random_batch(20, 3, seed)
    whole, parts = (metric(AUSet.unnamed(3), average="none") for _ in range(2))
    whole.update(probs.view(4, 5, 3), labels.view(4, 5, 3))
    order = torch.randperm(20)
    bounds = [0, *sorted(cuts), 20]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        parts.update(probs[order[start:stop]], labels[order[start:stop]])
    torch.testing.assert_close(parts.compute(), whole.compute(), equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_auc_is_of_the_order_alone(seed: int) -> None:
    probs, labels = (x[:, 0] for x in random_batch(30, 1, seed))
    labels = labels.clamp_min(0)
    area = roc_auc(probs, labels)
    torch.testing.assert_close(roc_auc((3 * probs).exp(), labels), area, equal_nan=True)
    torch.testing.assert_close(roc_auc(-probs, labels), 1 - area, equal_nan=True)
    torch.testing.assert_close(roc_auc(probs, 1 - labels), 1 - area, equal_nan=True)


def test_auc_of_many_samples_is_exact() -> None:
    scores = torch.arange(100_000, dtype=torch.float64)
    labels = (scores >= 50_000).long()
    labels[0] = 1
    assert roc_auc(scores, labels).item() == pytest.approx(1 - 1 / 50_001, abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.7])
def test_the_threshold_is_inclusive_in_every_dtype(dtype: torch.dtype, threshold: float) -> None:
    probs = torch.full((1, 2), threshold, dtype=dtype)
    assert AUF1([1, 2], threshold)(probs, torch.ones(1, 2)) == 1
    assert AUF1([1, 2], [threshold, threshold])(probs, torch.ones(1, 2)) == 1
    below = torch.full((1, 2), threshold - 0.02, dtype=dtype)
    assert AUF1([1, 2], threshold)(below, torch.ones(1, 2)) == 0


def test_a_threshold_for_each_au() -> None:
    probs, labels = random_batch(50, 3)
    thresholds = [0.2, 0.5, 0.85]
    expected = [f1_oracle(probs[:, n].numpy(), labels[:, n].numpy(), thresholds[n]) for n in (0, 1)]
    for given_as in (thresholds, torch.tensor(thresholds)):
        found = AUF1([1, 2, 4], given_as, average="none")(probs, labels)
        np.testing.assert_allclose(found[:2].numpy(), expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"have shape \(N=3\), one an AU, got \(2,\)"):
        AUF1([1, 2, 4], [0.1, 0.2])


def test_aus_without_detections_positives_or_labels() -> None:
    # AU01 never detected, AU02 neither present nor detected, AU04 unknown, AU06 perfect.
    probs = torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.2, 0.3, 0.9, 0.1]])
    labels = torch.tensor([[1, 0, -1, 1], [0, 0, -1, 0]])
    aus = AUSet.of([1, 2, 4, 6])
    torch.testing.assert_close(
        AUF1(aus, average="none")(probs, labels),
        torch.tensor([0, 0, NAN, 1.0], dtype=torch.float64),
        equal_nan=True,
    )
    assert AUF1(aus)(probs, labels).item() == pytest.approx(1 / 3)
    assert AUAccuracy(aus)(probs, labels).item() == pytest.approx((0.5 + 1 + 1) / 3)
    assert AUAUC(aus)(probs, labels).item() == pytest.approx((0 + 1) / 2)


def test_the_table() -> None:
    probs, labels = random_batch(40, 4, seed=3)
    labels[:, 1] = -1
    labels[:, 2] = 0
    scores = AUScores(["AU12L", "AU12R", 4, 25])
    scores.update(probs[:25], labels[:25])
    scores.update(probs[25:], labels[25:])
    table = scores.compute()
    assert list(table) == ["AU12L", "AU12R", "AU04", "AU25", "mean"]
    for column, name in enumerate(scores.aus.names):
        p, y = probs[:, column].numpy(), labels[:, column].numpy()
        expected = {
            "f1": f1_oracle(p, y),
            "accuracy": accuracy_oracle(p, y),
            "auc": auc_oracle(p, y),
            "ece": ece_oracle(p.astype(float), y, 15, "width"),
            "positives": (y == 1).sum(),
            "known": (y >= 0).sum(),
        }
        assert table[name] == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert math.isnan(table["AU12R"]["f1"]) and table["AU12R"]["known"] == 0
    for key in ("f1", "accuracy", "auc", "ece"):
        values = [table[name][key] for name in scores.aus.names]
        assert table["mean"][key] == pytest.approx(np.nanmean(values))


def test_scores_of_a_subset_are_those_of_it_alone() -> None:
    probs, labels = random_batch(60, 3)
    visible = torch.rand(60, 3) < 0.6
    masked = AUScores([1, 2, 4])
    masked.update(probs, labels.masked_fill(~visible, -1))
    for column, name in enumerate(masked.aus.names):
        alone = AUScores([1])
        known_rows = visible[:, column]
        alone.update(
            probs[known_rows, column : column + 1], labels[known_rows, column : column + 1]
        )
        assert masked.compute()[name] == pytest.approx(alone.compute()["AU01"])


def test_a_nan_prediction_is_no_detection_and_stays_in_its_au() -> None:
    probs, labels = random_batch(30, 2)
    labels = labels.clamp_min(0)
    clean, dirty = AUScores([1, 2]), AUScores([1, 2])
    clean.update(probs, labels)
    probs[3, 0] = NAN
    dirty.update(probs, labels)
    assert dirty.compute()["AU02"] == clean.compute()["AU02"]
    assert math.isnan(dirty.compute()["AU01"]["auc"])
    expected = f1_oracle(probs[:, 0].numpy(), labels[:, 0].numpy())
    assert dirty.compute()["AU01"]["f1"] == pytest.approx(expected)
    labels[3, 0] = -1
    dirty.reset()
    dirty.update(probs, labels)
    assert not math.isnan(dirty.compute()["AU01"]["auc"])


@pytest.mark.parametrize("metric", METRICS)
def test_one_au_without_an_average_keeps_its_shape(metric: Callable[..., Metric]) -> None:
    probs, labels = torch.tensor([[0.2], [0.8]]), torch.tensor([[0], [1]])
    scores = metric([12], average="none")
    assert scores(probs, labels).shape == (1,)
    for _ in range(2):  # the second is stored
        assert torch.equal(scores.compute(), torch.ones(1, dtype=torch.float64))
    assert pickle.loads(pickle.dumps(scores)).compute().shape == (1,)
    assert metric([12])(probs, labels).shape == ()


@pytest.mark.parametrize("bad", [-0.25, 1.5, math.inf, -math.inf])
def test_scores_that_are_no_probabilities_are_refused(bad: float) -> None:
    probs = torch.full((2, 8), 0.5)
    probs[1, 3] = bad
    for metric in (AUF1, AUAUC, AUScores, AUThresholds):
        with pytest.raises(ValueError, match=rf"probs must be in \[0, 1\], got {bad:g} at \(1, 3"):
            metric("DISFA").update(probs, torch.zeros(2, 8))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 20))
@pytest.mark.parametrize("equal", ["width", "mass"])
def test_the_calibration_error_is_its_definition(
    equal: Any, seed: int, samples: int, bins: int
) -> None:
    probs, labels = random_batch(samples, 2, seed)
    probs = probs.double().mul(20).round().div(20)  # on edges of bins, and with ties
    found = expected_calibration_error(probs, labels, bins=bins, equal=equal)
    expected = [
        ece_oracle(p, y, bins, equal)
        for p, y in zip(probs.numpy().T, labels.numpy().T, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    order = torch.randperm(samples)
    again = expected_calibration_error(probs[order], labels[order], bins=bins, equal=equal)
    torch.testing.assert_close(again, found, equal_nan=True)


def test_calibration_errors_known_by_hand() -> None:
    probs = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.2])[:, None]
    labels = torch.tensor([1, 1, 1, 0, 0])[:, None]
    # Two bins of width 0.5: 1/5 of |0.2 - 0| and 4/5 of |0.9 - 0.75|.
    expected = torch.tensor([0.2 * 0.2 + 0.8 * 0.15], dtype=torch.float64)
    torch.testing.assert_close(
        expected_calibration_error(probs, labels, bins=2), expected, atol=1e-7, rtol=0
    )
    nan = probs.clone()
    nan[0] = NAN
    assert expected_calibration_error(nan, labels).isnan().all()
    assert expected_calibration_error(probs, -torch.ones(5, 1)).isnan().all()
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        expected_calibration_error(probs, labels, bins=0)
    with pytest.raises(ValueError, match="equal must be 'width' or 'mass', got 'size'"):
        expected_calibration_error(probs, labels, equal="size")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_no_threshold_has_a_higher_f1(seed: int, samples: int) -> None:
    probs, labels = random_batch(samples, 3, seed)
    found = best_f1_thresholds(probs, labels)
    metric = AUThresholds([1, 2, 4])
    metric.update(probs, labels)
    torch.testing.assert_close(metric.compute(), found, equal_nan=True)
    for column, (p, y) in enumerate(zip(probs.numpy().T, labels.numpy().T, strict=True)):
        if not (y == 1).any():
            assert found[column].isnan()
            continue
        f1 = {float(t): f1_oracle(p, y, t) for t in np.unique(p[y >= 0])}
        best = max(f1.values())
        assert found[column] == max(t for t, score in f1.items() if score > best - 1e-12)
        tuned = AUF1([1, 2, 4], found.nan_to_num(0.5), average="none")(probs, labels)
        assert tuned[column].item() == pytest.approx(best)


def test_thresholds_of_nan_and_of_nothing() -> None:
    probs, labels = torch.tensor([[NAN], [0.4], [0.3]]), torch.tensor([[1], [1], [0]])
    assert best_f1_thresholds(probs, labels).item() == pytest.approx(0.4)
    assert best_f1_thresholds(torch.full((2, 1), NAN), torch.ones(2, 1)).isnan().all()
    assert AUThresholds([1, 2]).compute().isnan().all()


def test_wrong_input_is_named() -> None:
    metric = AUF1("DISFA")
    with pytest.raises(
        ValueError, match=r"\(\.\.\., N=8\), a column for each AU of DISFA.*\(2, 12\)"
    ):
        metric.update(torch.rand(2, 12), torch.zeros(2, 12))
    with pytest.raises(ValueError, match=r"\(2, 8\) and \(3, 8\)"):
        metric.update(torch.rand(2, 8), torch.zeros(3, 8))
    with pytest.raises(ValueError, match=r"got 999 at \(0, 0\)"):
        metric.update(torch.rand(1, 8), torch.full((1, 8), 999))
    with pytest.raises(ValueError, match="average must be 'mean' or 'none', got 'macro'"):
        AUF1("DISFA", average="macro")  # type: ignore[arg-type]


def test_unchecked_labels_count_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels = random_batch(30, 2)
    expected, found = AUScores([1, 2]), AUScores([1, 2])
    expected.update(probs, labels)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # as on an accelerator
    found.update(probs, labels.masked_fill(labels == -1, 9))
    assert found.compute() == expected.compute()


def test_merged_states_are_those_of_one_metric() -> None:
    probs, labels = random_batch(50, 3)
    whole, first, second = (AUScores([1, 2, 4]) for _ in range(3))
    whole.update(probs, labels)
    first.update(probs[:17], labels[:17])
    second.update(probs[17:], labels[17:])
    first.merge_state(second)
    assert first.compute() == whole.compute()
    first.reset()
    first.update(probs, labels)
    assert first.compute() == whole.compute()


def test_a_merge_after_a_score_changes_it() -> None:
    probs, labels = random_batch(50, 3)
    whole, running, other = (AUF1(AUS) for _ in range(3))
    whole.update(probs, labels)
    running.update(probs[:17], labels[:17])
    other.update(probs[17:], labels[17:])
    assert running.compute() != whole.compute()
    running.merge_state(other.metric_state)
    assert running.compute() == whole.compute()


def test_unlike_metrics_do_not_merge() -> None:
    scores = AUScores([1, 2])
    unlike = {
        "AUF1 of AU01, AU02 at": AUF1([1, 2]),
        "AUScores of AU01, AU04 at": AUScores([1, 4]),
        r"AUScores of AU01, AU02 at \[0.6\]": AUScores([1, 2], 0.6),
    }
    for kind, other in unlike.items():
        message = rf"must be AUScores of AU01, AU02 at \[0.5\], got {kind}"
        with pytest.raises(ValueError, match=message):
            scores.merge_state(other)
    scores.merge_state(AUScores([1, 2], [0.5]))


@pytest.mark.parametrize("metric", METRICS)
def test_a_call_returns_the_score_of_its_batch_and_adds_it(metric: Callable[..., Metric]) -> None:
    probs, labels = random_batch(50, 3)
    running, whole = metric(AUS, average="none"), metric(AUS, average="none")
    for part in (slice(0, 20), slice(20, 50)):
        alone = metric(AUS, average="none")
        alone.update(probs[part], labels[part])
        assert torch.equal(running(probs[part], labels[part]), alone.compute())
    whole.update(probs, labels)
    assert torch.equal(running.compute(), whole.compute())


def test_the_state_is_in_no_checkpoint_and_no_average_of_weights() -> None:
    scores = AUScores(AUS)
    scores.update(*random_batch(5, 3))
    assert not scores.state_dict() and not list(scores.buffers())


@pytest.mark.parametrize("metric", [AUF1, AUAccuracy])
@pytest.mark.parametrize("other", [0.6, 0.5 + 1e-7, (0.5, 0.5, 0.6)])
def test_thresholds_stay_apart_in_a_collection(
    metric: Callable[..., Metric], other: float | tuple[float, ...]
) -> None:
    """The first batch counts the same at both thresholds, and the second does not."""
    between = torch.as_tensor(other, dtype=torch.float64).max() - 5e-8
    clear = torch.tensor([[0.9, 0.1, 0.9], [0.2, 0.8, 0.8]], dtype=torch.float64)
    batches = [
        (clear, torch.tensor([[1, 0, 1], [0, 1, 0]])),
        (between.expand(4, 3), torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])),
    ]
    together = MetricCollection({"low": metric(AUS), "high": metric(AUS, other)})
    alone = {"low": metric(AUS), "high": metric(AUS, other)}
    for probs, labels in batches:
        together.update(probs, labels)
        for one in alone.values():
            one.update(probs, labels)
    expected = {name: one.compute() for name, one in alone.items()}
    assert expected["low"] != expected["high"]
    assert together.compute() == expected


def test_a_collection_counts_once_for_metrics_of_the_same_counts() -> None:
    metrics = [AUF1(AUS), AUAccuracy(AUS), AUAUC(AUS)]
    together = MetricCollection(metrics, prefix="val/")
    for seed in range(3):
        batch = random_batch(20, 3, seed)
        together.update(*batch)
        for metric in metrics:
            metric.update(*batch)
    assert sorted(map(sorted, together.compute_groups.values())) == [
        ["AUAUC"],
        ["AUAccuracy", "AUF1"],
    ]
    expected = {f"val/{type(metric).__name__}": metric.compute() for metric in metrics}
    assert together.compute() == expected


def test_options_are_those_of_torchmetrics() -> None:
    batch = random_batch(20, 3)
    alone = AUScores(AUS, 0.7)
    twice = AUScores(
        AUS,
        0.7,
        dist_sync_fn=lambda state, group: [state, state],
        distributed_available_fn=lambda: True,
    )
    unsynced = AUScores(AUS, 0.7, sync_on_compute=False, compute_on_cpu=True)
    for metric in (alone, twice, unsynced):
        assert isinstance(metric, Metric)
        metric.update(*batch)
    table = alone.compute()
    assert unsynced.compute() == table
    doubled = twice.compute()
    for name in alone.aus.names:
        counts = {key: 2 * table[name][key] for key in ("positives", "known")}
        assert doubled[name] == table[name] | counts
    with pytest.raises(ValueError, match="nonsense"):
        AUF1(AUS, nonsense=1)


SHARES = (13, 0, 40)  # one process without a batch
AUS = (1, 2, 4)


def _score_share(rank: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=len(SHARES),
        timeout=timedelta(seconds=60),
    )
    probs, labels = random_batch(sum(SHARES), len(AUS))
    share = slice(sum(SHARES[:rank]), sum(SHARES[: rank + 1]))
    scores, auc = AUScores(AUS), AUAUC(AUS, average="none")
    if SHARES[rank]:
        for metric in (scores, auc):
            metric.update(probs[share], labels[share])
    torch.save((scores.compute(), auc.compute()), f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_processes_agree_with_one(tmp_path: Path) -> None:
    probs, labels = random_batch(sum(SHARES), len(AUS))
    torch.multiprocessing.start_processes(
        _score_share,
        args=(str(tmp_path / "rendezvous"), str(tmp_path)),
        nprocs=len(SHARES),
        start_method="fork",  # a fresh interpreter would spend half a minute on imports
    )
    expected, auc = AUScores(AUS), AUAUC(AUS, average="none")
    expected.update(probs, labels)
    auc.update(probs, labels)
    for rank in range(len(SHARES)):
        table, area = torch.load(tmp_path / f"{rank}.pt")
        assert table == expected.compute()
        assert torch.equal(area, auc.compute())


def test_lightning_logs_a_metric_over_all_batches(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    batches = [random_batch(20, 3, seed) for seed in range(3)]

    class Scored(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.f1 = AUF1(AUS)

        def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
            self.f1(*batch)
            self.log("f1", self.f1)

    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    module, whole = Scored(), AUF1(AUS)
    for batch in batches:
        whole.update(*batch)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    for _ in range(2):  # the second epoch starts from zero
        (logged,) = trainer.validate(module, loader, verbose=False)
        assert logged["f1"] == pytest.approx(whole.compute().item())

"""Agreement of intensities against numpy, and a published example."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torchmetrics")

from aurel.metrics import AUIntensityScores, icc_3_1, intensity_scores

# Shrout & Fleiss 1979, table 2: six targets, four judges.
JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def icc_oracle(x: np.ndarray) -> float:
    """Return ICC(3,1) from the sums of squares of the analysis of variance."""
    targets, raters = x.shape
    total = ((x - x.mean()) ** 2).sum()
    rows = raters * ((x.mean(1) - x.mean()) ** 2).sum()
    columns = targets * ((x.mean(0) - x.mean()) ** 2).sum()
    between = rows / (targets - 1)
    residual = (total - rows - columns) / ((targets - 1) * (raters - 1))
    return float((between - residual) / (between + (raters - 1) * residual))


def test_the_published_example() -> None:
    ratings = torch.tensor(JUDGES)
    assert icc_3_1(ratings).item() == pytest.approx(0.71, abs=0.005)
    assert icc_3_1(ratings).item() == pytest.approx(icc_oracle(np.array(JUDGES, float)), abs=1e-12)
    # Consistency: the offset of a judge changes nothing.
    moved = ratings + torch.tensor([0, 3, -1, 7])
    torch.testing.assert_close(icc_3_1(moved), icc_3_1(ratings))
    assert icc_3_1(torch.tensor([[0, 1], [1, 2], [5, 6]])).item() == pytest.approx(1)
    assert icc_3_1(torch.tensor([[0, 5], [5, 0]])).item() == pytest.approx(-1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 40))
def test_scores_are_their_definitions(seed: int, samples: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 6, (samples, 3), generator=generator)
    labels[:, 2] = -1
    labels[:3, :2] = torch.tensor([[0, 1], [5, 2], [3, 4]])
    predictions = 5 * torch.rand(samples, 3, generator=generator, dtype=torch.float64)
    scores = intensity_scores(predictions, labels)
    for column in (0, 1):
        known = labels[:, column] >= 0
        p, y = predictions[known, column].numpy(), labels[known, column].double().numpy()
        expected = {
            "icc": icc_oracle(np.stack([p, y], 1)),
            "pcc": np.corrcoef(p, y)[0, 1],
            "mse": ((p - y) ** 2).mean(),
            "mae": np.abs(p - y).mean(),
        }
        found = {name: values[column].item() for name, values in scores.items()}
        assert found == pytest.approx(expected, abs=1e-10)
    assert all(values[2].isnan() for values in scores.values())


def test_correlations_that_are_not_defined() -> None:
    constant, varied = torch.full((4, 1), 0.1), torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    scores = intensity_scores(constant, varied)
    assert scores["pcc"].isnan() and scores["icc"].item() == pytest.approx(0)
    scores = intensity_scores(constant, torch.full((4, 1), 3.0))
    assert scores["pcc"].isnan() and scores["icc"].isnan()
    assert scores["mae"].item() == pytest.approx(2.9)
    single = intensity_scores(torch.ones(1, 1), torch.ones(1, 1))
    assert single["icc"].isnan() and single["pcc"].isnan() and single["mse"] == 0


def test_the_table_over_batches() -> None:
    labels = torch.randint(-1, 6, (4, 5, 2))
    labels[0, 0] = -1
    predictions = 5 * torch.rand(4, 5, 2)
    metric = AUIntensityScores([6, 12])
    for part in range(4):
        metric.update(predictions[part], labels[part])
    table, whole = metric.compute(), intensity_scores(predictions, labels)
    assert list(table) == ["AU06", "AU12", "mean"]
    for column, name in enumerate(("AU06", "AU12")):
        row = {key: values[column].item() for key, values in whole.items()}
        row["known"] = (labels[..., column] >= 0).sum().item()
        row["positives"] = (labels[..., column] > 0).sum().item()
        assert table[name] == pytest.approx(row, abs=1e-6)
    assert math.isnan(AUIntensityScores([6]).compute()["AU06"]["mse"])


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"labels must be in \[0, 5\], or -1 .* got 6 at \(0, 1\)"):
        intensity_scores(torch.zeros(1, 2), torch.tensor([[0, 6]]))
    with pytest.raises(ValueError, match=r"shape \(\.\.\., N\), got \(1, 2\) and \(1, 3\)"):
        intensity_scores(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"ratings must have shape \(M, k >= 2\), got \(4, 1\)"):
        icc_3_1(torch.zeros(4, 1))

"""Smoothed probabilities: better than each AU by itself where AUs persist and go together."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from aurel.cli.main import main
from aurel.tables import AUTable
from aurel.tables.smoothing import Smoothing, divided, matched, smooth

PEOPLE, FRAMES = 6, 150
AUS = (6, 12, 4)


def study(persistence: float, noise: float = 2.0, seed: int = 0) -> tuple[AUTable, AUTable]:
    """Return scores and labels of three AUs; the first two go together."""
    rng = np.random.default_rng(seed)
    scores: dict[str, list[object]] = {"person": [], "frame": []}
    values, labels = [], []
    for person in range(PEOPLE):
        state = rng.integers(0, 2, 2)
        for frame in range(FRAMES):
            state = np.where(rng.random(2) < persistence, state, rng.integers(0, 2, 2))
            present = np.array([state[0], state[0], state[1]])
            present[1] ^= rng.random() < 0.1
            scores["person"].append(f"P{person}")
            scores["frame"].append(frame)
            labels.append(present)
            logits = 2 * (2 * present - 1) + noise * rng.normal(size=3)
            values.append(1 / (1 + np.exp(-logits)))
    table = {f"AU{au:02d}": [row[i] for row in values] for i, au in enumerate(AUS)}
    truth = {f"AU{au:02d}": [row[i] for row in labels] for i, au in enumerate(AUS)}
    return (
        AUTable.from_frame(scores | table, au_kind="probability"),
        AUTable.from_frame(scores | truth, au_kind="presence"),
    )


def auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    gaps = probabilities[labels == 1][:, None] - probabilities[labels == 0]
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


@pytest.fixture(scope="module")
def persistent() -> tuple[AUTable, AUTable, Smoothing]:
    table, labels = study(0.9)
    return table, labels, smooth(table, labels, folds=3)


def test_persistent_aus_are_predicted_better(
    persistent: tuple[AUTable, AUTable, Smoothing],
) -> None:
    table, labels, found = persistent
    gain, low, high = found.gain()
    assert 0.1 < low < gain < high
    for au in range(3):
        raw = auc(table.values[:, au], labels.labels[:, au])
        assert auc(found.probabilities[:, au], labels.labels[:, au]) > raw + 0.02
    assert found.probabilities.min() >= 0 and found.probabilities.max() <= 1
    # Calibrated: where the probability is high, the AU is present as often.
    sure = found.probabilities > 0.9
    assert labels.labels[sure].mean() > 0.85


def test_frames_that_do_not_depend_on_each_other_gain_by_couplings_alone() -> None:
    table, labels = study(0.0)
    found = smooth(table, labels, folds=3)
    gain, _, high = found.gain()
    assert found.temper == 1.0 and 0 < gain < high < 0.5


def test_rows_without_values_or_labels_are_inferred_from_the_others() -> None:
    table, labels = study(0.95)
    values = table.values.copy()
    gap = (table.frame >= 10) & (table.frame < 15)
    values[gap] = np.nan
    hidden = AUTable(**{**vars(table), "values": values})
    found = smooth(hidden, labels.take(labels.frame < 100), folds=2)
    assert np.isfinite(found.probabilities).all()
    assert found.frames.tolist() == [100] * PEOPLE
    assert auc(found.probabilities[gap].ravel(), labels.labels[gap].ravel()) > 0.7


def test_the_log_likelihood_of_each_au_by_itself_is_that_of_its_calibration() -> None:
    """With one AU and frames in no order of time there is nothing to gain."""
    table, labels = study(0.0)
    found = smooth(only(table, "AU04"), only(labels, "AU04"), folds=3)
    assert found.aus.names == ("AU04",)
    np.testing.assert_allclose(found.coupled, found.alone, rtol=0.05)


def only(table: AUTable, name: str) -> AUTable:
    column = [table.aus.names.index(name)]
    parts = {key: getattr(table, key)[:, column] for key in ("values", "labels")}
    return AUTable(**{**vars(table), **parts, "aus": type(table.aus).of([name])})


def test_labels_are_matched_by_person_and_frame() -> None:
    table, labels = study(0.5)
    shuffled = labels.take(np.random.default_rng(0).permutation(len(labels)))
    expected = labels.labels.copy()
    np.testing.assert_array_equal(matched(table, shuffled, table.aus.names), expected)
    few = labels.take(labels.frame == 3)
    found = matched(table, few, ["AU12"])
    assert (found >= 0).sum() == PEOPLE


def test_people_are_divided_into_parts_of_about_equal_size() -> None:
    parts = divided([f"P{i}" for i in range(7)], 3, 0)
    assert sorted(map(len, parts)) == [2, 2, 3]
    assert sorted(name for part in parts for name in part) == [f"P{i}" for i in range(7)]


def test_tables_that_do_not_fit_are_named() -> None:
    table, labels = study(0.5)
    with pytest.raises(ValueError, match="labels must have an AU of the table, got none"):
        smooth(only(table, "AU04"), only(labels, "AU12"))
    other = AUTable(**{**vars(labels), "person": np.char.add(labels.person, "x")})
    with pytest.raises(ValueError, match="got people P0x, P1x, P2x, ... there and P0, P1, P2"):
        smooth(table, other)
    with pytest.raises(ValueError, match="labels must be of at least 2 people of the table"):
        smooth(table, labels.take(labels.person == "P1"))


def write(table: AUTable, path: Path, values: np.ndarray) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["person", "frame", *table.aus.names])
        for person, frame, row in zip(table.person, table.frame, values, strict=True):
            writer.writerow([person, frame, *row])


def test_the_command_writes_probabilities_and_prints_the_gain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, labels = study(0.9)
    write(table, tmp_path / "scores.csv", table.values)
    write(labels, tmp_path / "coded.csv", labels.labels)
    command = ["relations", "smooth", str(tmp_path / "scores.csv"), "--kind", "probability"]
    command += ["--labels", str(tmp_path / "coded.csv"), "--out", str(tmp_path / "out.csv")]
    assert main(command) == 0
    said = capsys.readouterr().out
    gain = float(re.search(r"people: ([+-][\d.]+) nats", said)[1])  # type: ignore[index]
    assert gain > 0.1 and "labels of 900 frames of 6 people" in said
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="")))
    assert len(rows) == PEOPLE * FRAMES and 0 <= float(rows[5]["AU12"]) <= 1
    for wrong in (command[:3] + command[-2:], [*command[:-1], str(tmp_path / "folder")]):
        assert main(wrong) == 2
    assert main(["relations", str(tmp_path / "scores.csv"), *command[5:]]) == 2
    assert "--labels must be left out" in capsys.readouterr().err

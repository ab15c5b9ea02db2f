"""Scores that papers report, for tables beside which those of a run can be put."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurel.facs import AUSet

FILE = Path(__file__).resolve().parents[1] / "recipes" / "reported.toml"


@dataclass(frozen=True)
class Reported:
    """One row of a table of a paper; none of these values was measured with this library.

    Args:
        model: registered name of the model.
        dataset: registered name of the data set.
        paper: the paper, as "SACL, Liu et al. 2024".
        metric: "f1", "accuracy" or "auc".
        mean: over the AUs as printed, percent.
        values: of each AU, percent, by its name, such as "AU01"; empty where only the mean is
            known.
        backbone: the beginning of the backbone's name; "" for any.
        note: what differs from the main result of the paper.
    """

    model: str
    dataset: str
    paper: str
    metric: str
    mean: float
    values: dict[str, float]
    backbone: str = ""
    note: str = ""


def reported_rows(path: Path = FILE) -> list[Reported]:
    """Return all rows of a file of reported scores.

    Raises:
        ValueError: a row whose numbers of AUs and values differ.
    """
    with path.open("rb") as file:
        return [_row(entry, path) for entry in tomllib.load(file)["row"]]


def reported_for(
    model: str, dataset: str, metric: str, backbone: str | None, aus: Sequence[str]
) -> list[Reported]:
    """Return the rows for a model on a data set.

    Args:
        model: registered name of the model.
        dataset: registered name of the data set.
        metric: name of the score.
        backbone: the backbone of the run; of rows of a model with several backbones those of this
            one are taken, and all where there are none.
        aus: the AUs of the run, in order; rows of other AUs are left out.
    """
    rows = [
        row
        for row in reported_rows()
        if (row.model, row.dataset, row.metric) == (model, dataset, metric)
        and (not row.values or list(row.values) == list(aus))
    ]
    own = [row for row in rows if row.backbone and (backbone or "").startswith(row.backbone)]
    return own or rows


def _row(entry: dict[str, Any], path: Path) -> Reported:
    aus, values = entry.pop("aus", []), entry.pop("values", [])
    if len(aus) != len(values):
        raise ValueError(f"{path} must have a value for each AU, got {len(values)} for {len(aus)}")
    names = AUSet.of(aus).names if aus else ()
    return Reported(values=dict(zip(names, values, strict=True)), **entry)

"""Tables of the results of many runs: means and spreads over folds and seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aurel.data import dataset_info
from aurel.training.recipe_text import PART, PLACE, differences
from aurel.training.reported import reported_for
from aurel.training.results import NAME, read_results

Kind = Literal["run", "mean", "std", "reported"]
Scores = Mapping[str, Mapping[str, float | None]]
METRICS: Mapping[str, str] = {
    "f1": "F1",
    "accuracy": "accuracy",
    "auc": "AUC",
    "ece": "ECE",
    "icc": "ICC(3,1)",
    "pcc": "PCC",
    "mse": "MSE",
    "mae": "MAE",
}
"""The scores of a table, with their names in a title."""
OF_INTENSITIES = ("icc", "pcc", "mse", "mae")
"""Scores that are printed as they are, the others in percent."""
_AT_THRESHOLD = ("f1", "accuracy")


@dataclass(frozen=True)
class Source:
    """The results in a folder: of the folds and seeds of one recipe.

    Args:
        label: name of the folder.
        runs: contents of the result files, ordered by fold and seed.
    """

    label: str
    runs: tuple[dict[str, Any], ...]

    def __getitem__(self, key: str) -> Any:
        return self.runs[0][key]


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Args:
        label: the first cell.
        values: of each AU and then their mean, in percent but for the scores of intensities; NaN
            where there is none.
        kind: "run" for one fold and seed, "mean" and "std" over them, or "reported" by a paper.
    """

    label: str
    values: tuple[float, ...]
    kind: Kind


@dataclass(frozen=True)
class ResultTable:
    """A table in the layout of the papers: AUs as columns, and their mean.

    Args:
        title: data set and score.
        aus: names of the AUs.
        lines: the rows.
        notes: sentences below the table.
        digits: decimals of the values.
    """

    title: str
    aus: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    digits: int = 1


def collect(path: Path) -> Source:
    """Return the results below a folder, or in one result file.

    Raises:
        FileNotFoundError: no such file, or no result file below the folder.
        ValueError: the folder holds results of different recipes or protocols, or of different
            test data of a fold.
    """
    files = sorted(path.rglob(NAME)) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path} holds no {NAME}; `aurel test` writes it")
    found = [(read_results(file), file) for file in files]
    found.sort(key=lambda pair: (pair[0]["fold"] or 0, pair[0]["seed"] or 0))
    first, first_file = found[0]
    tested: dict[Any, Any] = {}
    seen: dict[tuple[Any, Any], Path] = {}
    for content, file in found:
        _check_alike(first, content, f"{path} must hold results of one recipe", first_file, file)
        checksum = content.get("test_checksum")
        if tested.setdefault(content["fold"], checksum) != checksum:
            raise ValueError(
                f"{path} must hold results on one split, got other test people or labels of fold "
                f"{content['fold']} in {file}"
            )
        key = (content["fold"], content["seed"])
        if key in seen:
            raise ValueError(f"{path} must hold a result once, got {seen[key]} and {file}")
        seen[key] = file
    label = path.resolve().name if path.is_dir() else path.resolve().parent.name
    return Source(label, tuple(content for content, _ in found))


def compare(sources: Sequence[Source], metric: str = "f1", each: bool = False) -> list[ResultTable]:
    """Return a table for each data set with its AUs.

    The mean is over all runs of a source. The spread is the standard deviation (of a sample) of the
    seeds' means over folds where there are several seeds, and else of the folds.

    Args:
        sources: from `collect`.
        metric: a key of `METRICS`.
        each: add a row for each run.

    Raises:
        ValueError: a result without this score.
    """
    tables: dict[tuple[str, tuple[str, ...]], list[Source]] = {}
    for source in sources:
        tables.setdefault((source["dataset"], tuple(source["aus"])), []).append(source)
    return [_table(dataset, aus, group, metric, each) for (dataset, aus), group in tables.items()]


def _table(
    dataset: str, aus: tuple[str, ...], sources: Sequence[Source], metric: str, each: bool
) -> ResultTable:
    lines: list[Line] = []
    notes: list[str] = []
    for source in sources:
        mark = "*" if _differs(source, sources[0]) else ""
        lines += _lines(source, aus, metric, "scores", each, mark)
        if metric in _AT_THRESHOLD and all("tuned_scores" in run for run in source.runs):
            lines += _lines(source, aus, metric, "tuned_scores", each, f", tuned thresholds{mark}")
        elif metric in _AT_THRESHOLD:
            notes.append(f"{source.label}: {_why_not_tuned(source)}")
        notes.append(f"{source.label}: {_about(source)}")
        if mark:
            notes.append(
                f"* people or labels of a fold differ from those of {sources[0].label}, in the "
                "training or the test part"
            )
    protocols = {str(source["protocol"]) for source in sources}
    if len(protocols) > 1:
        notes.append(f"the rows are of different protocols: {', '.join(sorted(protocols))}")
    reported = _reported(sources, aus, metric)
    if reported:
        notes.append("reported: by the papers, not measured here")
    raw = metric in OF_INTENSITIES
    title = f"{dataset}, {METRICS[metric]}" + ("" if raw else " in percent")
    lines += reported
    return ResultTable(title, aus, tuple(lines), tuple(dict.fromkeys(notes)), 2 if raw else 1)


def _lines(
    source: Source, aus: tuple[str, ...], metric: str, scores: str, each: bool, suffix: str
) -> list[Line]:
    rows = [_values(run[scores], aus, metric, source.label) for run in source.runs]
    names = [_part(run) for run in source.runs]
    runs = [
        Line(f"{source.label}, {name}{suffix}", row, "run")
        for name, row in zip(names, rows, strict=True)
    ]
    if len(rows) == 1:
        return runs
    mean = Line(f"{source.label}{suffix}", _mean(rows), "mean")
    spread = Line("    std", _spread(source, rows), "std")
    return [*(runs if each else []), mean, spread]


def _values(scores: Scores, aus: tuple[str, ...], metric: str, label: str) -> tuple[float, ...]:
    if any(metric not in scores.get(name, {}) for name in (*aus, "mean")):
        raise ValueError(f"metric must be a score of the AUs of {label}, got {metric!r}")
    numbers = [scores[name][metric] for name in (*aus, "mean")]
    factor = 1 if metric in OF_INTENSITIES else 100
    return tuple(math.nan if number is None else factor * number for number in numbers)


def _columns(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the values of each column that are defined."""
    columns = zip(*rows, strict=True)
    return [[value for value in column if not math.isnan(value)] for column in columns]


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(statistics.fmean(c) if c else math.nan for c in _columns(rows))


def _spread(source: Source, rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    by_seed: dict[Any, list[tuple[float, ...]]] = {}
    for run, row in zip(source.runs, rows, strict=True):
        by_seed.setdefault(run["seed"], []).append(row)
    if len(by_seed) > 1:
        rows = [_mean(own) for own in by_seed.values()]
    return tuple(statistics.stdev(c) if len(c) > 1 else math.nan for c in _columns(rows))


def _about(source: Source) -> str:
    """Return the folds, seeds, protocol and choice of the epoch of a source."""
    folds = sorted({run["fold"] for run in source.runs if run["fold"] is not None})
    seeds = sorted({run["seed"] for run in source.runs if run["seed"] is not None})
    parts = []
    if folds:
        total = dataset_info(source["dataset"], source["aus"]).folds
        of = f" of {total}" if total and len(folds) < total else ""
        parts.append(f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}{of}")
    if seeds:
        parts.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    if len(source.runs) > 1:
        over = f"{len(seeds)} seeds" if len(seeds) > 1 else f"{len(source.runs)} folds"
        parts.append(f"std over {over}")
    parts.append(f"protocol {source['protocol'] or 'of the recipe'}")
    parts.append(source.runs[0].get("selection", f"epoch chosen on {source['select_on']}"))
    if source["select_on"] == "test":
        parts.append("its scores are too high for new people")
    first = source.runs[0]
    ignored = PLACE | PART | {"data.dataset"}
    if changed := differences(first.get("recipe", "{}"), _tested_with(first), ignored):
        parts.append(f"tested with another {', '.join(changed)}")
    if source.runs[0].get("trained_on", {}).get("dataset") != source["dataset"]:
        parts.append(f"trained on {source.runs[0]['trained_on']['dataset']}")
    return "; ".join(parts)


def _why_not_tuned(source: Source) -> str:
    if any("tuned_scores" in run for run in source.runs):
        return "thresholds were tuned in some runs only, so no tuned row"
    people = source.runs[0].get("people", {})
    if not people.get("validation"):
        return "no tuned thresholds, since its protocol has no validation people"
    return "thresholds not tuned (`aurel test --tune`)"


def _reported(sources: Sequence[Source], aus: tuple[str, ...], metric: str) -> list[Line]:
    lines = []
    for source in sources:
        if "icc" in source["scores"]["mean"]:  # present is any intensity, in papers from 2
            continue
        rows = reported_for(
            source["model"], source["dataset"], metric, source.runs[0].get("backbone"), aus
        )
        for row in rows:
            extra = ", ".join(part for part in (row.backbone, row.note) if part)
            label = f"reported: {row.paper}" + (f" ({extra})" if extra else "")
            values = [row.values.get(name, math.nan) for name in aus]
            lines.append(Line(label, (*values, row.mean), "reported"))
    return list(dict.fromkeys(lines))


def _part(run: Mapping[str, Any]) -> str:
    parts = [f"{key} {run[key]}" for key in ("fold", "seed") if run[key] is not None]
    return ", ".join(parts) or "one split"


def _tested_with(run: Mapping[str, Any]) -> str:
    """Return the recipe of a test, which is that of the run unless options of the test differ."""
    return str(run.get("tested_with", run.get("recipe", "{}")))


def _differs(source: Source, other: Source) -> bool:
    """Return whether the data of two sources differ in a fold, or a run, that both have."""

    def data(source: Source) -> dict[Any, Any]:
        tested = {run["fold"]: run.get("test_checksum") for run in source.runs}
        whole = {
            (run["fold"], run["seed"], run["protocol"], run["select_on"]): run.get("split_checksum")
            for run in source.runs
        }
        return {**tested, **whole}

    own, others = data(source), data(other)
    return any(own[key] != others[key] for key in own.keys() & others.keys())


def _check_alike(
    first: Mapping[str, Any], content: Mapping[str, Any], must: str, first_file: Path, file: Path
) -> None:
    for key in ("model", "dataset", "aus", "protocol", "select_on"):
        if content[key] != first[key]:
            raise ValueError(
                f"{must}, got {key} {first[key]} in {first_file} and {content[key]} in {file}"
            )
    changed = differences(_tested_with(first), _tested_with(content), PLACE | PART)
    if changed:
        raise ValueError(f"{must}, got another {', '.join(changed)} in {file} than in {first_file}")

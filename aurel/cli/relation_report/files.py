"""All statistics of `aurel relations` as CSV files and as a graph."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from aurel.files import atomic_path
from aurel.tables.comparison import Comparison, Difference
from aurel.tables.relations import Relations, Tested, Timing

try:
    import networkx
except ImportError as error:
    raise ImportError("aurel relations needs networkx: pip install 'aurel-au[viz]'") from error


def _columns(name: str) -> tuple[str, ...]:
    return (name, f"{name}_low", f"{name}_high", f"{name}_p", f"{name}_q")


_PAIR_COLUMNS = (
    *("au", "other_au", "frames", "both", "share_both", "share_expected", "effective_frames"),
    *_columns("phi"),
    *("p_other_given_au", "p_other_given_au_low", "p_other_given_au_high"),
    *("p_au_given_other", "p_au_given_other_low", "p_au_given_other_high"),
    *_columns("coupling"),
)


def write_files(found: Relations, folder: Path) -> None:
    """Write the CSV files and the GraphML file of a report into a folder."""
    aus = found.table.aus
    pairs = list(combinations(range(len(aus)), 2))
    write_csv(
        folder / "files.csv",
        ("file", "tool", "kind", "threshold", "rows", "failed", "low_confidence", "no_face")
        + ("notes",),
        (
            (a.source, a.tool, a.kind, a.threshold, a.rows, a.failed, a.unsure, a.empty)
            + ("; ".join(a.notes),)
            for a in found.table.accounts
        ),
    )
    rates = found.rates
    write_csv(
        folder / "rates.csv",
        ("au", "name", "rate", "low", "high"),
        zip(aus.names, aus.titles, rates.value, rates.low, rates.high, strict=True),
    )
    write_csv(folder / "pairs.csv", _PAIR_COLUMNS, (_pair(found, i, j) for i, j in pairs))
    write_csv(
        folder / "patterns.csv",
        ("aus", "observed", "expected", *_columns("ratio")),
        (
            ("+".join(aus.names[au] for au in own), *found.pattern_shares[p].tolist())
            + _tested(found.pattern_ratio, p)
            for p, own in enumerate(found.patterns)
        ),
    )
    if found.timing is not None:
        _write_timing(found.timing, aus.names, folder)
    for comparison in found.comparisons:
        _write_comparison(comparison, aus.names, pairs, folder)
    write_graph(found, folder / "relations.graphml")


def _pair(found: Relations, i: int, j: int) -> tuple[Any, ...]:
    names, given = found.table.aus.names, found.conditional
    return (
        *(names[i], names[j], found.counts.known[i, j], found.counts.both[i, j]),
        *(found.observed[i, j], found.expected[i, j], found.effective[i, j]),
        *_tested(found.phi, i, j),
        *(given.value[i, j], given.low[i, j], given.high[i, j]),
        *(given.value[j, i], given.low[j, i], given.high[j, i]),
        *_tested(found.couplings, i, j),
    )


def _tested(found: Tested | Difference, *place: int) -> tuple[float, ...]:
    own = found.estimate
    return tuple(float(part[place]) for part in (own.value, own.low, own.high, own.p, found.q))


def _write_timing(timing: Timing, names: Sequence[str], folder: Path) -> None:
    write_csv(
        folder / "lagged.csv",
        (
            "au",
            "later_au",
            "lag",
            *_columns("phi"),
            *_columns("lead"),
            *_columns("after_start"),
        ),
        (
            (names[i], names[j], timing.lag)
            + _tested(timing.phi, i, j)
            + _tested(timing.lead, i, j)
            + _tested(timing.after_onset, i, j)
            for i, j in permutations(range(len(names)), 2)
        ),
    )
    write_csv(
        folder / "starts.csv",
        ("au", "other_au", "pairs_of_starts", "mean_delay", *_columns("share_first")),
        (
            (names[i], names[j], timing.starts[i, j], timing.delay[i, j])
            + _tested(timing.first, i, j)
            for i, j in combinations(range(len(names)), 2)
        ),
    )


def _write_comparison(
    comparison: Comparison, names: Sequence[str], pairs: Sequence[tuple[int, int]], folder: Path
) -> None:
    first, second = comparison.first, comparison.second
    label = "".join(c if c.isalnum() else "_" for c in f"{first}_{second}")
    columns = (f"in {first}", f"in {second}", *_columns("difference"))
    rates, phi = comparison.rates, comparison.phi
    write_csv(
        folder / f"compare_{label}_rates.csv",
        ("au", *columns),
        (
            (name, rates.first[au], rates.second[au], *_tested(rates, au))
            for au, name in enumerate(names)
        ),
    )
    write_csv(
        folder / f"compare_{label}_pairs.csv",
        ("au", "other_au", *columns),
        (
            (names[i], names[j], phi.first[i, j], phi.second[i, j], *_tested(phi, i, j))
            for i, j in pairs
        ),
    )


def write_graph(found: Relations, path: Path) -> None:
    """Write the correlations that survive as an undirected graph in GraphML."""
    aus = found.table.aus
    graph = networkx.Graph()
    for au, name in enumerate(aus.names):
        values = {"title": aus.titles[au], "rate": float(found.rates.value[au])}
        graph.add_node(name, region=aus.regions()[au], **_finite(values))
    survives, couplings = found.phi.survives(1 - found.level), found.couplings
    for i, j in combinations(range(len(aus)), 2):
        if survives[i, j]:
            own = dict(zip(("phi", "low", "high", "p", "q"), _tested(found.phi, i, j), strict=True))
            own["coupling"] = float(couplings.estimate.value[i, j])
            own["coupling_q"] = float(couplings.q[i, j])
            own["weight"] = own["phi"]
            graph.add_edge(aus.names[i], aus.names[j], **_finite(own))
    with atomic_path(path) as temporary:
        networkx.write_graphml(graph, temporary)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if not isinstance(v, float) or math.isfinite(v)}


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; numbers with six digits, nothing where there is no number."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([_text(cell) for cell in row])


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.6g}" if math.isfinite(cell) else ""
    return str(cell)

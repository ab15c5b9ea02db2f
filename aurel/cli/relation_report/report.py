"""The report of `aurel relations` in words, tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aurel.cli.relation_report.document import Block, Bullets, Heading, Paragraph, Picture, Table
from aurel.cli.relation_report.document import to_html as html_of
from aurel.cli.relation_report.document import to_markdown as markdown_of
from aurel.cli.relation_report.limits import limits
from aurel.cli.relation_report.timing import timing_section
from aurel.cli.relation_report.words import (
    by_strength,
    certainty,
    counted,
    interval,
    number,
    percent,
    q_text,
    surviving,
)
from aurel.files import atomic_path
from aurel.tables.comparison import Comparison
from aurel.tables.relations import FEWEST_TOGETHER, Relations
from aurel.viz.adjacency import draw_adjacency
from aurel.viz.face_graph import draw_face_graph

_MOST_ROWS = 40
_MOST_FILES = 20


def write_report(found: Relations, folder: Path, form: str) -> Path:
    """Write the pictures and report.html or report.md ("md") into a folder; return its path."""
    title = "Relations between action units"
    blocks = [
        *_summary(found),
        *_what_was_read(found),
        *_rates(found),
        *_pairs(found, folder),
        *_couplings(found, folder),
        *timing_section(found, folder),
        *_patterns(found),
        *(block for one in found.comparisons for block in _comparison(found, one, folder)),
        *limits(found),
    ]
    path = folder / f"report.{form}"
    text = html_of(title, blocks, folder) if form == "html" else markdown_of(title, blocks)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _summary(found: Relations) -> list[Block]:
    table, units = found.table, found.units
    people = len(np.unique(table.person))
    known = int((table.labels >= 0).any(1).sum())
    unit = f"{people} people" if not units.block else f"{units.sample_size} blocks of time"
    items = [
        f"{counted(people, 'person', 'people')}, {known:,} frames with a known AU, "
        f"{len(table.aus)} AUs.",
        "Frames that follow each other are alike. For the relation of two AUs the frames are "
        f"worth about {number(found.effective_frames, 0)} independent ones (median over pairs).",
        f"All intervals are {percent(found.level)} intervals from resampling {unit}.",
    ]
    if units.block:
        items.append(
            "There are fewer than six people. The intervals say how much these people vary in "
            "time; "
            "they say nothing about other people."
        )
    pairs = np.isfinite(found.phi.estimate.p)[np.triu_indices(len(table.aus), 1)]
    survivors = surviving(found.phi, found.level)
    items.append(
        f"Of {counted(len(pairs), 'pair')} of AUs {pairs.sum()} could be tested and "
        f"{survivors.sum() // 2} survive the control of false discoveries "
        f"({percent(1 - found.level)} of those reported are expected to be false)."
    )
    strongest = by_strength(found.phi, survivors)[:5]
    if strongest:
        words = [
            f"{table.aus.names[i]} and {table.aus.names[j]} {interval(found.phi.estimate, (i, j))}"
            for i, j in strongest
        ]
        items.append(f"The strongest correlations: {'; '.join(words)}.")
    return [Heading("In short"), Bullets(items)]


def _what_was_read(found: Relations) -> list[Block]:
    accounts = found.table.accounts
    columns = ("file", "tool", "values", "present from", "rows", "failed", "low confidence")
    rows = [
        (Path(a.source).name, a.tool, a.kind, f"{a.threshold:g}", f"{a.rows:,}")
        + (f"{a.failed:,}", f"{a.unsure:,}", f"{a.empty:,}")
        for a in accounts[:_MOST_FILES]
    ]
    blocks: list[Block] = [
        Heading("What was read, and what was left out"),
        Paragraph(
            "A row in which the tool failed, in which the face is of low confidence or in which no "
            "face was found is unknown: it counts neither as presence nor as absence of an AU."
        ),
        Table((*columns, "no face"), rows),
    ]
    if len(accounts) > _MOST_FILES:
        total = [
            sum(getattr(a, n) for a in accounts) for n in ("rows", "failed", "unsure", "empty")
        ]
        blocks.append(
            Paragraph(
                f"These are {_MOST_FILES} of {len(accounts)} files; files.csv lists all. In total: "
                f"{total[0]:,} rows, {total[1]:,} failed, {total[2]:,} of low confidence, "
                f"{total[3]:,} without a face."
            )
        )
    notes: dict[str, list[str]] = {}
    for account in accounts:
        for note in account.notes:
            notes.setdefault(note, []).append(Path(account.source).name)
    if notes:
        blocks.append(Bullets([f"{note} ({_listed(names)})" for note, names in notes.items()]))
    return blocks


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more files"


def _rates(found: Relations) -> list[Block]:
    aus, rates = found.table.aus, found.rates
    remarks = {0.0: "never present", 1.0: "always present"}
    rows = [
        (name, title, percent(float(rates.value[au])))
        + (interval(rates, (au,), as_percent=True, value=False),)
        + (remarks.get(float(rates.value[au]), "" if rates.value[au] >= 0 else "unknown"),)
        for au, (name, title) in enumerate(zip(aus.names, aus.titles, strict=True))
    ]
    return [
        Heading("How common each AU is"),
        Table(("AU", "name", "frames with it", "interval", ""), rows),
    ]


def _pairs(found: Relations, folder: Path) -> list[Block]:
    aus, phi, given = found.table.aus, found.phi.estimate, found.conditional
    survivors = surviving(found.phi, found.level)
    _face(found.phi.estimate.value, survivors, found, folder / "together.png", "phi")
    unchanging = _draw_matrix(found, folder / "matrix.png")
    rows = [
        (aus.names[i], aus.names[j], interval(phi, (i, j)))
        + (percent(float(found.observed[i, j])), percent(float(found.expected[i, j])))
        + (percent(float(given.value[i, j])), percent(float(given.value[j, i])))
        + (q_text(found.phi.q[i, j]),)
        for i, j in by_strength(found.phi, survivors)
    ]
    untested = int((~np.isfinite(phi.p))[np.triu_indices(len(aus), 1)].sum())
    blocks: list[Block] = [
        Heading("AUs that occur together"),
        Paragraph(
            "The correlation phi of two AUs is 1 where they are always present and absent "
            "together, "
            "0 where they are independent, and negative where one is rarer beside the other. "
            "The picture and the table show the pairs that survive; pairs.csv has all."
        ),
        Picture(
            "together.png",
            "Correlations that survive. Blue: together; orange: apart. Fainter lines have wider "
            "intervals. An AU with a dashed outline never changes, so nothing is known of it.",
        ),
        Table(
            ("AU", "other", "phi (interval)", "frames with both", "if independent")
            + ("other given AU", "AU given other", "q"),
            rows[:_MOST_ROWS],
        )
        if rows
        else Paragraph("No pair survives."),
    ]
    if len(rows) > _MOST_ROWS:
        blocks.append(Paragraph(f"{len(rows) - _MOST_ROWS} more are in pairs.csv."))
    if untested:
        blocks.append(
            Paragraph(
                f"{counted(untested, 'pair')} could not be tested: an AU never changes, or fewer "
                f"than {FEWEST_TOGETHER} effective frames show both AUs or would by chance."
            )
        )
    return [
        *blocks,
        Picture("matrix.png", f"All correlations, tested or not. {unchanging}"),
    ]


def _draw_matrix(found: Relations, path: Path) -> str:
    """Draw the correlations of the AUs that change; return which do not."""
    names = np.array(found.table.aus.names)
    changing = np.isfinite(np.diagonal(found.phi.estimate.value))
    values = found.phi.estimate.value[np.ix_(changing, changing)].copy()
    np.fill_diagonal(values, np.nan)
    draw_adjacency(values, names[changing].tolist(), path, weight="phi")
    left_out = ", ".join(names[~changing].tolist())
    return f"Left out, as they never change: {left_out}." if left_out else ""


def _couplings(found: Relations, folder: Path) -> list[Block]:
    aus, couplings = found.table.aus, found.couplings
    survivors = surviving(couplings, found.level)
    _face(couplings.estimate.value, survivors, found, folder / "couplings.png", "J")
    phi = found.phi.estimate.value
    rows = [
        (aus.names[i], aus.names[j], interval(couplings.estimate, (i, j)), number(phi[i, j]))
        + (number(float(np.exp(couplings.estimate.value[i, j])), 1), q_text(couplings.q[i, j]))
        for i, j in by_strength(couplings, survivors)[:_MOST_ROWS]
    ]
    return [
        Heading("Which of these relations are direct"),
        Paragraph(
            "Two AUs may occur together only because a third one joins both. The coupling J of a "
            "pair is what is left when all other AUs are held fixed: with J the odds of one AU "
            "are exp(J) times as high where the other is present. "
            f"It is estimated from the {found.complete:,} frames in which every AU is known."
        ),
        Picture("couplings.png", "Couplings that survive. Blue: together; orange: apart."),
        Table(("AU", "other", "J (interval)", "phi", "odds times", "q"), rows)
        if rows
        else Paragraph("No coupling survives."),
    ]


def _face(
    values: NDArray[np.float64],
    survivors: NDArray[np.bool_],
    found: Relations,
    path: Path,
    weight: str,
) -> None:
    """Draw what survives; an AU that never changes has no weight at all."""
    varies = np.isfinite(found.rates.value) & (found.rates.value > 0) & (found.rates.value < 1)
    shown = np.where(survivors, values, 0.0)
    shown[~varies] = np.nan
    shown[:, ~varies] = np.nan
    estimate = found.couplings.estimate if weight == "J" else found.phi.estimate
    draw_face_graph(shown, found.table.aus.names, path, weight=weight, opacity=certainty(estimate))


def _patterns(found: Relations) -> list[Block]:
    names, ratio = found.table.aus.names, found.pattern_ratio
    rows = []
    for place, pattern in enumerate(found.patterns):
        observed, expected = found.pattern_shares[place]
        if observed > 0:
            rows.append(
                ("+".join(str(int(names[au][2:4])) for au in pattern), percent(float(observed)))
                + (percent(float(expected)), interval(ratio.estimate, (place,)))
                + (q_text(ratio.q[place]),)
            )
    if not rows:
        return []
    return [
        Heading("Combinations"),
        Paragraph(
            "How often all AUs of a combination are present at once (others may be, too), and how "
            "often that would be if AUs were independent. A ratio above 1 is more often than that."
        ),
        Table(("AUs", "frames", "if independent", "ratio (interval)", "q"), rows),
    ]


def _comparison(found: Relations, comparison: Comparison, folder: Path) -> list[Block]:
    aus, first, second = found.table.aus, comparison.first, comparison.second
    rates, phi = comparison.rates, comparison.phi
    columns = (first, second, "difference (interval)", "q")
    rows = [
        (name, percent(float(rates.first[au])), percent(float(rates.second[au])))
        + (interval(rates.estimate, (au,), as_percent=True), q_text(rates.q[au]))
        for au, name in enumerate(aus.names)
        if rates.first[au] > 0 or rates.second[au] > 0
    ]
    changed = np.nan_to_num(phi.q, nan=1.0) <= 1 - found.level
    pairs = [
        (aus.names[i], aus.names[j], number(phi.first[i, j]), number(phi.second[i, j]))
        + (interval(phi.estimate, (i, j)), q_text(phi.q[i, j]))
        for i, j in np.argwhere(np.triu(changed, 1)).tolist()
    ]
    within = (
        f"{comparison.paired} people are seen under both conditions and {comparison.unpaired} "
        "under one; people under both are compared with themselves."
        if not found.units.block
        else "Blocks of time are shuffled within each person."
    )
    return [
        Heading(f"{first} and {second} compared"),
        Paragraph(
            "p is that of a permutation test: how often conditions that are assigned at random "
            f"differ as much; q is p after the control of false discoveries. {within}"
        ),
        Table(("AU", *columns), rows),
        Paragraph(
            f"Correlations that differ between the conditions ({len(pairs)} of "
            f"{int(np.isfinite(np.triu(phi.q, 1)).sum() - len(aus) * (len(aus) + 1) // 2)} tested):"
            if pairs
            else "No correlation of two AUs differs beyond chance."
        ),
        *(
            [Table(("AU", "other", first, second, "difference (interval)", "q"), pairs)]
            * bool(pairs)
        ),
    ]

"""The part of the report of `aurel relations` that is about time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aurel.cli.relation_report.document import Block, Heading, Paragraph, Picture, Table
from aurel.cli.relation_report.words import (
    by_strength,
    certainty,
    interval,
    number,
    q_text,
    surviving,
)
from aurel.tables.relations import Relations, Timing
from aurel.viz.face_graph import draw_face_graph

_MOST_ROWS = 25


def timing_section(found: Relations, folder: Path) -> list[Block]:
    """Return which AU follows and which starts first; draw following.png into a folder."""
    heading = Heading("Relations in time")
    if found.timing is None:
        return [
            heading,
            Paragraph(
                "Not computed: the tables have no times (give --fps), or no recording is as long "
                "as the lag (--lag)."
            ),
        ]
    return [heading, *_following(found, found.timing, folder), *_first(found, found.timing)]


def _following(found: Relations, timing: Timing, folder: Path) -> list[Block]:
    names, after, lag = found.table.aus.names, timing.after_onset, f"{timing.lag:g} s"
    survivors = surviving(after, found.level)
    varies = (found.rates.value > 0) & (found.rates.value < 1)
    # Row i of a picture is the AU that the arrow points at.
    shown = np.where(survivors, after.estimate.value, 0.0).T.copy()
    shown[~varies] = shown[:, ~varies] = np.nan
    draw_face_graph(
        shown, names, folder / "following.png", weight="change", opacity=certainty(after.estimate).T
    )
    rows = [
        (names[i], names[j], interval(after.estimate, (i, j), as_percent=True))
        + (interval(timing.phi.estimate, (i, j)), q_text(after.q[i, j]))
        for i, j in by_strength(after, survivors, directed=True)[:_MOST_ROWS]
    ]
    lead = surviving(timing.lead, found.level)
    leads = [
        (names[i], names[j], interval(timing.lead.estimate, (i, j)), q_text(timing.lead.q[i, j]))
        for i, j in by_strength(timing.lead, lead & (timing.lead.estimate.value > 0), directed=True)
    ]
    blocks: list[Block] = [
        Paragraph(
            f"When an AU starts, how much more often is another one present {lag} later than at "
            "any other time? AUs that are active together also follow each other; the second table "
            "therefore compares both directions."
        ),
        Picture(
            "following.png",
            f"Changes of the rate {lag} after a start that survive. An arrow points at the AU that "
            "is more (blue) or less (orange) often present.",
        ),
        Table(("when it starts", "this AU", "changes by (interval)", "lagged phi", "q"), rows)
        if rows
        else Paragraph("No change survives."),
        Paragraph(
            f"AUs of which one follows the other more than the reverse (difference of the "
            f"correlations at a lag of {lag}):"
            if leads
            else "For no pair is one direction stronger than the other beyond chance."
        ),
    ]
    if leads:
        blocks.append(Table(("earlier", "later", "difference (interval)", "q"), leads[:_MOST_ROWS]))
    return blocks


def _first(found: Relations, timing: Timing) -> list[Block]:
    names, first = found.table.aus.names, timing.first
    ahead = surviving(first, found.level) & (first.estimate.value > 0.5)
    rows = [
        (names[i], names[j], f"{timing.starts[i, j]:.0f}")
        + (interval(first.estimate, (i, j), as_percent=True), number(float(timing.delay[i, j])))
        + (q_text(first.q[i, j]),)
        for i, j in by_strength(first, ahead, directed=True)[:_MOST_ROWS]
    ]
    words = (
        f"Starts of two AUs that are each other's nearest and at most {timing.lag:g} s apart "
        "belong together. "
    )
    if not rows:
        return [Paragraph(words + "Of no pair does one AU start first beyond chance.")]
    return [
        Paragraph(words + "AUs of which one starts first more often than chance would have it:"),
        Table(
            ("first", "second", "pairs of starts", "first in (interval)", "mean delay, s", "q"),
            rows,
        ),
    ]

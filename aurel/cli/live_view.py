"""A view of a camera or stream in the terminal: a bar for each AU of each person."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from aurel.vision.face_predictor import FacePrediction

WIDTH = 20
MOST_PEOPLE = 4


def run_live(args: argparse.Namespace) -> int:
    """Predict a camera or stream until it ends or Ctrl-C, and show its AUs."""
    from rich.console import Console
    from rich.live import Live

    from aurel.cli.errors import Interrupted
    from aurel.cli.predict_model import load_predictor, warn_of
    from aurel.vision.live import predict_live

    if len(args.inputs) != 1:
        raise ValueError(f"a camera or stream must be the only input, got {len(args.inputs)}")
    predictor = load_predictor(args)
    warn_of(predictor)
    path = args.out / "live.csv"
    frames = faces = 0
    with Live(console=Console(stderr=True), transient=True) as view:
        try:
            for frame, found, people in predict_live(predictor, args.inputs[0], path):
                frames += 1
                faces += len(found)
                view.update(bars(predictor.names, found, people, f"{frame.time:.1f} s"))
        except KeyboardInterrupt:
            raise Interrupted(f"stopped after {frames} frames; the rows are in {path}") from None
    print(f"{faces} faces in {frames} frames: {path}")
    return 0


def bars(
    names: Sequence[str], found: Sequence[FacePrediction], people: Sequence[int], title: str
) -> Table:
    """Return a table with a row for each AU and a column for each of the first people."""
    from rich.table import Table

    table = Table(title=title, box=None)
    table.add_column("AU")
    shown = list(zip(found, people, strict=True))[:MOST_PEOPLE]
    for _, person in shown:
        table.add_column(f"person {person}")
    for index, name in enumerate(names):
        cells = []
        for prediction, _ in shown:
            prob = float(prediction.probs[index])
            filled = round(WIDTH * min(max(prob, 0.0), 1.0)) if prob == prob else 0
            style = "bold" if prediction.present[index] else "dim"
            bar = "█" * filled + "·" * (WIDTH - filled)
            cells.append(f"[{style}]{bar} {prob:.2f}[/]")
        table.add_row(name, *cells)
    return table

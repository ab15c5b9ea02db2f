"""Results of the demo as a table, a paragraph of text and pictures."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from aurel.cli.tables import numbers
from aurel.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from aurel.models.base import AUModel
from aurel.training.data_module import Splits
from aurel.viz.curves import draw_curves
from aurel.viz.face_graph import draw_face_graph
from aurel.viz.mean_graph import au_adjacency, mean_graphs
from aurel.viz.prediction_sheet import draw_prediction_sheet

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
_SHOWN = 8
_GRAPH_FACES = 200


def comparison(relations: Scores, baseline: Scores) -> Table:
    """Return a table of F1 for each AU, visible and hidden, with and without relations."""
    title = "F1 at threshold 0.5 on the test subjects, with and without relations"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("AU")
    for heading in (
        "visible\nwith",
        "\nwithout",
        "hidden\nwith",
        "\nwithout",
        "present\nhidden",
    ):
        table.add_column(heading, justify="right")
    parts = (relations["visible"], baseline["visible"], relations["hidden"], baseline["hidden"])
    for name in relations["all"]:
        cells = [cell for part in parts for cell in numbers(part[name], ("f1",))]
        if name == "mean":
            table.add_section()
            table.add_row("mean F1", *cells, style="bold")
            table.add_row("mean AUC", *[c for part in parts for c in numbers(part[name], ("auc",))])
        else:
            hidden = relations["hidden"][name]
            table.add_row(name, *cells, f"{hidden['positives']:.0f} of {hidden['known']:.0f}")
    return table


def summary(relations: Scores, baseline: Scores) -> str:
    """Return the differences between the two models as text, with their limits."""
    gaps = [
        f"{part} {name} {relations[part]['mean'][key] - baseline[part]['mean'][key]:+.3f}"
        for part in ("visible", "hidden")
        for key, name in (("f1", "F1"), ("auc", "AUC"))
    ]
    return (
        f"Difference, with relations minus without: {', '.join(gaps)}.\n"
        "This is one run of each model: another seed can change a difference by 0.02. The model\n"
        "without relations has the same parameters, and its classifier receives the whole face,\n"
        "so it learns some relations too; benchmarks/relations.py in the repository measures\n"
        "relation layers separately. The faces are synthetic: do not compare these scores with\n"
        "scores on photographs."
    )


def draw(model: AUModel, splits: Splits, out: Path) -> dict[str, Path]:
    """Draw the learned graph, the training curves and a sheet of predictions.

    Args:
        model: with relations, trained.
        splits: the test faces.
        out: folder that holds the runs.

    Returns:
        The path of each picture, by its content.
    """
    data: Any = splits.test
    files = {
        "graph": out / "graph.png",
        "curves": out / "curves.png",
        "predictions": out / "predictions.png",
    }
    model.eval()
    step = max(len(data) // _GRAPH_FACES, 1)
    faces = DataLoader(data, batch_size=50, sampler=range(0, len(data), step))
    graphs = mean_graphs(model, (batch["image"] for batch in faces))
    adjacency, aus = au_adjacency(model, graphs[-1])
    title = f"Last graph of the model, mean over {len(faces.sampler)} faces"  # type: ignore[arg-type]
    draw_face_graph(adjacency, aus.names, files["graph"], title=title)
    draw_curves(_curves(out), files["curves"])
    chosen = range(0, len(data), max(len(data) // _SHOWN, 1))[:_SHOWN]
    sheet = next(iter(DataLoader(data, batch_size=_SHOWN, sampler=chosen)))
    with torch.inference_mode():
        probs = model(sheet["image"]).probs
    pixels, labels, visible = _pixels(sheet["image"]), sheet["labels"], sheet["visible"]
    draw_prediction_sheet(pixels, labels, probs, aus.names, files["predictions"], visible)
    return files


def _curves(out: Path) -> dict[str, list[float]]:
    curves = {}
    for run in sorted(out.glob("*/history.csv")):
        rows = list(csv.DictReader(run.open(newline="")))
        title = run.parent.name.replace("_", " ")
        curves[f"loss, {title}"] = [float(row["train/loss"]) for row in rows]
        curves[f"validation F1, {title}"] = [float(row["val/f1"]) for row in rows]
    return curves


def _pixels(images: Tensor) -> Tensor:
    """Convert normalized images (B, 3, H, W) to uint8 (B, H, W, 3)."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    values = images.movedim(1, -1) * std + mean
    return (255 * values).round().clamp(0, 255).to(torch.uint8)

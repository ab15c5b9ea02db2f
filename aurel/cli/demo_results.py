"""The results of the demo as a table, sentences and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from aurel.cli.demo_runs import ALONE, EXACT, LAYER, Outcome
from aurel.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from aurel.data.synthetic import label_world
from aurel.models.checkpoint import load_model
from aurel.training.data_module import Splits
from aurel.training.run import checkpoint_file
from aurel.viz.face_graph import draw_face_graphs
from aurel.viz.prediction_sheet import draw_prediction_sheet

Scores = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
TITLES = {
    ALONE: "each AU by itself",
    LAYER: "SelfAdjustingGCN",
    EXACT: "PairwiseInference",
}
_SHOWN = 8


def comparison(scores: Scores, seeds: int) -> Table:
    """Return a table of the AUC on covered and visible AUs of each variant."""
    title = f"AUC over the AUs of people not seen before, {seeds} trainings each"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("")
    for heading in ("covered", "lowest, highest", "gain, 95 % interval", "visible"):
        table.add_column(heading, justify="right")
    for variant, parts in scores.items():
        areas = parts["covered"]["auc"]
        gain = "" if variant == ALONE else interval(parts["covered"]["gain"])
        table.add_row(
            TITLES[variant],
            f"{np.mean(areas):.3f}",
            f"{min(areas):.3f}, {max(areas):.3f}",
            gain,
            f"{np.mean(parts['visible']['auc']):.3f}",
        )
    return table


def interval(gain: Sequence[float]) -> str:
    """Return a gain with its interval as text."""
    mean, low, high = gain
    return f"{mean:+.3f} ({low:+.3f}, {high:+.3f})"


def reading(scores: Scores, outcomes: Sequence[Outcome], quick: bool) -> str:
    """Return the result in words, whichever way it falls."""
    lines = []
    for variant in (LAYER, EXACT):
        gain = scores[variant]["covered"]["gain"]
        _, low, high = gain
        verdict = "better" if low > 0 else "worse" if high < 0 else "not clearly different"
        lines.append(f"On covered AUs, {TITLES[variant]} is {verdict}: {interval(gain)} AUC.")
    true, learned = _couplings(outcomes)
    pairs = np.triu_indices(len(true), 1)
    agreement = np.corrcoef(true[pairs], learned[pairs])[0, 1]
    lines.append(
        f"The {len(pairs[0])} learned couplings correlate by {agreement:.2f} with those that the\n"
        "labels were sampled from."
    )
    lines.append(
        "Intervals resample the test people. The faces are synthetic: no number here\n"
        "compares with one on recordings."
    )
    if quick:
        lines.append("A quick run is too small to show a difference.")
    return "\n".join(lines)


def draw(outcomes: Sequence[Outcome], splits: Splits, out: Path) -> dict[str, Path]:
    """Draw the couplings on the face beside the true ones, and a sheet of predictions.

    Args:
        outcomes: of all variants and seeds.
        splits: the faces.
        out: folder that holds the runs.

    Returns:
        The path of each file by its content.
    """
    checkpoint = _checkpoint(out)
    files = {"checkpoint": checkpoint, "couplings": out / "couplings.png"}
    true, learned = _couplings(outcomes)
    draw_face_graphs(
        {"Couplings of the labels": true, "Learned by PairwiseInference": learned},
        splits.aus.names,
        files["couplings"],
        weight="coupling J of two AUs",
    )
    files["predictions"] = out / "predictions.png"
    data: Any = splits.test
    chosen = range(0, len(data), max(len(data) // _SHOWN, 1))[:_SHOWN]
    sheet = next(iter(DataLoader(data, batch_size=_SHOWN, sampler=chosen)))
    with torch.inference_mode():
        probs = load_model(checkpoint).eval()(sheet["image"]).probs
    pixels, labels, visible = _pixels(sheet["image"]), sheet["labels"], sheet["visible"]
    draw_prediction_sheet(pixels, labels, probs, splits.aus.names, files["predictions"], visible)
    return files


def next_commands(out: Path) -> str:
    """Return commands that go on from the demo, one a line."""
    checkpoint = _checkpoint(out)
    commands = {
        f"aurel graph --checkpoint {checkpoint} --out graph.png": "the relations of a model",
        "aurel models": "all models",
        "aurel fit --config sacl_synthetic": "train a published model on such faces",
        "aurel relations table.csv --out relations": "relations in a table of AUs of any tool",
    }
    return "\n".join(f"  # {about}\n  {command}" for command, about in commands.items())


def _checkpoint(out: Path) -> Path:
    """Return the best checkpoint of the first training with exact inference."""
    return checkpoint_file(out / f"{EXACT}_0", "best")


def _couplings(outcomes: Sequence[Outcome]) -> tuple[Any, Any]:
    """Return the couplings of the labels and the mean of the learned ones, (N, N) each."""
    learned = [outcome.couplings for outcome in outcomes if outcome.couplings is not None]
    return label_world("BP4D", 1.0).couplings, np.mean(learned, axis=0)


def _pixels(images: Tensor) -> Tensor:
    """Turn normalized images (B, 3, H, W) back into uint8 (B, H, W, 3)."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    values = images.movedim(1, -1) * std + mean
    return (255 * values).round().clamp(0, 255).to(torch.uint8)

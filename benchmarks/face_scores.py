"""Scores on synthetic faces, for all, visible and occluded AUs, and cells of their tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from aurel.data.synthetic import SyntheticClips, SyntheticFaces
from aurel.metrics import AUAUC, AUF1

FIRST_TEST_SUBJECT = 1000
Row = dict[str, Any]
Faces = SyntheticFaces | SyntheticClips


def score(probs: Tensor, data: Faces) -> Row:
    """Return AUC and F1 (at 0.5), means over the AUs, of all, visible and occluded AUs.

    Args:
        probs: (n, N), of all faces, or of all frames of clips.
        data: the faces or clips.
    """
    labels, visible = data.labels.flatten(0, -2), data.visible.flatten(0, -2)
    subsets = {
        "all": labels,
        "visible": labels.where(visible, -1),
        "occluded": labels.where(~visible, -1),
    }
    scores = {}
    for subset, known in subsets.items():
        for name, metric in (("AUC", AUAUC(data.aus)), ("F1", AUF1(data.aus))):
            metric.update(probs, known)
            scores[f"{name} {subset}"] = round(float(metric.compute()), 4)
    return scores


def line(*cells: str) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def gain(own: Mapping[int, Row], full: Mapping[int, Row], measure: str) -> str:
    """Return the differences `full` minus `own` of a measure by seed: their mean and range."""
    gains = [full[seed][measure] - own[seed][measure] for seed in sorted(own)]
    return f"**{statistics.mean(gains):+.3f}** ({min(gains):+.3f} to {max(gains):+.3f})"

"""What a run minimises: a weighted sum of named losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from aurel.losses import (
    edge_cross_entropy,
    landmark_alignment_loss,
    multilabel_dice_loss,
    weighted_asymmetric_loss,
)
from aurel.output import AUOutput

Batch = Mapping[str, Any]
Term = Callable[[AUOutput, Batch, Tensor | None], Tensor]


def _asymmetric(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    return weighted_asymmetric_loss(output.probs, batch["labels"], weights)


def _dice(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    return multilabel_dice_loss(output.probs, batch["labels"], weights)


def _edge(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    return edge_cross_entropy(_filled(output.edge_logits, "edge", "edge_logits"), batch["labels"])


def _landmark(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    if "landmarks" not in batch:
        raise ValueError(
            "the loss 'landmark' needs landmarks, and the data have none: add landmark lists; the "
            "landmark predictor learns from nothing else, so without them take a model without it "
            "(model.options.relations false, losses.landmark 0)"
        )
    predicted = _filled(output.landmarks, "landmark", "landmarks")
    return landmark_alignment_loss(predicted, batch["landmarks"])


TERMS: Mapping[str, Term] = {
    "asymmetric": _asymmetric,
    "dice": _dice,
    "edge": _edge,
    "landmark": _landmark,
}

PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "me_graphau": {"asymmetric": 1.0, "edge": 0.05},
    "sacl": {"asymmetric": 1.0, "dice": 1.0, "landmark": 0.5},
}
"""Factors of the papers, by model; every other model has the asymmetric loss alone."""


class Objective(nn.Module):
    r"""The weighted sum :math:`L = \sum_k \lambda_k L_k` of named losses.

    Args:
        losses: factor of each loss: "asymmetric", "dice", "edge" (needs `edge_logits`), "landmark"
            (needs `landmarks` in output and data). A factor of 0 leaves a loss out.
        class_weights: (N,) for the losses over AUs; None for 1.

    Raises:
        ValueError: an unknown loss, a negative factor, or no loss at all.
    """

    class_weights: Tensor | None

    def __init__(self, losses: Mapping[str, float], class_weights: Tensor | None = None) -> None:
        super().__init__()
        for name, factor in losses.items():
            if name not in TERMS:
                raise ValueError(f"losses must be among {', '.join(TERMS)}, got {name!r}")
            if not factor >= 0:
                raise ValueError(f"the factor of loss {name} must be 0 or more, got {factor}")
        self.losses = {name: factor for name, factor in losses.items() if factor > 0}
        if not self.losses:
            raise ValueError("at least one loss needs a factor above 0")
        # Computed from the training labels each time, so no part of a checkpoint.
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, output: AUOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum, and each loss by itself before its factor.

        Args:
            output: what the model said.
            batch: `labels` (B, N) and, where needed, `landmarks` (B, 49, 2).
        """
        terms = {name: TERMS[name](output, batch, self.class_weights) for name in self.losses}
        total = sum(self.losses[name] * value for name, value in terms.items())
        assert isinstance(total, Tensor)
        return total, terms


def losses_of(model: str, chosen: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the factors for `model`: the paper's, with those of `chosen` put over them."""
    return {**PUBLISHED.get(model, {"asymmetric": 1.0}), **(chosen or {})}


def _filled(value: Tensor | None, loss: str, field: str) -> Tensor:
    if value is None:
        raise ValueError(f"the loss {loss!r} needs `{field}`, which this model does not return")
    return value

"""The objective of a run: a weighted sum of named losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from aurel.data.arguments import check_at_least
from aurel.facs import RegionPlan, au_center_rules
from aurel.losses import (
    attention_map_loss,
    binary_cross_entropy_loss,
    edge_cross_entropy,
    expression_triplet_loss,
    landmark_alignment_loss,
    multilabel_circle_loss,
    multilabel_dice_loss,
    ordinal_loss,
    region_cross_entropy,
    weighted_asymmetric_loss,
)
from aurel.models.registry import model_info
from aurel.output import AUOutput, presence_logits

Batch = Mapping[str, Any]
Value = TypeVar("Value")
Term = Callable[[Any, Batch, Tensor | None], Tensor]


def _asymmetric(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    detach = batch.get("detach_focus", True)
    return weighted_asymmetric_loss(output.probs, batch["labels"], weights, detach_focus=detach)


def _dice(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    return multilabel_dice_loss(output.probs, batch["labels"], weights)


def _edge(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    return edge_cross_entropy(_required(output.edge_logits, "edge", "edge_logits"), batch["labels"])


def _landmark(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    if "landmarks" not in batch:
        raise ValueError(
            "the data must have landmarks for the loss 'landmark', got none: add landmark lists, "
            "or use a model without a landmark predictor (model.options.relations false, "
            "losses.landmark 0)"
        )
    predicted = _required(output.landmarks, "landmark", "landmarks")
    return landmark_alignment_loss(predicted, batch["landmarks"])


def _region(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    logits = _required(output.region_logits, "region", "region_logits")
    if batch.get("regions") is None:
        raise ValueError(
            "regions must be the region plan of the model for the loss 'region', got none"
        )
    return region_cross_entropy(logits, batch["labels"], batch["regions"])


def _attention(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    masks = _required(output.masks, "attention", "masks")
    if "landmarks" not in batch:
        raise ValueError("the data must have landmarks for the loss 'attention', got none")
    assert output.aus is not None
    height, width = batch["image"].shape[-2:]
    rules = au_center_rules(output.aus)
    return attention_map_loss(masks, batch["landmarks"], rules, (height, width))


def _bce(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    logits = _required(output.logits, "bce", "logits")
    return binary_cross_entropy_loss(logits, batch["labels"], weights)


def _bce_sum(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    logits, labels = _required(output.logits, "bce_sum", "logits"), batch["labels"]
    return labels.shape[-1] * binary_cross_entropy_loss(logits, labels, weights)


def _circle(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    logits = _required(output.logits, "circle", "logits")
    return multilabel_circle_loss(logits, batch["labels"], weights)


def _joint(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    if batch.get("joint_nll") is None:
        raise ValueError("the loss 'joint' needs a model with a relation head (relation_head)")
    local = _required(output.local_logits, "joint", "local_logits")
    return batch["joint_nll"](local, batch["labels"])


def _ordinal(output: AUOutput, batch: Batch, weights: Tensor | None) -> Tensor:
    if batch.get("cutpoints") is None:
        raise ValueError("data.target must be intensity for the loss 'ordinal', got occurrence")
    return ordinal_loss(presence_logits(output), batch["levels"], batch["cutpoints"], weights)


def _triplet(embeddings: Tensor, batch: Batch, weights: Tensor | None) -> Tensor:
    return expression_triplet_loss(embeddings, batch["margin"])


TERMS: Mapping[str, Term] = {
    "asymmetric": _asymmetric,
    "attention": _attention,
    "bce": _bce,
    "bce_sum": _bce_sum,
    "circle": _circle,
    "dice": _dice,
    "edge": _edge,
    "joint": _joint,
    "landmark": _landmark,
    "ordinal": _ordinal,
    "region": _region,
    "triplet": _triplet,
}


class Objective(nn.Module):
    r"""The weighted sum :math:`L = \sum_k \lambda_k L_k` of named losses.

    Args:
        losses: factor of each loss: "asymmetric", "attention" (needs `masks`, and `landmarks` in
            the data), "bce" and "bce_sum" (need `logits`; cross-entropy, mean or sum over AUs),
            "circle" (needs `logits`), "dice", "edge" (needs `edge_logits`), "joint" (needs a
            relation head), "landmark" (needs `landmarks` in output and data), "ordinal" (of
            intensities; the other losses take each above 0 as present), "region" (needs
            `region_logits` and `regions`), "triplet" (needs embeddings of triplets). A loss with
            factor 0 is not computed.
        class_weights: (N,) for the losses over AUs; None for 1.
        regions: the groups of AUs of `region_logits`, where the model has any.
        joint_nll: of local logits and labels, see `RelationHead.nll`; None without a relation head.
        cutpoints: (N, 5) where labels are intensities, see `aurel.losses.ordinal_cutpoints`.
        detach_focus: of the loss "asymmetric", see `weighted_asymmetric_loss`.

    Raises:
        ValueError: an unknown loss, a negative factor, or no loss.
    """

    class_weights: Tensor | None
    cutpoints: Tensor | None

    def __init__(
        self,
        losses: Mapping[str, float],
        class_weights: Tensor | None = None,
        regions: RegionPlan | None = None,
        joint_nll: Callable[[Tensor, Tensor], Tensor] | None = None,
        cutpoints: Tensor | None = None,
        *,
        detach_focus: bool = True,
    ) -> None:
        super().__init__()
        for name, factor in losses.items():
            if name not in TERMS:
                raise ValueError(f"losses must be among {', '.join(TERMS)}, got {name!r}")
            check_at_least(f"losses.{name}", factor, 0)
        self.losses = {name: factor for name, factor in losses.items() if factor > 0}
        if not self.losses:
            raise ValueError(f"losses must have a factor above 0, got {dict(losses)}")
        # A new run computes them from its training labels, so checkpoints do not hold them.
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("cutpoints", cutpoints, persistent=False)
        self.regions = regions
        self.joint_nll = joint_nll
        self.detach_focus = detach_focus

    def forward(self, output: AUOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum, and each loss without its factor.

        Args:
            output: of the model; an encoder's embeddings (B, 3, D) for the loss "triplet".
            batch: `labels` (B, N), of clips (B, T, N), and, where needed, `landmarks` (B, 49, 2);
                `term_factors`, a further factor of each loss, where a step has several batches.
        """
        batch = {
            **batch,
            "regions": self.regions,
            "joint_nll": self.joint_nll,
            "detach_focus": self.detach_focus,
        }
        if self.cutpoints is not None:
            levels = batch["labels"]
            batch.update(levels=levels, labels=levels.clamp(max=1), cutpoints=self.cutpoints)
        terms = {name: TERMS[name](output, batch, self.class_weights) for name in self.losses}
        factors = batch.get("term_factors", {})
        total = sum(
            factors.get(name, 1.0) * self.losses[name] * value for name, value in terms.items()
        )
        assert isinstance(total, Tensor)
        return total, terms


def losses_of(model: str, chosen: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the factors for a model: those of its paper, replaced by those of `chosen`.

    Args:
        model: a registered name.
        chosen: factors, by the name of the loss.

    Raises:
        ValueError: no such model; the message lists the nearest names.
    """
    return {**model_info(model).losses, **(chosen or {})}


def _required(value: Value | None, loss: str, field: str) -> Value:
    if value is None:
        raise ValueError(f"the model must return `{field}` for the loss {loss!r}, got none")
    return value

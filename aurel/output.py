"""The output of every model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from aurel.facs import AUSet
from aurel.graph import RelationGraph


@dataclass(frozen=True)
class AUOutput:
    r"""Predictions of a model for a batch of images.

    A pytree: `torch.export`, `torch.compile` and `tree_map` process the tensors and keep `aus`
    unchanged.

    Args:
        probs: :math:`(B, N)` probability in :math:`[0, 1]` that each AU is present; clip models
            give :math:`(B, T, N)`.
        logits: scores of which `probs` is the sigmoid, same shape; None where the classifier has no
            logits (cosine similarity).
        edge_logits: :math:`(B, N, N, 4)`, for the pair (i, j): neither, only j, only i, both.
        region_logits: one :math:`(B, P_r)` tensor a facial region with :math:`P_r` combinations;
            clip models give :math:`(B, T, P_r)`.
        landmarks: :math:`(B, L, 2)` positions (x, y) in pixels of the input image.
        masks: :math:`(B, N, H', W')` attention of the model to each position for each AU, in
            :math:`[0, 1]`.
        local_logits: the logits of each AU by itself, before the relation head; None without one.
        graphs: the relation graphs the model built, in order of use.
        aus: the AUs that the columns of `probs` stand for.
    """

    probs: Tensor
    logits: Tensor | None = None
    edge_logits: Tensor | None = None
    region_logits: tuple[Tensor, ...] | None = None
    landmarks: Tensor | None = None
    masks: Tensor | None = None
    local_logits: Tensor | None = None
    graphs: tuple[RelationGraph, ...] | None = None
    aus: AUSet | None = None


def presence_logits(output: AUOutput) -> Tensor:
    """Return the logits of `probs`, of a model with or without logits.

    Probabilities of a model without, such as cosines, are clipped to [1e-6, 1 - 1e-6] before.

    Args:
        output: of a model.
    """
    if output.logits is not None:
        return output.logits
    return output.probs.float().logit(_CLIP)


_CLIP = 1e-6
_FIELDS = tuple(field.name for field in fields(AUOutput) if field.name != "aus")


def _flatten(output: AUOutput) -> tuple[list[Any], AUSet | None]:
    return [getattr(output, name) for name in _FIELDS], output.aus


def _flatten_with_keys(output: AUOutput) -> tuple[list[tuple[Any, Any]], AUSet | None]:
    return [(pytree.GetAttrKey(name), getattr(output, name)) for name in _FIELDS], output.aus


def _unflatten(values: Iterable[Any], aus: AUSet | None) -> AUOutput:
    return AUOutput(**dict(zip(_FIELDS, values, strict=True)), aus=aus)


pytree.register_pytree_node(
    AUOutput,
    _flatten,
    _unflatten,
    flatten_with_keys_fn=_flatten_with_keys,
    serialized_type_name="aurel.output.AUOutput",
    to_dumpable_context=lambda aus: None if aus is None else aus.to_dict(),
    from_dumpable_context=lambda aus: None if aus is None else AUSet.from_dict(aus),
)

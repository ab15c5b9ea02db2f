"""Losses of classes that combine several AUs: relations of pairs, regions of the face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aurel.facs import RegionPlan, known_labels, region_labels
from aurel.losses._common import at_least_float32, check_weights, mean_known


def edge_labels(labels: Tensor) -> Tensor:
    r"""Return the relation class of every pair of AUs.

    .. math:: R_{ij} = 2 y_i + y_j

    with target i and source j: 0 neither is present, 1 only j, 2 only i, 3 both.

    Args:
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.

    Returns:
        :math:`(..., N, N)` int64; -1 where a member of the pair is unknown.

    Raises:
        ValueError: a label other than 1, 0, -1 (on the CPU).

    Source: ME-GraphAU, stage 2.
    """
    known = known_labels(labels)
    relation = 2 * labels.unsqueeze(-1).long() + labels.unsqueeze(-2).long()
    return relation.masked_fill(~(known.unsqueeze(-1) & known.unsqueeze(-2)), -1)


def edge_cross_entropy(
    edge_logits: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    r"""Return the cross-entropy of the four relation classes of every pair of AUs.

    .. math:: L = -\frac{1}{M} \sum_{(b,i,j)\ \text{known}} \frac{w_i + w_j}{2}
              \log \mathrm{softmax}(z_{bij})_{R_{bij}}

    with :math:`R_{bij}` of `edge_labels` and M the number of pairs whose members are both known.

    Args:
        edge_logits: :math:`(..., N, N, 4)`, entry [i, j] for target i and source j.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights w, see `au_class_weights`; a pair has the mean weight of
            its two AUs. None, as in the paper, means 1.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    Source: ME-GraphAU, stage 2: added to `weighted_asymmetric_loss` times 0.05 (BP4D) or 0.01
    (DISFA).
    """
    expected = (*labels.shape, labels.shape[-1], 4)
    if tuple(edge_logits.shape) != expected:
        raise ValueError(
            f"edge_logits must have shape {expected} for labels {tuple(labels.shape)}, got "
            f"{tuple(edge_logits.shape)}"
        )
    relation = edge_labels(labels)
    known = relation >= 0
    logits = torch.where(known.unsqueeze(-1), edge_logits, 0)
    logits = logits.to(at_least_float32(logits.dtype)).flatten(0, -2)
    entropy = F.cross_entropy(logits, relation.clamp_min(0).flatten(), reduction="none")
    entropy = entropy.view_as(relation)
    if weights is not None:
        check_weights(weights, labels.shape[-1])
        entropy = entropy * ((weights.unsqueeze(-1) + weights) / 2).to(entropy)
    return mean_known(entropy, known)


def region_cross_entropy(
    region_logits: Sequence[Tensor], labels: Tensor, plan: RegionPlan
) -> Tensor:
    r"""Return the cross-entropy of the combination of AUs in every region of the face.

    .. math:: L = \frac{1}{G} \sum_{g=1}^{G} \frac{1}{M_g} \sum_{b\ \text{known in}\ g}
              -\log \mathrm{softmax}(z_{bg})_{c_{bg}}

    with :math:`c_{bg}` of `aurel.facs.region_labels` and :math:`M_g` the number of samples in which
    every AU of group g is known.

    Args:
        region_logits: one tensor a group, :math:`(..., 2^{n_g})`.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        plan: the G groups, from `aurel.facs.region_plan`.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    Source: MDHR (Wang et al., CVPR 2024), equation 11, added to `weighted_asymmetric_loss` times
    0.01. The paper sums over frames and regions; the authors' code averages, as here.
    """
    if labels.shape[-1] != len(plan.group_of):
        raise ValueError(
            f"labels must have shape (..., N={len(plan.group_of)}), a column for each AU of plan, "
            f"got {tuple(labels.shape)}"
        )
    expected = [(*labels.shape[:-1], classes) for classes in plan.num_classes]
    found = [tuple(logits.shape) for logits in region_logits]
    if found != expected:
        raise ValueError(f"region_logits must have the shapes {expected}, got {found}")
    combined = region_labels(labels.masked_fill(~known_labels(labels), -1), plan)
    losses = []
    for logits, target in zip(region_logits, combined.unbind(-1), strict=True):
        known = target >= 0
        logits = torch.where(known.unsqueeze(-1), logits, 0)
        logits = logits.to(at_least_float32(logits.dtype))
        logits = logits.reshape(target.numel(), logits.shape[-1])
        target = target.clamp_min(0).flatten()
        entropy = F.cross_entropy(logits, target, reduction="none")
        losses.append(mean_known(entropy, known.flatten()))
    return torch.stack(losses).mean()

"""Losses for AU probabilities, AU relations and landmarks.

Labels are 1 present, 0 absent, -1 unknown. An unknown label has no part in any loss: its gradient
is exactly zero, a NaN prediction there does no harm, and a loss without any known label is 0. On
the CPU any other label raises ValueError; on an accelerator, where looking at values would stall,
it counts as unknown. All losses compute in float32 or wider, whatever the prediction's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aurel.attention_losses import attention_map_loss, attention_targets
from aurel.facs import (
    LEFT_EYE,
    NUM_LANDMARKS,
    RIGHT_EYE,
    RegionPlan,
    check_labels,
    known_labels,
    region_labels,
)
from aurel.logit_losses import binary_cross_entropy_loss, multilabel_circle_loss
from aurel.loss_parts import at_least_float32, check_pair, check_weights, mean_known, weigh
from aurel.triplet_losses import expression_triplet_loss, triplets_right

__all__ = [
    "attention_map_loss",
    "attention_targets",
    "au_class_weights",
    "binary_cross_entropy_loss",
    "edge_cross_entropy",
    "edge_labels",
    "expression_triplet_loss",
    "landmark_alignment_loss",
    "multilabel_circle_loss",
    "multilabel_dice_loss",
    "region_cross_entropy",
    "triplets_right",
    "weighted_asymmetric_loss",
]


def weighted_asymmetric_loss(
    probs: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    detach_focus: bool = True,
    eps: float = 1e-8,
) -> Tensor:
    r"""Weighted asymmetric loss: cross-entropy whose negative term fades with easy negatives.

    .. math:: L = -\frac{1}{M} \sum_{(b,n)\ \text{known}} w_n \left[ y_{bn} \log p_{bn}
              + p_{bn} (1 - y_{bn}) \log(1 - p_{bn}) \right]

    with M the number of known labels in the batch, so the mean is over the entries that remain (as
    in OpenGraphAU); without unknown labels that is the mean over batch and AUs of ME-GraphAU, MACG
    and MDHR. Logarithms are cut at `eps`: beyond it an entry has no gradient. Probabilities
    are cut to [0, 1] first, since a cosine may round past its ends.

    Args:
        probs: :math:`(..., N)` probabilities (a cosine head's output as it is, no sigmoid).
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights, see `au_class_weights`; None means 1.
        detach_focus: treat the factor p of the negative term as a constant, as the authors' code
            does and their equations do not say. False differentiates the equation as printed.
        eps: floor inside the logarithms; for float16 input no less than its smallest normal number
            (6.1e-5), so that the gradient stays in its range.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    ME-GraphAU (Luo et al., 2022); SACL, equation 4.
    """
    eps = max(eps, torch.finfo(probs.dtype).tiny)
    probs, labels, known = _prepare(probs, labels)
    focus = probs.detach() if detach_focus else probs
    positive = labels * probs.clamp_min(eps).log()
    negative = (1 - labels) * focus * (1 - probs).clamp_min(eps).log()
    return mean_known(-weigh(positive + negative, weights), known)


def multilabel_dice_loss(
    probs: Tensor, labels: Tensor, weights: Tensor | None = None, *, smooth: float = 1.0
) -> Tensor:
    r"""Weighted Dice loss of every AU of every sample.

    .. math:: L = \frac{1}{M} \sum_{(b,n)\ \text{known}} w_n \left( 1 -
              \frac{2 y_{bn} p_{bn} + \varepsilon}{y_{bn}^2 + p_{bn}^2 + \varepsilon} \right)

    with M the number of known labels in the batch.

    Args:
        probs: :math:`(..., N)` probabilities.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights, see `au_class_weights`; None means 1.
        smooth: :math:`\varepsilon`. The paper gives no value; 1 is our choice.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    SACL, equation 5.
    """
    probs, labels, known = _prepare(probs, labels)
    overlap = (2 * labels * probs + smooth) / (labels.square() + probs.square() + smooth)
    return mean_known(weigh(1 - overlap, weights), known)


def landmark_alignment_loss(predicted: Tensor, target: Tensor) -> Tensor:
    r"""Squared landmark error in units of the inter-ocular distance.

    .. math:: L = \frac{1}{S} \sum_s \frac{1}{2 d_s^2} \sum_{k=1}^{49}
              \lVert c_{sk} - \hat c_{sk} \rVert^2

    over the S samples with landmarks, :math:`d_s` being the true distance between the centres of
    the eyes (means of the six points of each).

    Args:
        predicted: :math:`(B, 49, 2)` coordinates (x, y).
        target: :math:`(B, 49, 2)` in the same unit; a sample with a NaN (or infinity) anywhere, or
            whose eyes coincide, has no landmarks and no part in the loss.

    Returns:
        The loss, 0-d; 0 where no sample has landmarks.

    Raises:
        ValueError: shapes that do not match.

    SACL, equation 6. The paper does not define the inter-ocular distance.
    """
    if predicted.shape != target.shape or tuple(target.shape[-2:]) != (NUM_LANDMARKS, 2):
        raise ValueError(
            f"predicted and target must both be (B, {NUM_LANDMARKS}, 2), got "
            f"{tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    dtype = at_least_float32(predicted.dtype)
    predicted, target = predicted.to(dtype), target.to(dtype)
    left, right = (_center(target, eye) for eye in (LEFT_EYE, RIGHT_EYE))
    squared_distance = (left - right).square().sum(-1)
    known = target.isfinite().all(-1).all(-1) & (squared_distance > 0)
    error = torch.where(known[..., None, None], predicted - target, 0).square().sum((-2, -1))
    return mean_known(error / (2 * torch.where(known, squared_distance, 1)), known)


def edge_labels(labels: Tensor) -> Tensor:
    r"""Return the relation class of every pair of AUs.

    .. math:: R_{ij} = 2 y_i + y_j

    with i the receiving node and j the source: 0 neither is present, 1 only j, 2 only i, 3 both.

    Args:
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.

    Returns:
        :math:`(..., N, N)` int64; -1 where a member of the pair is unknown.

    Raises:
        ValueError: a label other than 1, 0, -1 (on the CPU).

    ME-GraphAU, stage 2.
    """
    known = known_labels(labels)
    relation = 2 * labels.unsqueeze(-1).long() + labels.unsqueeze(-2).long()
    return relation.masked_fill(~(known.unsqueeze(-1) & known.unsqueeze(-2)), -1)


def edge_cross_entropy(
    edge_logits: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    r"""Cross-entropy of the four relation classes of every pair of AUs.

    .. math:: L = -\frac{1}{M} \sum_{(b,i,j)\ \text{known}} \frac{w_i + w_j}{2}
              \log \mathrm{softmax}(z_{bij})_{R_{bij}}

    with :math:`R_{bij}` of `edge_labels` and M the number of pairs whose members are both known.

    Args:
        edge_logits: :math:`(..., N, N, 4)`, entry [i, j] for receiving node i and source j.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights w, see `au_class_weights`; a pair has the mean weight of
            its two AUs. None, as in the paper, means 1.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    ME-GraphAU, stage 2: added to `weighted_asymmetric_loss` times 0.05 (BP4D) or 0.01 (DISFA).
    """
    wanted = (*labels.shape, labels.shape[-1], 4)
    if tuple(edge_logits.shape) != wanted:
        raise ValueError(
            f"edge_logits must be (..., N, N, 4), {wanted} for labels {tuple(labels.shape)}, got "
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
    r"""Cross-entropy of the combination of AUs in every region of the face.

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

    MDHR (Wang et al., CVPR 2024), equation 11, added to `weighted_asymmetric_loss` times 0.01. The
    paper sums over frames and regions; the authors' code averages, as here.
    """
    if labels.shape[-1] != len(plan.group_of):
        raise ValueError(
            f"labels must have {len(plan.group_of)} columns, those of the plan, got shape "
            f"{tuple(labels.shape)}"
        )
    wanted = [(*labels.shape[:-1], classes) for classes in plan.num_classes]
    found = [tuple(logits.shape) for logits in region_logits]
    if found != wanted:
        raise ValueError(f"region_logits must have the shapes {wanted}, got {found}")
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


def au_class_weights(labels: Tensor) -> Tensor:
    r"""Return weights that are inversely proportional to how often each AU is present.

    .. math:: w_n = N \frac{1 / r_n}{\sum_m 1 / r_m}

    where :math:`r_n` is the share of present among the known labels of AU n. Two cases that the
    papers leave open: an AU that is never present counts as rare as the rarest that is (all weights
    are 1 if none ever is); an AU without any known label has weight 1 and leaves the weights of the
    others as they would be without it. The weights sum to N.

    Args:
        labels: :math:`(M, N)` labels of the *training* samples, 1 present, 0 absent, -1 unknown.

    Returns:
        :math:`(N,)` float32.

    Raises:
        ValueError: not two-dimensional, or a label other than 1, 0, -1.

    SACL, section 3.6; ME-GraphAU, MDHR and MACG ship these numbers in files.
    """
    if labels.dim() != 2:
        raise ValueError(f"labels must be (samples, AUs), got shape {tuple(labels.shape)}")
    check_labels(labels)
    known = (labels >= 0).sum(0)
    present = (labels == 1).sum(0)
    inverse = known.double() / present
    finite = inverse[inverse.isfinite()]
    inverse = inverse.clamp(max=finite.max() if len(finite) else 1)
    annotated = known > 0
    mean = torch.where(annotated, inverse, 0).sum() / annotated.sum()
    return torch.where(annotated, inverse / mean, 1).float()


def _prepare(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities in [0, 1], labels, both wide enough, and where the labels are known.

    Probabilities of unknown labels are a constant, so neither NaN nor gradient passes there.
    """
    check_pair("probs", probs, labels)
    known = known_labels(labels)
    dtype = at_least_float32(probs.dtype)
    probs = torch.where(known, probs.to(dtype), 0.5).clamp(0, 1)
    return probs, labels.to(dtype), known


def _center(landmarks: Tensor, eye: tuple[int, ...]) -> Tensor:
    return landmarks[..., eye[0] : eye[-1] + 1, :].mean(-2)

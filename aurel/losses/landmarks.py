"""The loss of predicted landmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.facs import LEFT_EYE, NUM_LANDMARKS, RIGHT_EYE
from aurel.losses._common import at_least_float32, mean_known


def landmark_alignment_loss(predicted: Tensor, target: Tensor) -> Tensor:
    r"""Return the squared landmark error in units of the inter-ocular distance.

    .. math:: L = \frac{1}{S} \sum_s \frac{1}{2 d_s^2} \sum_{k=1}^{49}
              \lVert c_{sk} - \hat c_{sk} \rVert^2

    over the S samples with landmarks, :math:`d_s` being the true distance between the centers of
    the eyes (means of the six points of each).

    Args:
        predicted: :math:`(B, 49, 2)` coordinates (x, y).
        target: :math:`(B, 49, 2)` in the same unit; a sample with a NaN (or infinity) anywhere, or
            whose eyes coincide, has no landmarks and no part in the loss.

    Returns:
        The loss, 0-d; 0 where no sample has landmarks.

    Raises:
        ValueError: shapes that do not match.

    Source: SACL, equation 6. The paper does not define the inter-ocular distance.
    """
    if predicted.shape != target.shape or tuple(target.shape[-2:]) != (NUM_LANDMARKS, 2):
        raise ValueError(
            f"predicted and target must both have shape (B, {NUM_LANDMARKS}, 2), got "
            f"{tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    dtype = at_least_float32(predicted.dtype)
    predicted, target = predicted.to(dtype), target.to(dtype)
    left, right = (_center(target, eye) for eye in (LEFT_EYE, RIGHT_EYE))
    squared_distance = (left - right).square().sum(-1)
    known = target.isfinite().all(-1).all(-1) & (squared_distance > 0)
    error = torch.where(known[..., None, None], predicted - target, 0).square().sum((-2, -1))
    return mean_known(error / (2 * torch.where(known, squared_distance, 1)), known)


def _center(landmarks: Tensor, eye: tuple[int, ...]) -> Tensor:
    return landmarks[..., eye[0] : eye[-1] + 1, :].mean(-2)

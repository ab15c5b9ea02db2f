"""The loss of embeddings of triplets of faces."""

from __future__ import annotations

from torch import Tensor

from aurel.losses._common import at_least_float32


def expression_triplet_loss(embeddings: Tensor, margin: float | Tensor = 0.2) -> Tensor:
    r"""Return a hinge loss that keeps the similar pair closer than either is to the third face.

    .. math:: L = \frac{1}{S} \sum_s \left[
              \max(0, d_{AP} - d_{AN} + m) + \max(0, d_{AP} - d_{PN} + m) \right],
              \qquad d_{XY} = \lVert E_X - E_Y \rVert_2^2

    Args:
        embeddings: :math:`(..., 3, D)` of anchor A, positive P and negative N. A and P are the
            similar pair and may be exchanged.
        margin: m, or :math:`(...)` with that of each triplet.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: `embeddings` are no triplets, or `margin` has another shape.

    Source: GTLE-Net (An et al., 2024), equation 1. It gives no margin; 0.1 for three faces of one
    emotion and 0.2 for others are those of the data set's authors (Vemulapalli & Agarwala, CVPR
    2019).
    """
    near, left, right = _squared_distances(embeddings)
    if isinstance(margin, Tensor) and margin.shape != near.shape:
        raise ValueError(
            f"margin must be one number or have shape {tuple(near.shape)}, got "
            f"{tuple(margin.shape)}"
        )
    loss = (near - left + margin).clamp_min(0) + (near - right + margin).clamp_min(0)
    return loss.sum() / max(loss.numel(), 1)


def triplets_right(embeddings: Tensor) -> Tensor:
    """Return which triplets have anchor and positive as their closest pair, (...) bool.

    Args:
        embeddings: (..., 3, D) of anchor, positive and negative.

    Raises:
        ValueError: `embeddings` are no triplets.
    """
    near, left, right = _squared_distances(embeddings)
    return (near < left) & (near < right)


def _squared_distances(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squared distances of anchor-positive, anchor-negative, positive-negative."""
    if embeddings.dim() < 2 or embeddings.shape[-2] != 3:
        raise ValueError(f"embeddings must have shape (..., 3, D), got {tuple(embeddings.shape)}")
    embeddings = embeddings.to(at_least_float32(embeddings.dtype))
    anchor, positive, negative = embeddings.unbind(-2)
    pairs = ((anchor, positive), (anchor, negative), (positive, negative))
    near, left, right = ((a - b).square().sum(-1) for a, b in pairs)
    return near, left, right

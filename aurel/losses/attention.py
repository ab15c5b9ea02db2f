"""The loss of attention maps, with targets from landmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.facs import INNER_EYE_CORNERS, NUM_LANDMARKS, AUCenterRules
from aurel.losses._common import at_least_float32, mean_known

_SIDE = 0.14
_SLOPE = 0.56


def attention_map_loss(
    masks: Tensor,
    landmarks: Tensor,
    rules: AUCenterRules,
    image_size: tuple[int, int],
    *,
    eps: float = 1e-8,
) -> Tensor:
    r"""Return the cross-entropy between attention maps and their targets from landmarks.

    .. math:: L = -\frac{1}{S N H W} \sum_{s,n,h,w} \left[ t \log m + (1 - t) \log(1 - m) \right]

    over the S samples with landmarks, with the targets t of `attention_targets`.

    Args:
        masks: :math:`m`, :math:`(B, N, H, W)`, between 0 and 1.
        landmarks: :math:`(B, 49, 2)`, pixels (x, y); a sample with a NaN (or infinity) anywhere has
            no landmarks and no part in the loss.
        rules: the centers of the N AUs, from `aurel.facs.au_center_rules`.
        image_size: height and width of the image, pixels.
        eps: floor inside the logarithms.

    Returns:
        The loss, 0-d; 0 where no sample has landmarks.

    Raises:
        ValueError: shapes that do not match.

    Source: GTLE-Net (An et al., 2024), section 4.4, compares its unsupervised masks to masks
    supervised "following" JAA-Net, whose refined maps have this loss (Shao et al., ECCV 2018); it
    gives neither the loss nor its factor. The mean over the map is a choice of this library.
    """
    if masks.dim() != 4 or masks.shape[:2] != (len(landmarks), len(rules.au_nodes)):
        raise ValueError(
            f"masks must have shape (B={len(landmarks)}, N={len(rules.au_nodes)}, H, W), got "
            f"{tuple(masks.shape)}"
        )
    height, width = masks.shape[-2:]
    target = attention_targets(landmarks, rules, image_size, (height, width))
    known = landmarks.isfinite().all(-1).all(-1)[:, None, None, None].expand_as(masks)
    masks = torch.where(known, masks.to(at_least_float32(masks.dtype)), 0.5)
    hit = target * masks.clamp_min(eps).log()
    miss = (1 - target) * (1 - masks).clamp_min(eps).log()
    return mean_known(-(hit + miss), known)


def attention_targets(
    landmarks: Tensor,
    rules: AUCenterRules,
    image_size: tuple[int, int],
    map_size: tuple[int, int],
) -> Tensor:
    r"""Return the target attention map of each AU.

    .. math:: t_n(x, y) = \max_{c \in \{1, 2\}} 1 - \frac{0.56}{0.14}
              \big(|x - x_{nc}| + |y - y_{nc}|\big)

    in fractions of the image, within a square of side 0.14 about each center; 0 elsewhere.

    Args:
        landmarks: :math:`(B, 49, 2)`, pixels (x, y).
        rules: the centers of the N AUs.
        image_size: height and width of the image, pixels.
        map_size: height H and width W of the maps.

    Returns:
        :math:`(B, N, H, W)`, at least float32.

    Raises:
        ValueError: the landmarks have another shape.

    Source: JAA-Net (Shao et al., ECCV 2018), with centers as in `aurel.facs.AU_CENTERS`.
    """
    if landmarks.dim() != 3 or tuple(landmarks.shape[1:]) != (NUM_LANDMARKS, 2):
        raise ValueError(
            f"landmarks must have shape (B, {NUM_LANDMARKS}, 2), got {tuple(landmarks.shape)}"
        )
    landmarks = landmarks.to(at_least_float32(landmarks.dtype))
    pairs = [first // 2 for first, _ in rules.au_nodes]
    points = [rules.points[pair] for pair in pairs]
    offsets = landmarks.new_tensor([rules.offsets[pair] for pair in pairs])
    left, right = (landmarks[:, corner] for corner in INNER_EYE_CORNERS)
    unit = torch.linalg.vector_norm(left - right, dim=-1)[:, None, None]
    x, y = landmarks[:, points].unbind(-1)
    across = _distance(x, image_size[1], map_size[1]).unsqueeze(-2)
    down = _distance(y + offsets[:, None] * unit, image_size[0], map_size[0]).unsqueeze(-1)
    value = 1 - _SLOPE / _SIDE * (across + down)
    inside = (across <= _SIDE / 2) & (down <= _SIDE / 2)
    return torch.where(inside, value, 0).amax(2)


def _distance(center: Tensor, pixels: int, cells: int) -> Tensor:
    """Return the distance of each cell to each AU center, (B, N, 2, cells), as image fractions."""
    # Pixel x covers [x - 0.5, x + 0.5), so the first cell starts at pixel coordinate -0.5.
    cell = (torch.arange(cells, dtype=center.dtype, device=center.device) + 0.5) / cells
    return (cell - ((center + 0.5) / pixels).unsqueeze(-1)).abs()

"""Chains over frames that are missing, and over the frames of several people."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.arguments import check_device, check_shape, check_tensor


def costs_over_gaps(stay: Tensor, gaps: Tensor) -> Tensor:
    r"""Return the cost of a change over a number of frames.

    An AU without evidence takes g steps of the matrix [[1, c], [c, 1]], c = exp(-s), which make

    .. math::
        c_g = \tanh(g \operatorname{artanh}(c)), \qquad s_g = -\log c_g

    up to a factor. With g = 1 that is s, and with g = inf it is 0.

    Args:
        stay: s, (N,), 0 or more.
        gaps: g, (B, T - 1), positive, inf allowed.

    Returns:
        (B, T - 1, N).
    """
    gap = gaps[..., None].to(stay.dtype)
    # Without cost the derivative is 0 for g > 1, and that of artanh infinite.
    change = stay.neg().exp().clamp(max=1 - 1e-6)
    over = torch.tanh(gap.where(gap.isfinite(), 1) * torch.atanh(change))
    costs = -over.clamp_min(torch.finfo(stay.dtype).tiny).log()
    return costs.where(gap.isfinite() & (stay > 0), 0).where(gap != 1, stay)


def check_gaps(gaps: Tensor, logits: Tensor) -> Tensor:
    """Return numbers of frames as (B, T - 1) or (1, T - 1); ValueError unless they are positive."""
    check_tensor("gaps", gaps)
    batch, frames = logits.shape[:2]
    if gaps.ndim == 1:
        check_shape("gaps", gaps, "T-1", **{"T-1": frames - 1})
        gaps = gaps[None]
    check_shape("gaps", gaps, "B T-1", **{"B": batch if len(gaps) != 1 else 1, "T-1": frames - 1})
    check_device("gaps", gaps, logits)
    if gaps.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = gaps[~(gaps > 0)]
        if wrong.numel() > 0:
            raise ValueError(f"gaps must be positive numbers of frames, got {wrong[0].item():g}")
    return gaps


def order_of_tracks(tracks: Tensor, frames: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the order of rows by person and frame, and the gaps between them, inf for another.

    Args:
        tracks: (M,) integers, the person of each row.
        frames: (M,) integers, the frame of each row; None for rows in the order of their frames,
            none of which is missing.

    Raises:
        ValueError: a person is twice in a frame.
    """
    if frames is None:
        order = tracks.argsort(stable=True)
        gaps = torch.ones(max(len(tracks) - 1, 0), device=tracks.device)
    else:
        order = frames.argsort(stable=True)
        order = order[tracks[order].argsort(stable=True)]
        gaps = frames[order].diff().float()
    same = tracks[order].diff() == 0
    twice = (same & (gaps == 0)).nonzero()
    if len(twice) > 0:
        row = order[twice[0, 0]]
        assert frames is not None
        raise ValueError(
            f"frames must hold each person once, got person {tracks[row].item()} twice in "
            f"frame {frames[row].item()}"
        )
    return order, gaps.where(same, torch.inf)

"""Feature maps of several scales, as one sequence of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiScaleFusion(nn.Module):
    r"""Resize maps to the first one's size, concatenate their channels, flatten to tokens.

    .. math::
        A = \mathrm{Concat}(F_1, 2{\times} F_2, 4{\times} F_3, 8{\times} F_4)

    without parameters. Source: SACL (Liu & Yuan, IEEE TAC 2024), section 3.2, equation 1. The paper
    does not say how it interpolates; here it is bilinear with aligned pixel borders
    (`align_corners=False`).
    """

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        r"""Return the tokens of all maps together.

        Args:
            maps: :math:`F_l`, each (B, C_l, H_l, W_l), the finest first.

        Returns:
            :math:`A` as tokens (B, H_1 W_1, sum of C_l), row by row.

        Raises:
            ValueError: there are no maps, or one is not a batch of B maps.
        """
        if not maps:
            raise ValueError("maps must hold at least one feature map, got none")
        batch = maps[0].shape[0]
        for index, feature_map in enumerate(maps):
            if feature_map.dim() != 4 or feature_map.shape[0] != batch:
                raise ValueError(
                    f"maps[{index}] must be (B={batch}, C, H, W), got {tuple(feature_map.shape)}"
                )
        size = maps[0].shape[-2:]
        resized = [
            feature_map
            if feature_map.shape[-2:] == size
            else F.interpolate(feature_map, size, mode="bilinear", align_corners=False)
            for feature_map in maps
        ]
        return torch.cat(resized, dim=1).flatten(2).transpose(1, 2)

    if TYPE_CHECKING:
        __call__ = forward

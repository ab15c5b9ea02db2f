"""Features of each action unit from its region of the face, and logits of a region's AUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aurel.facs import REGION_SEVENTHS, RegionPlan
from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.token_projection import TokenProjection
from aurel.ops.arguments import check_shape


class RegionalAUFeatures(nn.Module):
    r"""Compute each AU's features from its region, and classify the combination of its AUs.

    .. math::
        S_g = \mathrm{proj}_g(G[\text{rows of } g]), \qquad
        v_n = \mathrm{mean}_d\, \mathrm{AFE}_n(S_{g(n)})_d, \qquad
        z_g = W_g\, \mathrm{mean}_d\, (S_g)_d + b_g

    The rows of a region are sevenths of the map's height, upper 0 to 3, middle 2 to 5, lower 4 to
    7; on a map of another height than 7 a row that lies partly in the region belongs to it.
    :math:`z_g` are logits of the :math:`2^{n_g}` combinations of the AUs of group g.

    Args:
        channels: width C of the map and of a node.
        plan: the groups of AUs, from `aurel.facs.region_plan`.
        group_projections: project the slice of each group by a `TokenProjection`; without, it is
            used as it is.
        auxiliary: classify the combinations.

    Source: Wang et al., CVPR 2024 (MDHR), section 3.2, equations 7 and 8. The projections, and
    BP4D's two groups in the lower face, are in the authors' code alone.
    """

    def __init__(
        self,
        channels: int,
        plan: RegionPlan,
        *,
        group_projections: bool = False,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.plan = plan
        self.group_projections = group_projections
        self.auxiliary = auxiliary
        groups = range(len(plan.columns))
        self.projections = nn.ModuleList(
            TokenProjection(channels, channels) if group_projections else nn.Identity()
            for _ in groups
        )
        self.features = nn.ModuleList(
            AUSpecificFeatures(channels, channels, len(columns)) for columns in plan.columns
        )
        self.heads = nn.ModuleList(
            nn.Linear(channels, classes) for classes in plan.num_classes if auxiliary
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize projections and AU features as the authors do, heads as torch does."""
        for layer in (*self.projections, *self.features, *self.heads):
            if not isinstance(layer, nn.Identity):
                layer.reset_parameters()

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        r"""Return the nodes, and the logits of each group.

        Args:
            x: feature map with the channels last, (B, H, W, C).

        Returns:
            Nodes (B, N, C), in the order of the AU set; and the logits of each group,
            (B, :math:`2^{n_g}`), none without `auxiliary`.
        """
        check_shape("x", x, "B H W C", C=self.channels)
        slices = [
            projection(_rows(x, *REGION_SEVENTHS[region]))
            for projection, region in zip(self.projections, self.plan.regions, strict=True)
        ]
        nodes = {
            column: node
            for columns, features, tokens in zip(
                self.plan.columns, self.features, slices, strict=True
            )
            for column, node in zip(columns, features(tokens).mean(2).unbind(1), strict=True)
        }
        logits = tuple(
            head(tokens.mean(1)) for head, tokens in zip(self.heads, slices, strict=False)
        )
        return torch.stack([nodes[column] for column in range(len(nodes))], dim=1), logits

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        groups = dict(zip(self.plan.names, self.plan.columns, strict=True))
        return f"{self.channels}, {groups}"


def _rows(x: Tensor, start: int, stop: int) -> Tensor:
    """Return the tokens (B, D, C) of the rows that lie in these sevenths of the height."""
    height = x.shape[1]
    return x[:, start * height // 7 : -(-stop * height // 7)].flatten(1, 2)

"""Feature maps of each action unit, masked to where it appears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from aurel.layers.map_decoder import MapDecoder
from aurel.ops.arguments import check_shape


class AUMaskedFeatures(nn.Module):
    r"""Decode maps of the face and a mask for every action unit, and multiply them.

    .. math::
        c_n = m_n \odot f_n, \qquad [f_1, \dots, f_N] = E_a(h), \qquad [m_1, \dots, m_N] = E_m(h)

    :math:`f_n` has D channels, :math:`m_n` one; both are between 0 and 1. The N heads of an
    extractor are one convolution. The AU labels alone supervise the masks.

    Args:
        in_channels: width C of the map h.
        num_nodes: number N of AUs.
        map_channels: channels D of an AU's feature map.
        widths: of both extractors, see `MapDecoder`.
        bottlenecks: residual blocks of :math:`E_a` before its upsampling.
        masked: False leaves the masks out: :math:`c_n = f_n`.

    Source: An et al., Applied Intelligence 2024 (GTLE-Net), section 3.3, equations 3 to 5:
    :math:`E_a` has residual blocks, :math:`E_m` plain ones (figure 3).
    """

    def __init__(
        self,
        in_channels: int,
        num_nodes: int,
        map_channels: int = 3,
        widths: Sequence[int] = (512, 512, 256, 128, 64),
        bottlenecks: int = 2,
        masked: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_nodes = num_nodes
        self.map_channels = map_channels
        self.masked = masked
        self.maps = MapDecoder(
            in_channels, num_nodes * map_channels, widths, bottlenecks=bottlenecks
        )
        self.masks: MapDecoder | None = None
        if masked:
            self.masks = MapDecoder(in_channels, num_nodes, widths, residual=False)

    def reset_parameters(self) -> None:
        """Initialize both extractors, see `MapDecoder`."""
        for extractor in (self.maps, self.masks):
            if extractor is not None:
                extractor.reset_parameters()

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the masked maps of every AU, and the masks.

        Args:
            h: (B, C, H, W).

        Returns:
            :math:`c` (B, N, D, s H, s W), s = 16 with the default widths; and the masks
            (B, N, s H, s W), None without.

        Raises:
            ValueError: h has another shape.
        """
        check_shape("h", h, "B C H W", C=self.in_channels)
        features = self.maps(h).unflatten(1, (self.num_nodes, self.map_channels))
        if self.masks is None:
            return features, None
        masks = self.masks(h)
        return masks.unsqueeze(2) * features, masks

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, num_nodes={self.num_nodes}, map_channels={self.map_channels}, "
            f"masked={self.masked}"
        )

"""Facial landmarks from a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aurel.ops.arguments import check_shape


class LandmarkPredictor(nn.Module):
    r"""Predict landmarks by three blocks of two convolutions and a pooling, and a linear layer.

    .. math::
        (\hat x_l, \hat y_l) = (W_{image}, H_{image}) \odot
            \big(\mathrm{Linear}(\mathrm{flatten}(\mathrm{blocks}(F)))\big)_l

    The outputs of the linear layer are fractions of the image, so that one set of weights serves
    any resolution and outputs are of order one. Its bias is initialized with a mean face (the
    center of the image unless `mean_face` is set) and its weights are small, so that training
    starts near there.

    Args:
        in_channels: channels of the map.
        num_landmarks: number of landmarks L.
        widths: channels of the three blocks.
        map_size: side of the map, or (height, width).

    Raises:
        ValueError: the map is too small to be halved by every block.

    Source: SACL (Liu & Yuan, IEEE TAC 2024), section 3.3. The paper gives neither widths nor the
    meaning of the outputs, and counts one output a landmark where two are needed: widths 64, 128,
    256 have the 2.41 M parameters that its table 8 leaves for this predictor.
    """

    def __init__(
        self,
        in_channels: int,
        num_landmarks: int = 49,
        widths: Sequence[int] = (64, 128, 256),
        map_size: int | tuple[int, int] = 56,
    ) -> None:
        super().__init__()
        self.map_size = (map_size, map_size) if isinstance(map_size, int) else tuple(map_size)
        self.in_channels = in_channels
        self.num_landmarks = num_landmarks
        height, width = (side // 2 ** len(widths) for side in self.map_size)
        if height < 1 or width < 1:
            raise ValueError(
                f"map_size must be at least {2 ** len(widths)}, got {tuple(self.map_size)}"
            )
        ends = [in_channels, *widths]
        self.blocks = nn.Sequential(
            *(_block(ends[index], ends[index + 1]) for index in range(len(widths)))
        )
        self.linear = nn.Linear(ends[-1] * height * width, 2 * num_landmarks)
        self.reset_parameters()

    def reset_parameters(self, mean_face: Tensor | None = None) -> None:
        """Initialize near `mean_face`: (L, 2) as fractions of the image; None for its center."""
        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()
        nn.init.normal_(self.linear.weight, std=1e-3)
        nn.init.constant_(self.linear.bias, 0.5)
        if mean_face is not None:
            check_shape("mean_face", mean_face, "L 2", L=self.num_landmarks)
            with torch.no_grad():
                self.linear.bias.copy_(mean_face.flatten())

    def forward(self, feature_map: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the landmarks of every face.

        Args:
            feature_map: (B, in_channels, H, W), H and W as in `map_size`.
            image_size: height and width of the image that the map was made from, pixels.

        Returns:
            (B, L, 2), x and y in pixels of that image, at least float32.
        """
        height, width = self.map_size
        check_shape("feature_map", feature_map, "B C H W", C=self.in_channels, H=height, W=width)
        fractions = self.linear(self.blocks(feature_map).flatten(1))
        fractions = fractions.to(torch.promote_types(fractions.dtype, torch.float32))
        x, y = fractions.unflatten(1, (-1, 2)).unbind(-1)
        return torch.stack((x * image_size[1], y * image_size[0]), dim=-1)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"num_landmarks={self.num_landmarks}, map_size={self.map_size}"


def _block(in_channels: int, channels: int) -> nn.Sequential:
    # The convolutions need no bias: a batch norm follows.
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )

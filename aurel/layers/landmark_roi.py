"""Windows of a feature map around points that are defined by landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aurel.layers.constants import keep_constants
from aurel.ops.arguments import check_device, check_shape


class LandmarkROI(nn.Module):
    r"""Crop a square window around each AU center.

    With the landmarks in pixels of the image and :math:`d` the distance between the inner corners
    of the eyes, center r is landmark :math:`p_r` moved down by :math:`o_r d`. It is scaled by
    :math:`\eta` = map size / image size to the cell that contains it, and the window of s by s
    cells about that cell is copied; at the border the window is shifted, so that it lies inside
    the map.

    Args:
        points: the two landmarks of each center pair.
        offsets: how far down from the landmark the center is, in units of the inner-eye distance;
            one number a pair.
        inner_eye: the two landmarks that are the inner corners of the eyes.
        fraction: side of the window as a fraction of the map's width.

    Raises:
        ValueError: there are not as many offsets as pairs of points.

    Source: SACL (Liu & Yuan, IEEE TAC 2024), section 3.4 and table 2. The window of the paper is
    0.14 of the map, 7.84 cells of 56; it does not say how that becomes an integer. Here it is the
    nearest odd one, so that a window has a center: 7.
    """

    _points: Tensor
    _offsets: Tensor

    def __init__(
        self,
        points: Sequence[tuple[int, int]],
        offsets: Sequence[float],
        inner_eye: tuple[int, int] = (22, 25),
        fraction: float = 0.14,
    ) -> None:
        super().__init__()
        if len(points) != len(offsets):
            raise ValueError(
                f"offsets must have one number for each of the {len(points)} pairs of points, "
                f"got {len(offsets)}"
            )
        self.num_rois = 2 * len(points)
        self.inner_eye = inner_eye
        self.fraction = fraction
        self.points = tuple(point for pair in points for point in pair)
        self.offsets = tuple(offset for offset in offsets for _ in range(2))
        self._num_required = max(self.points + tuple(inner_eye)) + 1
        rois = self.num_rois
        self.register_buffer("_points", torch.empty(rois, dtype=torch.long), persistent=False)
        self.register_buffer("_offsets", torch.empty(rois, dtype=torch.float32), persistent=False)
        keep_constants(self)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Copy points and offsets to the device of the buffers."""
        self._points.copy_(torch.tensor(self.points, dtype=torch.long, device="cpu"))
        self._offsets.copy_(torch.tensor(self.offsets, dtype=torch.float32, device="cpu"))

    def window(self, height: int, width: int) -> int:
        """Return the side of the window on a map of this size: odd, at least 1, at most the map."""
        side = 2 * round((self.fraction * width - 1) / 2) + 1
        largest = min(height, width)
        return max(1, min(side, largest - 1 + largest % 2))

    def centers(self, landmarks: Tensor) -> Tensor:
        """Return the AU centers (B, R, 2) in pixels for landmarks (B, L, 2) in pixels."""
        landmarks = landmarks.to(torch.promote_types(landmarks.dtype, torch.float32))
        left, right = (landmarks[:, corner] for corner in self.inner_eye)
        distance = torch.linalg.vector_norm(left - right, dim=-1, keepdim=True)
        x, y = landmarks[:, self._points].unbind(-1)
        offsets = self._offsets.to(landmarks.device)
        return torch.stack((x, y + offsets * distance), dim=-1)

    def forward(
        self, feature_map: Tensor, landmarks: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Return the window of every center.

        Args:
            feature_map: (B, C, H, W).
            landmarks: (B, L, 2), x and y in pixels of the image. They get no gradient. One that is
                not a number counts as 0, one outside the image as the nearest on its border.
            image_size: height and width of that image, pixels.

        Returns:
            (B, R, C, s, s): for each pair of points the first point's window, then the second's.

        Raises:
            ValueError: a shape does not fit, or the rules name a landmark beyond L.
        """
        check_shape("feature_map", feature_map, "B C H W")
        batch, channels, height, width = feature_map.shape
        check_shape("landmarks", landmarks, "B L 2", B=batch)
        check_device("landmarks", landmarks, feature_map)
        if landmarks.shape[1] < self._num_required:
            raise ValueError(
                f"landmarks must have at least {self._num_required} points for these rules, "
                f"got {landmarks.shape[1]}"
            )
        side = self.window(height, width)
        x, y = self.centers(landmarks.detach()).unbind(-1)
        rows = _window_indices(y, image_size[0], height, side)
        columns = _window_indices(x, image_size[1], width, side)
        cells = (rows.unsqueeze(-1) * width + columns.unsqueeze(-2)).flatten(1)
        crops = feature_map.flatten(2).gather(2, cells.unsqueeze(1).expand(-1, channels, -1))
        return crops.unflatten(2, (self.num_rois, side, side)).transpose(1, 2)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.num_rois} windows, fraction={self.fraction}, inner_eye={self.inner_eye}"


def _window_indices(center: Tensor, pixels: int, cells: int, side: int) -> Tensor:
    """Return the `side` cell indices about each center along one axis, (B, R, side)."""
    # Pixel x covers [x - 0.5, x + 0.5), so the first cell starts at pixel coordinate -0.5.
    cell = ((center + 0.5) * (cells / pixels)).floor().nan_to_num(0.0)
    first = (cell - side // 2).clamp(0, cells - side).long()
    return first.unsqueeze(-1) + torch.arange(side, device=center.device)

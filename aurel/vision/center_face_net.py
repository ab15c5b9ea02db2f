"""The network CenterFace: boxes and points of the faces in pictures of one size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aurel.vision.onnx_net import OnnxNet

STRIDE = 4
"""Pixels of the input for each cell of the maps."""

MULTIPLE = 32
"""The sides of the input are multiples of this number of pixels."""

OVERLAP = 0.3
"""Of two boxes with this intersection over union, the less confident one is dropped."""


@dataclass(frozen=True)
class FoundBoxes:
    """The boxes in one picture, in its pixels, most confident first.

    Args:
        boxes: (F, 4) left, top, width, height.
        scores: (F,) in [0, 1].
        points: (F, 5, 2) in the order of `POINT_NAMES`.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    points: NDArray[np.float64]

    def scaled(self, factors: NDArray[np.float64]) -> FoundBoxes:
        """Return the boxes in a picture that is larger by factors (2,) in x and y."""
        return FoundBoxes(self.boxes * np.tile(factors, 2), self.scores, self.points * factors)

    def turned(self, width: float) -> FoundBoxes:
        """Return the boxes of `np.rot90(picture)` in the picture, which has this width."""
        x, y, across, down = self.boxes.T
        boxes = np.column_stack((width - y - down, x, down, across))
        points = np.stack((width - self.points[..., 1], self.points[..., 0]), axis=-1)
        return FoundBoxes(boxes, self.scores, points)

    def distinct(self, *others: FoundBoxes) -> FoundBoxes:
        """Return the boxes of several searches without those that overlap a more confident one."""
        every = (self, *others)
        boxes = np.concatenate([found.boxes for found in every])
        scores = np.concatenate([found.scores for found in every])
        points = np.concatenate([found.points for found in every])
        keep = without_overlaps(boxes, scores)
        return FoundBoxes(boxes[keep], scores[keep], points[keep])


class CenterFaceNet:
    """The network as a function of pictures.

    Args:
        path: its ONNX file.

    Source: Xu et al., "CenterFace: joint face detection and alignment using face as point",
    Scientific Programming 2020.
    """

    def __init__(self, path: Path) -> None:
        self._net = OnnxNet(path, free=(0, 2, 3))

    def __call__(self, images: NDArray[np.uint8], threshold: float) -> list[FoundBoxes]:
        """Return the boxes in each picture whose score is above the threshold.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            threshold: least score.
        """
        height, width = (-(-side // MULTIPLE) * MULTIPLE for side in images.shape[1:3])
        padded = np.zeros((len(images), 3, height, width), dtype=np.float32)
        padded[:, :, : images.shape[1], : images.shape[2]] = images.transpose(0, 3, 1, 2)
        maps = self._net(padded)
        return [
            decode(heat, scale, offset, points, threshold)
            for heat, scale, offset, points in zip(*maps, strict=True)
        ]


def decode(
    heat: NDArray[np.float32],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    points: NDArray[np.float32],
    threshold: float,
) -> FoundBoxes:
    """Return the boxes in the maps of one picture, of h x w cells.

    A cell (r, c) with score heat[0, r, c] has a box with center ((r, c) + offset + 1/2) 4 and size
    4 exp(scale), both in the order y, x; its points are fractions of the box from its corner.

    Args:
        heat: (1, h, w) scores.
        scale, offset: (2, h, w).
        points: (10, h, w), y and x of each point in turn.
        threshold: least score.
    """
    rows, columns = np.nonzero(heat[0] > threshold)
    scores = heat[0, rows, columns].astype(float)
    size = STRIDE * np.exp(scale[::-1, rows, columns].astype(float)).T
    cells = np.column_stack((columns, rows))
    center = STRIDE * (cells + offset[::-1, rows, columns].T.astype(float) + 0.5)
    corner = center - size / 2
    fractions = points[:, rows, columns].astype(float).T.reshape(-1, 5, 2)[..., ::-1]
    boxes = np.concatenate((corner, size), axis=1)
    keep = without_overlaps(boxes, scores)
    placed = corner[:, None] + fractions * size[:, None]
    return FoundBoxes(boxes[keep], scores[keep], placed[keep])


def without_overlaps(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the numbers of the boxes that overlap no more confident one, most confident first."""
    first, size = boxes[:, :2], boxes[:, 2:]
    last, area = first + size, size.prod(axis=1)
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        shared = np.minimum(last[best], last[waiting]) - np.maximum(first[best], first[waiting])
        common = shared.clip(0).prod(axis=1)
        waiting = waiting[common < OVERLAP * (area[best] + area[waiting] - common)]
    return np.array(kept, dtype=np.int64)

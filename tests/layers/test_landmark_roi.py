"""LandmarkROI: centers from landmarks, windows that stay inside, and no crash on bad landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.layers.landmark_roi import LandmarkROI

POINTS = ((4, 5), (24, 29), (31, 37))
OFFSETS = (-0.5, 1.0, 0.0)


def face(batch: int = 2, size: float = 224.0) -> Tensor:
    return torch.rand(batch, 49, 2) * size


def oracle(
    roi: LandmarkROI, feature_map: np.ndarray, landmarks: np.ndarray, image: tuple[int, int]
) -> np.ndarray:
    """Crop one window at a time."""
    batch, channels, height, width = feature_map.shape
    side = roi.window(height, width)
    out = np.zeros((batch, roi.num_rois, channels, side, side), feature_map.dtype)
    for b in range(batch):
        distance = np.linalg.norm(landmarks[b, 22] - landmarks[b, 25])
        centers = [
            landmarks[b, point] + (0, offset * distance)
            for pair, offset in zip(POINTS, OFFSETS, strict=True)
            for point in pair
        ]
        for r, (x, y) in enumerate(centers):
            column = int(np.floor((x + 0.5) * width / image[1])) - side // 2
            row = int(np.floor((y + 0.5) * height / image[0])) - side // 2
            row, column = np.clip(row, 0, height - side), np.clip(column, 0, width - side)
            out[b, r] = feature_map[b, :, row : row + side, column : column + side]
    return out


@pytest.mark.parametrize(
    ("map_size", "image_size"),
    [((56, 56), (224, 224)), ((24, 24), (96, 96)), ((20, 33), (80, 130))],
)
def test_equals_cropping_one_by_one(map_size: tuple[int, int], image_size: tuple[int, int]) -> None:
    roi = LandmarkROI(POINTS, OFFSETS)
    feature_map = torch.randn(3, 4, *map_size)
    landmarks = face(3) * torch.tensor(image_size).flip(0) / 224 * 1.3 - 10
    crops = roi(feature_map, landmarks, image_size)
    expected = oracle(roi, feature_map.numpy(), landmarks.numpy(), image_size)
    np.testing.assert_array_equal(crops.numpy(), expected)


def test_window_of_the_paper_and_others() -> None:
    roi = LandmarkROI(POINTS, OFFSETS)
    assert [roi.window(side, side) for side in (56, 24, 14, 7, 2, 1)] == [7, 3, 1, 1, 1, 1]
    assert LandmarkROI(POINTS, OFFSETS, fraction=1.0).window(6, 9) == 5
    assert LandmarkROI(POINTS, OFFSETS, fraction=1.0).window(7, 7) == 7


def test_window_is_centered_on_the_cell_that_holds_the_point() -> None:
    roi = LandmarkROI([(0, 1)], [0.0])
    feature_map = torch.arange(56.0 * 56).view(1, 1, 56, 56)
    landmarks = torch.zeros(1, 49, 2)
    for pixel, cell in ((99, 24), (100, 25), (103, 25), (104, 26)):
        landmarks[0, 0] = torch.tensor([pixel, 80.0])
        crop = roi(feature_map, landmarks, (224, 224))[0, 0, 0]
        assert crop[3, 3] == 20 * 56 + cell


def test_offsets_go_down_by_the_distance_of_the_inner_eye_corners() -> None:
    roi = LandmarkROI([(4, 5), (24, 29)], [-0.5, 1.0])
    landmarks = torch.full((1, 49, 2), 100.0)
    landmarks[0, 22] = torch.tensor([90.0, 100.0])
    landmarks[0, 25] = torch.tensor([120.0, 140.0])
    expected = torch.tensor([[100.0, 75.0], [100.0, 75.0], [100.0, 150.0], [100.0, 150.0]])
    torch.testing.assert_close(roi.centers(landmarks)[0], expected)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_impossible_landmarks_do_not_crash_and_do_not_spread(bad: float) -> None:
    roi = LandmarkROI(POINTS, OFFSETS)
    feature_map, landmarks = torch.randn(2, 4, 24, 24), face(2, 96.0)
    clean = roi(feature_map, landmarks, (96, 96))
    landmarks[0, 31] = bad
    crops = roi(feature_map, landmarks, (96, 96))
    corner = 21 if bad > 0 else 0
    border = feature_map[0, :, corner : corner + 3, corner : corner + 3]
    assert torch.equal(crops[0, 4], border)
    assert torch.equal(crops[0, [0, 1, 2, 3, 5]], clean[0, [0, 1, 2, 3, 5]])
    landmarks[0, 22] = bad
    crops = roi(feature_map, landmarks, (96, 96))
    assert crops.isfinite().all()
    assert torch.equal(crops[1], clean[1])


def test_gradient_flows_into_the_map_only() -> None:
    roi = LandmarkROI(POINTS, OFFSETS)
    feature_map = torch.randn(1, 2, 9, 9, dtype=torch.float64, requires_grad=True)
    landmarks = face(1, 36.0).requires_grad_()
    roi(feature_map, landmarks, (36, 36)).sum().backward()
    assert landmarks.grad is None and feature_map.grad.sum() == 6 * 2
    fixed = landmarks.detach()
    assert torch.autograd.gradcheck(lambda maps: roi(maps, fixed, (36, 36)), feature_map)


def test_other_dtypes_and_layouts() -> None:
    roi = LandmarkROI(POINTS, OFFSETS)
    feature_map, landmarks = torch.randn(2, 4, 24, 24), face(2, 96.0)
    expected = roi(feature_map, landmarks, (96, 96))
    last = feature_map.to(memory_format=torch.channels_last)
    assert torch.equal(roi(last, landmarks, (96, 96)), expected)
    half = roi(feature_map.bfloat16(), landmarks.double(), (96, 96))
    assert torch.equal(half, expected.bfloat16())
    assert roi(feature_map[:0], landmarks[:0], (96, 96)).shape == (0, 6, 4, 3, 3)


def test_compiles_and_exports() -> None:
    roi = LandmarkROI(POINTS, OFFSETS)
    feature_map, landmarks = torch.randn(3, 4, 24, 24), face(3, 96.0)
    compiled = torch.compile(roi, fullgraph=True, backend="aot_eager")
    expected = roi(feature_map, landmarks, (96, 96))
    assert torch.equal(compiled(feature_map, landmarks, (96, 96)), expected)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        roi,
        (feature_map, landmarks, (96, 96)),
        dynamic_shapes=({0: batch}, {0: batch}, (None, None)),
    )
    again = torch.randn(5, 4, 24, 24), face(5, 96.0), (96, 96)
    assert torch.equal(program.module()(*again), roi(*again))


def test_rules_are_not_weights() -> None:
    roi = LandmarkROI(POINTS, OFFSETS)
    assert not roi.state_dict() and not list(roi.parameters())
    assert "6 windows, fraction=0.14, inner_eye=(22, 25)" in repr(roi)


def test_errors() -> None:
    with pytest.raises(ValueError, match="offsets must have one number for each of the 3 pairs"):
        LandmarkROI(POINTS, OFFSETS[1:])
    roi = LandmarkROI(POINTS, OFFSETS)
    feature_map = torch.randn(2, 4, 24, 24)
    with pytest.raises(ValueError, match="at least 38 points for these rules, got 30"):
        roi(feature_map, face()[:, :30], (96, 96))
    with pytest.raises(
        ValueError, match=r"landmarks must have shape \(B=2, L, 2\), got \(3, 49, 2\)"
    ):
        roi(feature_map, face(3), (96, 96))
    with pytest.raises(ValueError, match=r"feature_map must have shape \(B, C, H, W\)"):
        roi(feature_map[0], face(), (96, 96))

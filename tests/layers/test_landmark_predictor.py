"""LandmarkPredictor: its size, its units, and that it learns."""

from __future__ import annotations

import pytest
import torch

from aurel.layers.landmark_predictor import LandmarkPredictor


def tiny(**options: object) -> LandmarkPredictor:
    return LandmarkPredictor(
        4, **{"num_landmarks": 5, "widths": (4, 6, 8), "map_size": 8, **options}
    )


def test_parameters_as_the_paper_counts_them() -> None:
    predictor = LandmarkPredictor(64)
    assert sum(parameter.numel() for parameter in predictor.parameters()) == 2_410_850
    assert round(2_410_850 / 1e6, 2) == 2.41
    assert predictor.linear.in_features == 256 * 7 * 7
    assert predictor.linear.out_features == 98


def test_shapes_at_other_map_sizes() -> None:
    for size, map_size in ((24, (24, 24)), ((9, 30), (9, 30))):
        predictor = tiny(map_size=size)
        assert predictor(torch.randn(3, 4, *map_size), (96, 96)).shape == (3, 5, 2)


def test_untrained_output_is_near_the_center_of_the_image() -> None:
    out = LandmarkPredictor(16, map_size=24)(torch.randn(8, 16, 24, 24), (100, 200))
    assert (out[..., 0] - 100).abs().max() < 50
    assert (out[..., 1] - 50).abs().max() < 25
    assert out.std(0).min() > 0


def test_units_are_pixels_of_the_image() -> None:
    predictor, feature_map = tiny().eval(), torch.randn(2, 4, 8, 8)
    small, large = (predictor(feature_map, size) for size in ((32, 64), (96, 640)))
    torch.testing.assert_close(large, small * torch.tensor([10.0, 3.0]))


def test_starts_at_a_given_mean_face() -> None:
    predictor = tiny().eval()
    mean_face = torch.rand(5, 2)
    predictor.reset_parameters(mean_face)
    out = predictor(torch.zeros(1, 4, 8, 8), (50, 100))
    torch.testing.assert_close(out[0], mean_face * torch.tensor([100.0, 50.0]))
    with pytest.raises(ValueError, match=r"mean_face must have shape \(L=5, 2\), got \(4, 2\)"):
        predictor.reset_parameters(mean_face[1:])


def test_learns_where_a_blob_is() -> None:
    predictor = tiny(num_landmarks=1, map_size=16)
    grid = torch.arange(16.0)
    where = 3 + 10 * torch.rand(64, 2)
    x, y = where[:, :1, None], where[:, 1:, None]
    blobs = torch.exp(-((grid - x) ** 2 + (grid[:, None] - y) ** 2) / 4)
    feature_map = blobs[:, None].expand(-1, 4, -1, -1)
    target = where[:, None] * 4
    optimizer = torch.optim.Adam(predictor.parameters(), 0.01)
    errors = []
    for _ in range(60):
        loss = (predictor(feature_map, (64, 64)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < errors[0] / 10
    assert all(parameter.grad.abs().sum() > 0 for parameter in predictor.parameters())


def test_coordinates_are_float32_at_least() -> None:
    predictor, feature_map = tiny().eval(), torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert predictor(feature_map, (96, 96)).dtype == torch.float32
    assert predictor.double()(feature_map.double(), (96, 96)).dtype == torch.float64


def test_reset_restores_batch_statistics() -> None:
    predictor = tiny()
    predictor(torch.randn(4, 4, 8, 8) + 3, (8, 8))
    predictor.reset_parameters()
    assert not any(buffer.any() for name, buffer in predictor.named_buffers() if "mean" in name)


def test_repr_and_errors() -> None:
    assert "num_landmarks=5, map_size=(8, 8)" in repr(tiny())
    with pytest.raises(ValueError, match="map_size must be at least 8, got .7, 7."):
        tiny(map_size=7)
    with pytest.raises(ValueError, match=r"feature_map must have shape .*H=8.*got \(1, 4, 9, 8\)"):
        tiny()(torch.randn(1, 4, 9, 8), (32, 32))

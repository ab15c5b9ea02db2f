"""MultiScaleFusion: bilinear resizing to the finest map, channels in order, tokens row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aurel.layers.multi_scale_fusion import MultiScaleFusion


def bilinear(feature_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate between cell centers; beyond the outermost center the border value holds."""

    def taps(cells: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = ((np.arange(size) + 0.5) * cells / size - 0.5).clip(0, cells - 1)
        low = np.floor(position).astype(int)
        return low, np.minimum(low + 1, cells - 1), position - low

    top, bottom, down = taps(feature_map.shape[2], height)
    left, right, across = taps(feature_map.shape[3], width)
    down = down[:, None]
    upper = feature_map[:, :, top] * (1 - down) + feature_map[:, :, bottom] * down
    return upper[..., left] * (1 - across) + upper[..., right] * across


@pytest.mark.parametrize("sizes", [((8, 8), (4, 4), (2, 2), (1, 1)), ((7, 5), (4, 3), (2, 2))])
def test_equals_numpy(sizes: tuple[tuple[int, int], ...]) -> None:
    maps = [
        torch.randn(2, 3 * 2**level, *size, dtype=torch.float64) for level, size in enumerate(sizes)
    ]
    tokens = MultiScaleFusion()(maps)
    height, width = sizes[0]
    expected = np.concatenate([bilinear(level.numpy(), height, width) for level in maps], axis=1)
    expected = expected.transpose(0, 2, 3, 1).reshape(2, height * width, -1)
    np.testing.assert_allclose(tokens.numpy(), expected, atol=1e-12)


def test_widths_of_the_paper() -> None:
    maps = [torch.zeros(1, 64 * 2**level, 56 // 2**level, 56 // 2**level) for level in range(4)]
    assert MultiScaleFusion()(maps).shape == (1, 3136, 960)


def test_one_map_is_only_flattened() -> None:
    feature_map = torch.randn(2, 4, 3, 5)
    tokens = MultiScaleFusion()([feature_map])
    assert torch.equal(tokens[:, 1 * 5 + 2], feature_map[:, :, 1, 2])


def test_gradcheck_and_no_parameters() -> None:
    fusion = MultiScaleFusion()
    assert not list(fusion.parameters())
    maps = [
        torch.randn(2, 2, side, side, dtype=torch.float64, requires_grad=True) for side in (4, 2)
    ]
    assert torch.autograd.gradcheck(lambda *levels: fusion(levels), maps)


def test_half_precision_and_empty_batch() -> None:
    maps = [torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)]
    half = MultiScaleFusion()([level.bfloat16() for level in maps])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), MultiScaleFusion()(maps), rtol=0.02, atol=0.02)
    assert MultiScaleFusion()([torch.zeros(0, 3, 4, 4)]).shape == (0, 16, 3)


def test_errors() -> None:
    with pytest.raises(ValueError, match="maps must hold at least one feature map"):
        MultiScaleFusion()([])
    with pytest.raises(ValueError, match=r"maps\[1\] must be \(B=2, C, H, W\), got \(3, 4, 2, 2\)"):
        MultiScaleFusion()([torch.zeros(2, 4, 4, 4), torch.zeros(3, 4, 2, 2)])

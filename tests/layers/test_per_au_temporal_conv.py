"""PerAUTemporalConv: equal to the authors' layer, and to a sum over frames node by node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load
from torch import Tensor

from aurel.layers.per_au_temporal_conv import PerAUTemporalConv
from aurel.models.author_keys.mdhr import per_au_temporal_conv

Golden = Callable[[str], dict[str, np.ndarray]]
CLIPS, FRAMES = 2, 6  # of the golden, which holds them as one axis


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_equals_the_authors_module(golden: Golden, mode: str) -> None:
    arrays = golden("individual_temporal")
    layer = PerAUTemporalConv(16, 5)
    load(layer, arrays, per_au_temporal_conv, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    out = layer(x.unflatten(0, (CLIPS, FRAMES))).flatten(0, 1)
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{mode}.out.0"]), **TOLERANCE)
    cotangent = torch.from_numpy(arrays["cotangent.0"])
    assert_gradients(layer, arrays, per_au_temporal_conv, mode, {"x": x}, [out], [cotangent])
    if mode == "train":
        assert_buffers(layer, arrays, per_au_temporal_conv)


def oracle(layer: PerAUTemporalConv, x: Tensor) -> np.ndarray:
    """Sum over the frames that exist, one output at a time."""
    weight = layer.conv.weight.detach().view(layer.num_nodes, layer.channels, -1).numpy()
    bias = layer.conv.bias.detach().view(layer.num_nodes, layer.channels).numpy()
    nodes, reach = x.numpy(), layer.kernel_size // 2
    out = np.zeros_like(nodes)
    for b, t, n in np.ndindex(*nodes.shape[:3]):
        out[b, t, n] = bias[n]
        for s in range(max(0, t - reach), min(nodes.shape[1], t + reach + 1)):
            out[b, t, n] += weight[n, :, s - t + reach] * nodes[b, s, n]
    mean, variance = out.mean((0, 1, 3)), out.var((0, 1, 3))
    return np.maximum((out - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5), 0)


@pytest.mark.parametrize(("kernel_size", "frames"), [(5, 7), (5, 1), (3, 2), (1, 4)])
def test_equals_the_equation(kernel_size: int, frames: int) -> None:
    layer = PerAUTemporalConv(3, 4, kernel_size).double()
    x = torch.randn(2, frames, 4, 3, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), oracle(layer, x), atol=1e-12)


def test_nan_stays_in_its_node_and_within_reach() -> None:
    layer = PerAUTemporalConv(3, 4).eval()
    x = torch.randn(2, 9, 4, 3)
    clean = layer(x)
    x[1, 4, 2, 0] = torch.nan
    out = layer(x)
    is_nan = torch.zeros(2, 9, 4, 3, dtype=torch.bool)
    is_nan[1, 2:7, 2, 0] = True
    assert torch.equal(out.isnan(), is_nan)
    torch.testing.assert_close(out[~is_nan], clean[~is_nan])


def test_parameters_of_the_released_model() -> None:
    layer = PerAUTemporalConv(512, 12)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 36_888


def test_strides_half_precision_and_empty_batch() -> None:
    layer = PerAUTemporalConv(3, 4).eval()
    x = torch.randn(4, 3, 2, 6).permute(2, 3, 0, 1)
    torch.testing.assert_close(layer(x), layer(x.contiguous()))
    assert layer(x[:0]).shape == (0, 6, 4, 3)
    half = layer.bfloat16()(x.bfloat16())
    torch.testing.assert_close(half.float(), layer.float()(x), rtol=0.05, atol=0.05)


def test_repr_and_errors() -> None:
    layer = PerAUTemporalConv(3, 4)
    assert "3, num_nodes=4, kernel_size=5" in repr(layer)
    with pytest.raises(ValueError, match=r"x must have shape \(B, T, N=4, C=3\), got \(2, 4, 3\)"):
        layer(torch.randn(2, 4, 3))
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"kernel_size must be odd and positive, got {size}"):
            PerAUTemporalConv(3, 4, size)

"""FacialDynamics against loops over frames, places and scales in float64, after the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aurel.layers.facial_dynamics import FacialDynamics

WIDTHS, STRIDES = (2, 3, 4, 5), (8, 4, 2, 1)
FUSIONS = ("adaptive", "sum", "cat")
PADDINGS = ("zeros", "repeat")


def make(scales: tuple[int, ...] = (0, 1, 2, 3), k: int = 2, **options: Any) -> FacialDynamics:
    """A small layer whose batch norms are not the identity."""
    widths, strides = [WIDTHS[s] for s in scales], [STRIDES[s] for s in scales]
    layer = FacialDynamics(widths, strides, 6, 7, k, **options).double()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return layer


def random_maps(
    batch: int, frames: int, side: tuple[int, int] = (2, 3), scales: tuple[int, ...] = (0, 1, 2, 3)
) -> list[Tensor]:
    return [
        torch.randn(
            batch, frames, WIDTHS[s], *(STRIDES[s] * n for n in side), dtype=torch.float64
        ).requires_grad_()
        for s in scales
    ]


def numpy_of(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def convolve(conv: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """Patch by patch, (M, C, H, W) to (M, C', h, w)."""
    weight, bias, s = numpy_of(conv.weight), numpy_of(conv.bias), conv.kernel_size[0]
    height, width = x.shape[2] // s, x.shape[3] // s
    out = np.empty((len(x), len(weight), height, width))
    for m, o, i, j in np.ndindex(*out.shape):
        patch = x[m, :, s * i : s * i + s, s * j : s * j + s]
        out[m, o, i, j] = (weight[o] * patch).sum() + bias[o]
    return out


def normalize(norm: nn.BatchNorm2d, x: np.ndarray, training: bool) -> np.ndarray:
    mean, variance = numpy_of(norm.running_mean), numpy_of(norm.running_var)
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    scale = numpy_of(norm.weight) / np.sqrt(variance + norm.eps)
    shift = numpy_of(norm.bias) - mean * scale
    return np.maximum(x * scale[:, None, None] + shift[:, None, None], 0)


def block(sequence: nn.Sequential, x: np.ndarray, training: bool) -> np.ndarray:
    return normalize(sequence[1], convolve(sequence[0], x), training)


def oracle(layer: FacialDynamics, maps: list[Tensor], training: bool) -> np.ndarray:
    k = layer.num_adjacent
    batch, frames = maps[0].shape[:2]
    averages = []
    for scale, feature_map in zip(layer.scales, maps, strict=True):
        videos = [list(video) for video in numpy_of(feature_map)]
        if layer.padding == "repeat":
            videos = [[video[0]] * k + video + [video[-1]] * k for video in videos]
        steps = [[b - a for a, b in zip(video, video[1:], strict=False)] for video in videos]
        steps_of_all = np.array(sum(steps, [])).reshape(-1, *feature_map.shape[2:])
        moved = block(scale, steps_of_all, training)
        moved = moved.reshape(batch, len(videos[0]) - 1, *moved.shape[1:])
        average = np.zeros((batch, frames, *moved.shape[2:]))
        for t in range(frames):
            for s in range(t - k, t + k):
                # With repeated frames the first difference belongs to frame -k.
                index = s + k if layer.padding == "repeat" else s
                if 0 <= index < moved.shape[1]:
                    average[:, t] += moved[:, index] / (2 * k)
        averages.append(average.reshape(batch * frames, *moved.shape[2:]))
    if layer.fusion == "cat":
        fused = np.concatenate(averages, axis=1)
    elif layer.fusion == "sum" or len(averages) == 1:
        fused = sum(averages)
    else:
        gates = [
            block(gate, average, training)
            for gate, average in zip(layer.gates, averages, strict=True)
        ]
        scores = np.exp(convolve(layer.weigh, np.concatenate(gates, axis=1)))
        weights = scores / scores.sum(1, keepdims=True)
        fused = sum(weights[:, i, None] * average for i, average in enumerate(averages))
    out = block(layer.project, fused, training).transpose(0, 2, 3, 1)
    return out.reshape(batch, frames, *out.shape[1:])


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_equals_the_equations(training: bool, fusion: str, padding: str) -> None:
    layer = make(fusion=fusion, padding=padding).train(training)
    maps = random_maps(2, 5)
    out = layer(maps)
    assert out.shape == (2, 5, 2, 3, 7)
    np.testing.assert_allclose(numpy_of(out), oracle(layer, maps, training), atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("k", "frames"), [(1, 4), (3, 2), (5, 9), (2, 1)])
@pytest.mark.parametrize("scales", [(0, 3), (2,)])
def test_any_length_reach_and_choice_of_scales(
    scales: tuple[int, ...], k: int, frames: int, padding: str
) -> None:
    layer = make(scales, k, padding=padding).eval()
    maps = random_maps(1, frames, (1, 2), scales)
    np.testing.assert_allclose(numpy_of(layer(maps)), oracle(layer, maps, False), atol=1e-12)
    assert (layer.weigh is None) == (len(scales) == 1)


def passing_through(k: int, padding: str) -> FacialDynamics:
    """A layer that gives the averaged motion of a map of ones as it is."""
    layer = FacialDynamics([1], [1], 1, 1, k, padding=padding).double().eval()
    for block in (layer.scales[0], layer.project):
        nn.init.ones_(block[0].weight)
        nn.init.zeros_(block[0].bias)
        nn.init.constant_(block[1].running_var, 1 - block[1].eps)
    return layer


@pytest.mark.parametrize(
    ("k", "ends"), [(5, [0.5, 0.6, 0.7, 0.8, 0.9]), (1, [0.5])], ids=["k=5", "k=1"]
)
@pytest.mark.parametrize("padding", PADDINGS)
def test_steady_motion_fades_at_the_ends(k: int, ends: list[float], padding: str) -> None:
    """The authors' numbers for 15 differences of 1; frames that are repeated do not move."""
    clip = torch.arange(16, dtype=torch.float64).view(1, 16, 1, 1, 1)
    out = passing_through(k, padding)([clip]).flatten()
    expected = torch.tensor([*ends, *[1.0] * (16 - 2 * len(ends)), *ends[::-1]]).double()
    torch.testing.assert_close(out, expected)


def test_padding_matters_for_what_stands_still() -> None:
    still = torch.zeros(1, 4, 1, 1, 1, dtype=torch.float64)
    found = {}
    for padding in PADDINGS:
        layer = passing_through(2, padding)
        nn.init.ones_(layer.scales[0][0].bias)
        found[padding] = layer([still]).flatten().tolist()
    assert found == {"zeros": [0.5, 0.75, 0.75, 0.5], "repeat": [1.0] * 4}


def test_parameters_of_the_released_model() -> None:
    with torch.device("meta"):
        layer = FacialDynamics((256, 512, 1024, 2048), STRIDES, 2048, 512)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 64_120_772


def test_weights_are_initialized_as_by_the_authors() -> None:
    layer = FacialDynamics([16], [4], 64, 64)
    for block, variance in ((layer.scales[0], 2 / (16 * 64)), (layer.project, 2 / 64)):
        torch.testing.assert_close(
            block[0].weight.std(), torch.tensor(variance**0.5), rtol=0.1, atol=0
        )


def test_gradients() -> None:
    layer = make((2, 3)).eval()
    maps = random_maps(1, 3, (1, 1), (2, 3))
    assert torch.autograd.gradcheck(lambda *maps: layer(maps), tuple(maps))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_learns(fusion: str) -> None:
    layer = make(fusion=fusion)
    out = layer(random_maps(3, 5))
    out.backward(torch.randn_like(out))
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias before batch norm has no effect on it.
        if not name.endswith("0.bias"):
            assert parameter.grad.abs().sum() > 0, name


def test_nan_stays_in_its_clip_and_within_reach() -> None:
    layer = make(k=2).eval()
    maps = random_maps(2, 9)
    clean = layer(maps)
    with_nan = [feature_map.detach().clone() for feature_map in maps]
    with_nan[1][1, 4] = torch.nan
    out = layer(with_nan)
    # Differences 3 and 4 reach the frames 2 to 6.
    assert out[1, 2:7].isnan().all()
    torch.testing.assert_close(out[0], clean[0])
    torch.testing.assert_close(out[1, [0, 1, 7, 8]], clean[1, [0, 1, 7, 8]])


def test_inputs_stay_and_strides_do_not_matter() -> None:
    layer = make()
    maps = [feature_map.detach() for feature_map in random_maps(2, 3)]
    before = [feature_map.clone() for feature_map in maps]
    out = layer(maps)
    assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))
    strided = [feature_map.transpose(0, 4).contiguous().transpose(0, 4) for feature_map in maps]
    torch.testing.assert_close(layer(strided), out)


def test_half_precision_autocast_and_empty_batch() -> None:
    layer = make().float().eval()
    maps = [feature_map.detach().float() for feature_map in random_maps(2, 4)]
    exact = layer(maps)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(maps).float(), exact, rtol=0.05, atol=0.1)
    half = layer.bfloat16()([feature_map.bfloat16() for feature_map in maps])
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.1)
    assert layer.float()([feature_map[:0] for feature_map in maps]).shape == (0, 4, 2, 3, 7)


def test_repr_and_errors() -> None:
    layer = make()
    assert "strides=(8, 4, 2, 1), hidden=6, out=7, k=2, fusion='adaptive'" in repr(layer)
    maps = random_maps(2, 3)
    with pytest.raises(ValueError, match="maps must be 4, one a scale, got 3"):
        layer(maps[1:])
    with pytest.raises(ValueError, match=r"maps\[2\] must have .*H=4, W=6\), got \(2, 3, 5, 2, 3"):
        layer([*maps[:2], maps[3], maps[3]])
    with pytest.raises(ValueError, match=r"maps\[0\] must have .*H=16, W=24\), got .*16, 25\)"):
        layer([torch.randn(2, 3, 2, 16, 25), *maps[1:]])
    with pytest.raises(ValueError, match="2 frames or more in training, got 1"):
        layer(random_maps(2, 1))
    with pytest.raises(ValueError, match="num_adjacent must be 1 or more, got 0"):
        make(k=0)
    with pytest.raises(ValueError, match="fusion must be one of adaptive, sum, cat, got 'max'"):
        make(fusion="max")
    with pytest.raises(ValueError, match="padding must be one of zeros, repeat, got 'reflect'"):
        make(padding="reflect")
    with pytest.raises(ValueError, match=r"one entry a scale, at least one, got \(2,\) and \(\)"):
        FacialDynamics([2], [], 6, 7)

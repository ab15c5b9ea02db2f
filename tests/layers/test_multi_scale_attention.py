"""MultiScaleAttention gives the authors' numbers; MultiScaleLinearAttention those of timm's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load
from timm.models.efficientvit_mit import LiteMLA
from torch import Tensor, nn

from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.multi_scale_attention import MultiScaleAttention
from aurel.layers.multi_scale_linear_attention import MultiScaleLinearAttention
from aurel.models.author_keys import macg as author_keys
from aurel.models.author_keys.layers import au_specific_features

Golden = Callable[[str], dict[str, np.ndarray]]
LAYERS = (MultiScaleAttention, MultiScaleLinearAttention)
both = pytest.mark.parametrize("layer_type", LAYERS, ids=lambda x: x.__name__)


class Generator(nn.Module):
    """The authors' whole module: attention, then features of each AU."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = MultiScaleAttention(16)
        self.features = AUSpecificFeatures(16, 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.attention(x).flatten(2).mT).mean(2)


def convert(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    blocks = {
        k.removeprefix("class_linears."): v
        for k, v in author.items()
        if k.startswith("class_linears.")
    }
    parts = {
        "attention": author_keys.multi_scale_attention(author),
        "features": au_specific_features(blocks),
    }
    return {f"{part}.{name}": value for part, keys in parts.items() for name, value in keys.items()}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gives_the_authors_numbers(golden: Golden, mode: str) -> None:
    arrays = golden("mafg")
    module = Generator()
    load(module, arrays, convert, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    out = module(x)
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{mode}.out.0"]), **TOLERANCE)
    cotangent = torch.from_numpy(arrays["cotangent.0"])
    assert_gradients(module, arrays, convert, mode, {"x": x}, [out], [cotangent])
    if mode == "train":
        assert_buffers(module, arrays, convert)


def strip(image: np.ndarray, taps: np.ndarray, bias: float) -> np.ndarray:
    """Correlate a map with taps (height, width), borders being zero."""
    rows, columns = (size // 2 for size in taps.shape)
    padded = np.pad(image, ((rows, rows), (columns, columns)))
    out = np.full_like(image, bias)
    for (i, j), tap in np.ndenumerate(taps):
        out += tap * padded[i : i + image.shape[0], j : j + image.shape[1]]
    return out


@pytest.mark.parametrize("size", [(7, 7), (3, 24), (1, 1)], ids=str)
def test_meets_the_equation(size: tuple[int, int]) -> None:
    layer = MultiScaleAttention(3).double()
    w = {name: value.numpy() for name, value in layer.state_dict().items()}
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    out = layer(x).detach().numpy()
    for image, result in zip(x.numpy(), out, strict=True):
        total = np.empty_like(image)
        for c, channel in enumerate(image):
            local = strip(channel, w["local.weight"][c, 0], w["local.bias"][c])
            total[c] = local
            for k in range(3):
                across, along = (f"strips.{k}.{step}" for step in (0, 1))
                row = strip(local, w[f"{across}.weight"][c, 0], w[f"{across}.bias"][c])
                total[c] += strip(row, w[f"{along}.weight"][c, 0], w[f"{along}.bias"][c])
        mixed = np.tensordot(w["mix.weight"][:, :, 0, 0], total, 1) + w["mix.bias"][:, None, None]
        np.testing.assert_allclose(result, image * mixed, rtol=1e-10, atol=1e-12)


def test_strips_have_the_lengths_of_the_paper() -> None:
    layer = MultiScaleAttention(4)
    assert [pair[0].kernel_size for pair in layer.strips] == [(1, 7), (1, 11), (1, 21)]
    assert [pair[1].kernel_size for pair in layer.strips] == [(7, 1), (11, 1), (21, 1)]
    count = sum(parameter.numel() for parameter in MultiScaleAttention(512).parameters())
    assert count == 26 * 512 + 84 * 512 + 512**2 + 512


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_linear_attention_is_that_of_efficientvit(training: bool) -> None:
    actual = MultiScaleLinearAttention(48).double()
    expected = LiteMLA(48, 48, dim=16, scales=(3, 5)).double()
    values = list(actual.state_dict().values())
    expected.load_state_dict(dict(zip(expected.state_dict(), values, strict=True)))
    actual.train(training), expected.train(training)
    x = torch.randn(2, 48, 5, 7, dtype=torch.float64)
    # The code of the authors computes in float32.
    torch.testing.assert_close(actual(x), x + expected(x), rtol=1e-5, atol=1e-5)
    for a, b in zip(actual.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@both
def test_gradcheck(layer_type: type[nn.Module]) -> None:
    layer = layer_type(16).double()
    x = torch.randn(1, 16, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)
    layer(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@both
def test_low_precision_and_layout(layer_type: type[nn.Module]) -> None:
    layer = layer_type(32).eval()
    x = torch.randn(2, 32, 7, 7)
    expected = layer(x)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected)
    before = x.clone()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    half = deepcopy(layer).bfloat16()(x.bfloat16())
    assert torch.equal(x, before) and half.dtype == torch.bfloat16
    for out in (mixed, half):
        assert (out - expected).abs().max() < 0.03 * expected.abs().max()


@both
def test_compiles_in_one_graph(layer_type: type[nn.Module]) -> None:
    layer = layer_type(16)
    other = deepcopy(layer)
    x = torch.randn(2, 16, 3, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), other(x))


def test_messages() -> None:
    for layer_type in LAYERS:
        with pytest.raises(ValueError, match=r"x must have shape \(B, C=16, H, W\), got \(2, 49,"):
            layer_type(16)(torch.rand(2, 49, 16))
    with pytest.raises(ValueError, match="channels must be a multiple of 16, got 40"):
        MultiScaleLinearAttention(40)
    assert repr(MultiScaleAttention(16)).startswith("MultiScaleAttention(\n  16")


@both
def test_empty_batch(layer_type: type[nn.Module]) -> None:
    assert layer_type(16).eval()(torch.zeros(0, 16, 4, 5)).shape == (0, 16, 4, 5)

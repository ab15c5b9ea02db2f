"""PerAUClassifier: equal to N classifiers, one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.per_au_classifier import PerAUClassifier


def plain(layer: PerAUClassifier, maps: Tensor, training: bool) -> Tensor:
    """Equation 6: each AU through convolutions, norms and a last convolution of its own."""
    logits = []
    for au in range(layer.num_nodes):
        x = maps[:, au]
        for block in layer.blocks:
            convolution, norm, _ = block
            width = convolution.out_channels // layer.num_nodes
            rows = slice(au * width, (au + 1) * width)
            x = F.conv2d(x, convolution.weight[rows], convolution.bias[rows], stride=2, padding=3)
            mean, variance = norm.running_mean[rows], norm.running_var[rows]
            if training:
                mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
            x = x * norm.weight[rows, None, None] + norm.bias[rows, None, None]
            x = torch.where(x > 0, x, x.exp() - 1)
        logits.append(x.mean((2, 3)) @ layer.head.weight[au, :, 0, 0] + layer.head.bias[au])
    return torch.stack(logits, 1)


@pytest.fixture
def layer() -> PerAUClassifier:
    layer = PerAUClassifier(3, 4, (2, 5)).double()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (9, 13), (2, 1)])
def test_equals_the_plain_definition(
    layer: PerAUClassifier, training: bool, size: tuple[int, int]
) -> None:
    layer.train(training)
    maps = torch.randn(3, 4, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = plain(layer, maps, training)
    logits = layer(maps)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    cotangent = torch.randn_like(logits)
    inputs = (maps, *layer.parameters())
    actual, reference = (torch.autograd.grad(out, inputs, cotangent) for out in (logits, expected))
    for one, other in zip(actual, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_an_au_depends_on_its_own_maps_alone(layer: PerAUClassifier) -> None:
    maps = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer.train()(maps)[:, 2].square().sum(), maps)
    nonzero = gradient.abs().sum((0, 2, 3, 4)) > 0
    assert nonzero.tolist() == [False, False, True, False]


def test_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        one, twelve = PerAUClassifier(3, 1), PerAUClassifier(3, 12)
        assert twelve(torch.empty(2, 12, 3, 256, 256)).shape == (2, 12)
        sides = twelve.blocks(torch.empty(1, 36, 256, 256)).shape
    counts = [sum(p.numel() for p in layer.parameters()) for layer in (one, twelve)]
    assert counts == [2_136_577, 12 * 2_136_577]
    assert sides == (1, 12 * 256, 8, 8)


def test_initial_weights() -> None:
    layer = PerAUClassifier(3, 8)
    for block, fan_in in zip(layer.blocks, (3, 16, 32, 64, 128), strict=True):
        assert block[0].weight.std().item() == pytest.approx((2 / (49 * fan_in)) ** 0.5, rel=0.05)
        assert not block[0].bias.any()


def test_shapes_and_repr(layer: PerAUClassifier) -> None:
    with pytest.raises(ValueError, match=r"maps must have shape \(B, N=4, D=3, H, W\), got"):
        layer(torch.zeros(2, 3, 4, 8, 8))
    assert layer.eval()(torch.zeros(0, 4, 3, 8, 8, dtype=torch.float64)).shape == (0, 4)
    assert "3, num_nodes=4, widths=(2, 5)" in repr(layer)

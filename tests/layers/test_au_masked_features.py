"""AUMaskedFeatures and MapDecoder: equal to the plain definition, one AU after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.au_masked_features import AUMaskedFeatures
from aurel.layers.map_decoder import MapDecoder

WIDTHS = (6, 6, 4)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


def random_norms(module: nn.Module) -> None:
    """Give norms a scale and a shift that are not the initial ones."""
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            nn.init.normal_(part.weight, 1.0, 0.3)
            nn.init.normal_(part.bias)


def activate(norm: nn.Module, x: Tensor) -> Tensor:
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    x = (x - mean) / (variance + 1e-5).sqrt()
    x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
    return torch.where(x > 0, x, 0.2 * x)


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


def plain_trunk(decoder: MapDecoder, x: Tensor, bottlenecks: int, residual: bool) -> Tensor:
    """Return the input of the heads by the equation of `MapDecoder`: upsample, then 1x1."""
    if isinstance(decoder.project, nn.Conv2d):
        x = conv(decoder.project, x)
    for index, block in enumerate(decoder.blocks):
        up = (lambda y: y) if index < bottlenecks else doubled
        if residual:
            inner = conv(block.conv1, up(activate(block.norm1, x)))
            inner = conv(block.conv2, activate(block.norm2, inner))
            is_conv = isinstance(block.shortcut, nn.Conv2d)
            x = (conv(block.shortcut, up(x)) if is_conv else up(x)) + inner
            x = x / 2**0.5
        else:
            x = activate(block.norm, conv(block.conv, up(x)))
    return activate(decoder.norm, x) if residual else x


def plain(layer: AUMaskedFeatures, h: Tensor, bottlenecks: int) -> tuple[Tensor, Tensor]:
    """Equations 3 to 5 with a head an AU."""
    maps = plain_trunk(layer.maps, h, bottlenecks, residual=True)
    coarse = plain_trunk(layer.masks, h, 0, residual=False)
    features, masks = [], []
    channels = layer.map_channels
    for au in range(layer.num_nodes):
        rows = slice(au * channels, (au + 1) * channels)
        weight, bias = layer.maps.head.weight[rows], layer.maps.head.bias[rows]
        feature = F.conv2d(maps, weight, bias).sigmoid()
        weight, bias = layer.masks.head.weight[au : au + 1], layer.masks.head.bias[au : au + 1]
        mask = F.conv2d(coarse, weight, bias).sigmoid()
        features.append(feature * mask)
        masks.append(mask[:, 0])
    return torch.stack(features, 1), torch.stack(masks, 1)


@pytest.mark.parametrize("in_channels", [5, 6])
@pytest.mark.parametrize("bottlenecks", [0, 2])
def test_equals_the_plain_definition(in_channels: int, bottlenecks: int) -> None:
    layer = AUMaskedFeatures(in_channels, 4, 3, WIDTHS, bottlenecks).double()
    random_norms(layer)
    h = torch.randn(2, in_channels, 3, 5, dtype=torch.float64, requires_grad=True)
    actual, expected = layer(h), plain(layer, h, bottlenecks)
    assert actual[0].shape == (2, 4, 3, 12, 20) and actual[1].shape == (2, 4, 12, 20)
    torch.testing.assert_close(actual, expected, **TOLERANCE)
    cotangent = torch.randn_like(actual[0])
    inputs = (h, *layer.parameters())
    gradients = [torch.autograd.grad(out[0], inputs, cotangent) for out in (actual, expected)]
    for own_grad, plain_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(own_grad, plain_grad, **TOLERANCE)
    assert all(gradient.isfinite().all() for gradient in gradients[0])


def test_sizes_of_the_full_network() -> None:
    """StarGAN v2's decoder widths, 12 AUs, the map of InceptionResnetV1."""
    with torch.device("meta"):
        layer = AUMaskedFeatures(896, 12)
        features, masks = layer(torch.empty(1, 896, 16, 16))
    assert features.shape == (1, 12, 3, 256, 256) and masks.shape == (1, 12, 256, 256)
    counts = [sum(p.numel() for p in part.parameters()) for part in (layer.maps, layer.masks)]
    assert counts == [17_124_772, 4_370_508]
    assert layer.maps.scale == layer.masks.scale == 16


def test_between_zero_and_one() -> None:
    layer = AUMaskedFeatures(5, 3, 2, WIDTHS, 0)
    features, masks = layer(10 * torch.randn(2, 5, 4, 4))
    assert (masks >= 0).all() and (masks <= 1).all()
    assert (features >= 0).all() and (features <= masks.unsqueeze(2)).all()


def test_without_masks() -> None:
    torch.manual_seed(1)
    masked = AUMaskedFeatures(5, 3, 2, WIDTHS, 1)
    torch.manual_seed(1)
    free = AUMaskedFeatures(5, 3, 2, WIDTHS, 1, masked=False)
    h = torch.randn(2, 5, 4, 4)
    features, masks = masked(h)
    maps, nothing = free(h)
    assert nothing is None and not any(name.startswith("masks") for name in free.state_dict())
    torch.testing.assert_close(features, maps * masks.unsqueeze(2))


def test_gradients() -> None:
    layer = AUMaskedFeatures(2, 2, 1, (2, 2), 1).double()
    h = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], h)


def test_strided_input_and_initial_weights() -> None:
    layer = MapDecoder(64, 5, (64, 32), residual=True, bottlenecks=1)
    h = torch.randn(2, 4, 3, 64).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(h), layer(h.contiguous()))
    wide = [m for m in layer.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    for module in wide:
        fan_in = module.in_channels * 9
        assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
        assert not module.bias.any()


def test_the_seed_decides_the_weights() -> None:
    layer = AUMaskedFeatures(5, 3, 2, WIDTHS, 1)
    torch.manual_seed(4)
    layer.reset_parameters()
    first = [parameter.clone() for parameter in layer.parameters()]
    random_norms(layer)
    torch.manual_seed(4)
    layer.reset_parameters()
    assert all(map(torch.equal, first, layer.parameters()))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="widths must have at least two entries, got .8,."):
        MapDecoder(3, 1, (8,))
    with pytest.raises(ValueError, match="bottlenecks must be 0 without residual, got 1"):
        MapDecoder(3, 1, (8, 8), residual=False, bottlenecks=1)
    layer = AUMaskedFeatures(5, 3, 2, WIDTHS, 0)
    with pytest.raises(ValueError, match=r"h must have shape \(B, C=5, H, W\), got \(2, 4, 4, 4\)"):
        layer(torch.zeros(2, 4, 4, 4))
    with pytest.raises(ValueError, match="more than one cell a channel, got a map of 1 x 1"):
        layer(torch.zeros(2, 5, 1, 1))


def test_repr() -> None:
    assert "5, num_nodes=3, map_channels=2, masked=True" in repr(
        AUMaskedFeatures(5, 3, 2, WIDTHS, 0)
    )
    assert "5, 7, scale=4" in repr(MapDecoder(5, 7, WIDTHS))


def test_empty_batch() -> None:
    layer = AUMaskedFeatures(5, 3, 2, WIDTHS, 1)
    assert layer(torch.zeros(0, 5, 4, 4))[0].shape == (0, 3, 2, 16, 16)

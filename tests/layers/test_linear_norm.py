"""LinearNorm and its parts: grouped maps, and batch statistics without absent nodes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.linear_norm import LinearNorm, grouped_linear, interleave
from aurel.layers.masked_norm import batch_norm


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_map_is_a_grouped_convolution(groups: int) -> None:
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    conv = nn.Conv1d(8, 12, 1, groups=groups).double()
    got = grouped_linear(x, conv.weight.squeeze(-1), conv.bias, groups)
    torch.testing.assert_close(got, conv(x.mT).mT)


def test_interleaving_alternates_channels() -> None:
    first, second = torch.arange(3.0), torch.arange(3.0) + 10
    assert interleave(first, second).tolist() == [0, 10, 1, 11, 2, 12]


def trained_norm() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    return norm


def run(norm: nn.BatchNorm1d, x: Tensor, mask: Tensor | None, cotangent: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = batch_norm(norm, x, mask)
    grads = torch.autograd.grad(out, [x, norm.weight, norm.bias], cotangent)
    return [out, *grads, norm.running_mean, norm.running_var, norm.num_batches_tracked]


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_those_of_what_is_present(training: bool) -> None:
    x, cotangent = torch.randn(2, 4, 5, 7, 6, dtype=torch.float64)
    mask = torch.rand(4, 5, 7) < 0.6
    cotangent[~mask] = 0
    masked, packed = trained_norm().train(training), nn.BatchNorm1d(6).double().train(training)
    packed.load_state_dict(masked.state_dict())
    got = run(masked, x, mask, cotangent)
    expected = run(packed, x[mask], None, cotangent[mask])
    for index, (actual, reference) in enumerate(zip(got, expected, strict=True)):
        torch.testing.assert_close(actual[mask] if index < 2 else actual, reference)


@pytest.mark.parametrize("present", [0, 1])
def test_too_few_nodes_teach_nothing(present: int) -> None:
    norm = trained_norm()
    before = norm.running_mean.clone(), norm.running_var.clone()
    mask = torch.arange(6).view(2, 3) < present
    out = batch_norm(norm, torch.randn(2, 3, 6, dtype=torch.float64), mask)
    assert out.isfinite().all()
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])


def test_an_empty_batch_passes() -> None:
    layer = LinearNorm(4, 6, 2)
    assert layer(torch.zeros(0, 3, 4)).shape == (0, 3, 6)
    assert layer.norm.running_mean.isfinite().all()


def test_layer_is_map_then_norm() -> None:
    layer = LinearNorm(8, 12, 4)
    nn.init.normal_(layer.norm.weight)
    x = torch.randn(3, 5, 8)
    linear = F.conv1d(x.mT, layer.weight[..., None], layer.bias, groups=4)
    expected = F.batch_norm(linear, None, None, layer.norm.weight, layer.norm.bias, training=True)
    torch.testing.assert_close(layer(x), expected.mT)
    assert repr(layer).startswith("LinearNorm(\n  8, 12, groups=4")


def test_groups_must_divide_the_widths() -> None:
    for widths in ((6, 8), (8, 6)):
        with pytest.raises(ValueError, match="groups must divide the widths .* got 4"):
            LinearNorm(*widths, groups=4)

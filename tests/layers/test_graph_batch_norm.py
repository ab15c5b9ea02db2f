"""GraphBatchNorm is torch's batch normalization, of what is there."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from aurel.layers.graph_batch_norm import GraphBatchNorm

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def pair(
    entries: tuple[int, ...], kind: type[nn.Module] = nn.BatchNorm1d, **options: float | None
) -> tuple[GraphBatchNorm, nn.Module]:
    """Return our layer and torch's, with the same random parameters and buffers."""
    actual = GraphBatchNorm(entries, **options).double()
    expected = kind(actual.weight.numel(), **options).double()
    with torch.no_grad():
        for tensor in (actual.weight, actual.bias, actual.running_mean):
            tensor.normal_()
        actual.running_var.uniform_(0.5, 2.0)
    expected.load_state_dict(
        {k: v.flatten() if v.dim() else v for k, v in actual.state_dict().items()}
    )
    return actual, expected


def assert_same_buffers(actual: GraphBatchNorm, expected: nn.Module) -> None:
    for name in BUFFERS:
        a, b = getattr(actual, name), getattr(expected, name)
        torch.testing.assert_close(a.flatten(), b.flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("entries", [(5,), (3, 3)], ids=["nodes", "pairs"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "all present"])
def test_equals_torch(entries, training: bool, momentum: float | None, masked: bool) -> None:
    actual, reference = pair(entries, momentum=momentum)
    actual.train(training), reference.train(training)
    mask = torch.ones(4, *entries, dtype=torch.bool) if masked else None
    for _ in range(3):
        x = (torch.randn(4, *entries, 6, dtype=torch.float64) + 3).requires_grad_()
        out = actual(x, mask)
        expected = reference(x.flatten(1, -2)).view(x.shape)
        torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
        cotangent = torch.randn_like(x)
        leaves = [(x, actual.weight, actual.bias), (x, reference.weight, reference.bias)]
        grads = [
            torch.autograd.grad(y, given, cotangent)
            for y, given in zip((out, expected), leaves, strict=True)
        ]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a.flatten(), b.flatten(), rtol=1e-10, atol=1e-10)
        assert_same_buffers(actual, reference)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and scatter of x (B, N, N, D, C) an image and entry."""
    mean = x.mean((3, 4))
    return mean, (x - mean[..., None, None]).square().sum((3, 4))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("origin", [0.0, 7.5])
def test_affine_needs_the_moments_only(training: bool, origin: float) -> None:
    actual, reference = pair((3, 3), nn.BatchNorm2d)
    actual.train(training), reference.train(training)
    x = torch.randn(2, 3, 3, 5, 4, dtype=torch.float64) * 2 + 1
    mean, scatter = moments(x)
    scale, shift = actual.affine(mean - origin, scatter, 20, origin=torch.tensor(origin).double())
    out = (x - mean[..., None, None]) * scale[..., None, None] + shift[..., None, None]
    expected = reference(x.flatten(1, 2)).view(x.shape)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
    assert_same_buffers(actual, reference)


def test_masked_statistics_are_of_what_is_there() -> None:
    layer, _ = pair((3,))
    before = deepcopy(layer)
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, False]])
    x = torch.randn(3, 3, 4, dtype=torch.float64)
    x[~mask] = torch.nan
    out = layer(x, mask)
    assert not out[~mask].any()
    for entry in range(3):
        rows = x[mask[:, entry], entry]
        if not len(rows):
            assert layer.running_mean[entry] == before.running_mean[entry]
            assert layer.running_var[entry] == before.running_var[entry]
            continue
        single = nn.BatchNorm1d(1).double()
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(single, name).data.copy_(getattr(before, name)[entry])
        torch.testing.assert_close(out[mask[:, entry], entry], single(rows[:, None])[:, 0])
        torch.testing.assert_close(layer.running_mean[entry], single.running_mean[0])
        torch.testing.assert_close(layer.running_var[entry], single.running_var[0])


def test_masked_gradients() -> None:
    layer, _ = pair((3,))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, mask), (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "all present"])
def test_low_precision_input(dtype: torch.dtype, masked: bool) -> None:
    layer = GraphBatchNorm((3,))
    mask = torch.ones(64, 3, dtype=torch.bool) if masked else None
    x = (torch.randn(64, 3, 8) + 20).to(dtype)
    out = layer(x, mask)
    assert out.dtype == dtype
    torch.testing.assert_close(
        layer.running_mean, x.double().mean((0, 2)).float() * 0.1, rtol=1e-5, atol=0
    )


def test_large_offset_in_float32() -> None:
    layer = GraphBatchNorm((3,))
    mask = torch.ones(64, 3, dtype=torch.bool)
    x = torch.randn(64, 3, 8) + 1000
    torch.testing.assert_close(layer(x, mask), layer(x.double(), mask).float(), rtol=0, atol=2e-4)


def test_empty_batch_leaves_the_statistics_alone() -> None:
    layer = GraphBatchNorm((3,))
    before = {name: getattr(layer, name).clone() for name in BUFFERS}
    for mask in (None, torch.ones(0, 3, dtype=torch.bool)):
        assert layer(torch.ones(0, 3, 4), mask).shape == (0, 3, 4)
    assert all(torch.equal(getattr(layer, name), before[name]) for name in BUFFERS)


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(B, N=3, M=3, C\)"):
        GraphBatchNorm((3, 3))(torch.rand(2, 9, 4))
    with pytest.raises(ValueError, match="more than one value"):
        GraphBatchNorm((3,), momentum=None)(torch.rand(1, 3, 1))

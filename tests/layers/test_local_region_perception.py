"""LocalRegionPerception against its equation, position by position."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from aurel.layers.local_region_perception import LocalRegionPerception


@pytest.mark.parametrize("size", [(7, 7), (1, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("networks", [1, 3])
def test_meets_the_equation(networks: int, size: tuple[int, int]) -> None:
    layer = LocalRegionPerception(8, networks, reduction=3).double()
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    w = {name: value[..., 0, 0] for name, value in state.items() if value.ndim > 1}
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    expected = np.empty_like(x.numpy())
    for image, row, column in np.ndindex(2, *size):
        position = x[image, :, row, column].numpy()
        scores = []
        for m in range(networks):
            rows = slice(2 * m, 2 * m + 2)
            hidden = w["reduce.weight"][rows] @ position + state["reduce.bias"][rows]
            scores.append(w["score.weight"][m] @ np.maximum(hidden, 0) + state["score.bias"][m])
        expected[image, :, row, column] = position / (1 + np.exp(-max(scores)))
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_the_weights_are_one_a_position_and_can_be_looked_at() -> None:
    layer = LocalRegionPerception(16, reduction=4)
    x = torch.randn(3, 16, 5, 6).requires_grad_()
    attention = layer.attention(x)
    assert attention.shape == (3, 1, 5, 6)
    assert (attention > 0).all() and (attention < 1).all() and attention.std() > 0
    torch.testing.assert_close(layer(x), attention * x)


def test_parameter_count() -> None:
    layer = LocalRegionPerception(512)
    assert sum(p.numel() for p in layer.parameters()) == 4 * (512 * 32 + 32 + 32 + 1)


def test_gradcheck() -> None:
    layer = LocalRegionPerception(6, 3, 2).double()
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)


def test_only_the_network_that_wins_a_position_learns_from_it() -> None:
    layer = LocalRegionPerception(6, 3, 2)
    with torch.no_grad():
        layer.score.weight.zero_()
        layer.score.bias.copy_(torch.tensor([0.0, 2.0, 1.0]))
    layer(torch.rand(2, 6, 4, 4)).sum().backward()
    assert layer.score.bias.grad is not None
    assert (layer.score.bias.grad != 0).tolist() == [False, True, False]


def test_positions_do_not_meet() -> None:
    layer = LocalRegionPerception(8, reduction=2)
    x = torch.randn(3, 8, 4, 5)
    with_nan = x.clone()
    with_nan[1, 3, 0, 2] = torch.nan
    out, expected = layer(with_nan), layer(x)
    assert out[1, :, 0, 2].isnan().all()
    same = torch.ones(3, 4, 5, dtype=torch.bool)
    same[1, 0, 2] = False
    torch.testing.assert_close(out.movedim(1, -1)[same], expected.movedim(1, -1)[same])
    assert layer(x[:0]).shape == (0, 8, 4, 5)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected)


def test_low_precision() -> None:
    layer = LocalRegionPerception(32)
    x = torch.randn(2, 32, 7, 7)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    half = deepcopy(layer).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    for out in (mixed, half):
        assert (out - expected).abs().max() < 0.02 * expected.abs().max()


def test_compiles_in_one_graph() -> None:
    layer = LocalRegionPerception(16)
    x = torch.randn(2, 16, 3, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16, 0), "networks must be at least 1, got 0"),
        ((16, 2, 17), r"reduction must be in 1..16 \(channels\), got 17"),
        ((16, 2, 0), "reduction must be in 1..16"),
    ],
)
def test_bad_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalRegionPerception(*arguments)


def test_messages() -> None:
    layer = LocalRegionPerception(16)
    with pytest.raises(ValueError, match=r"x must have shape \(B, C=16, H, W\), got \(2, 49, 16\)"):
        layer(torch.rand(2, 49, 16))
    assert "16, networks=4, reduction=16" in repr(layer)

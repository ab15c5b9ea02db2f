"""ChannelTopology gives the authors' numbers, and those of its definition."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load
from torch import Tensor, nn

from aurel.layers.channel_topology import ChannelTopology
from aurel.models.author_keys.macg import channel_topology

Golden = Callable[[str], dict[str, np.ndarray]]
shared_or_not = pytest.mark.parametrize("shared", [True, False], ids=["shared", "per_au"])
modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gives_the_authors_numbers(golden: Golden, mode: str) -> None:
    arrays = golden("ccfg")
    layer = ChannelTopology(16, 5)
    load(layer, arrays, channel_topology, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{mode}.out.0"]), **TOLERANCE)
    cotangent = torch.from_numpy(arrays["cotangent.0"])
    assert_gradients(layer, arrays, channel_topology, mode, {"x": x}, [out], [cotangent])
    if mode == "train":
        assert_buffers(layer, arrays, channel_topology)


def random_layer(shared: bool, training: bool, nodes: int = 3) -> ChannelTopology:
    layer = ChannelTopology(16, nodes, shared).double()
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5) if "norm" in name else tensor.normal_()
    return layer.train(training)


def definition(layer: ChannelTopology, x: np.ndarray) -> np.ndarray:
    """Return the mean of E, (B, C), with every relation and every mixed entry held."""
    w = {name: value.numpy() for name, value in layer.state_dict().items()}

    def linear(name: str, value: np.ndarray) -> np.ndarray:
        bias = w[f"{name}.bias"].reshape(-1, *[1] * (value.ndim - 2))
        return np.einsum("oc,bc...->bo...", w[f"{name}.weight"], value) + bias

    query, key = linear("query", x).mean(2), linear("key", x).mean(2)
    relation = linear("relation", np.tanh(query[..., :, None] - key[..., None, :]))
    mixed = np.einsum("bcuv,bctv->bctu", relation, linear("value", x))
    return mixed.mean((2, 3))


@modes
@shared_or_not
@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 1)], ids=str)
def test_meets_the_definition(size: tuple[int, int], shared: bool, training: bool) -> None:
    layer = random_layer(shared, training)
    x = torch.randn(4, 16, *size, dtype=torch.float64)
    token = torch.from_numpy(definition(layer, x.numpy()))
    expected = deepcopy(layer).view(token.unsqueeze(1))
    expected = expected.expand(4, 3, 16) if shared else expected.squeeze(2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


def test_shared_statistics_advance_once_a_node() -> None:
    layer = random_layer(True, True, nodes=4)
    norm = layer.view.norm
    author = nn.BatchNorm1d(16).double()
    author.load_state_dict(norm.state_dict())
    for _ in range(2):
        x = torch.randn(3, 16, 2, 2, dtype=torch.float64)
        token = layer.view.linear(torch.from_numpy(definition(layer, x.numpy())))
        layer(x)
        for _ in range(4):
            author(token)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffer, author.get_buffer(name), rtol=1e-10, atol=1e-12)
    assert norm.num_batches_tracked == 8
    before = deepcopy(norm.state_dict())
    layer.eval()(x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@modes
def test_nodes_share_one_vector_or_have_their_own(training: bool) -> None:
    x = torch.randn(4, 16, 3, 3, dtype=torch.float64)
    same, own = random_layer(True, training)(x), random_layer(False, training)(x)
    assert same.shape == own.shape == (4, 3, 16)
    assert torch.equal(same, same[:, :1].expand_as(same))
    assert not torch.allclose(own[:, 0], own[:, 1])


@shared_or_not
def test_rows_have_no_order_and_columns_stay_apart(shared: bool) -> None:
    layer = random_layer(shared, False)
    x = torch.randn(2, 16, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x[:, :, [3, 0, 4, 1, 2]]), layer(x))
    assert not torch.allclose(layer(x.transpose(2, 3)), layer(x))


@modes
@shared_or_not
def test_gradcheck(shared: bool, training: bool) -> None:
    layer = random_layer(shared, training)
    x = torch.randn(2, 16, 2, 3, dtype=torch.float64, requires_grad=True)

    def fresh(given: Tensor) -> Tensor:
        return deepcopy(layer)(given)

    assert torch.autograd.gradcheck(fresh, (x,), fast_mode=True)
    layer(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_low_precision() -> None:
    layer = random_layer(True, False).float()
    x = torch.randn(3, 16, 7, 7)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    half = deepcopy(layer).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    for out in (mixed, half):
        assert (out - expected).abs().max() < 0.05 * expected.abs().max()


def test_compiles_in_one_graph() -> None:
    layer = random_layer(True, True)
    other = deepcopy(layer)
    x = torch.randn(2, 16, 3, 4, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), other(x))
    for name, buffer in other.named_buffers():
        torch.testing.assert_close(layer.get_buffer(name), buffer)


def test_parameters_are_those_of_the_released_model() -> None:
    def count(layer: nn.Module) -> int:
        return sum(parameter.numel() for parameter in layer.parameters())

    layer = ChannelTopology(512, 8)
    assert count(layer) == 625_280
    assert count(ChannelTopology(512, 8, shared=False)) == 625_280 + 7 * (512**2 + 3 * 512)
    for linear in (layer.query, layer.value, layer.relation):
        std = (2 / linear.out_features) ** 0.5
        torch.testing.assert_close(linear.weight.std().item(), std, rtol=0.05, atol=0)
        assert not linear.bias.any()
    assert repr(layer).startswith("ChannelTopology(\n  512, num_nodes=8, shared=True")


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(B, C=16, H, W\), got \(2, 49, 16\)"):
        ChannelTopology(16, 3)(torch.rand(2, 49, 16))
    with pytest.raises(ValueError, match="channels must be at least 8, got 4"):
        ChannelTopology(4, 3)


@shared_or_not
def test_empty_batch(shared: bool) -> None:
    x = torch.zeros(0, 16, 4, 5, dtype=torch.float64)
    assert random_layer(shared, False)(x).shape == (0, 3, 16)

"""NodeTransformer: the equations, the size that the paper prints, and absent nodes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from aurel.layers.node_transformer import NodeTransformer


def small(**options: int) -> NodeTransformer:
    sizes = {"in_channels": 5, "channels": 6, "depth": 2, "heads": 3, "head_dim": 4} | options
    layer = NodeTransformer(**sizes).double()
    for module in layer.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return layer


def by_the_equations(layer: NodeTransformer, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """One head after the other, in numpy; the result, and each block's mean attention."""
    state = {key: value.numpy() for key, value in layer.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    gelu = np.vectorize(lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2)
    attention = []
    x = linear("enter", x)
    for index in range(2):
        block = f"blocks.{index}"
        query, key, value = np.split(state[f"{block}.query_key_value.weight"], 3)
        g, heads, weights = norm(f"{block}.attention_norm", x), [], 0.0
        for h in range(3):
            rows = slice(4 * h, 4 * h + 4)
            scores = (g @ query[rows].T) @ (g @ key[rows].T).swapaxes(1, 2) / 2
            part = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            heads.append(part @ (g @ value[rows].T))
            weights = weights + part / 3
        attention.append(weights)
        x = x + linear(f"{block}.join", np.concatenate(heads, -1))
        x = x + linear(
            f"{block}.reduce", gelu(linear(f"{block}.expand", norm(f"{block}.hidden_norm", x)))
        )
    return x, attention


def test_computes_the_equations() -> None:
    layer = small()
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    expected, attention = by_the_equations(layer, x.numpy())
    out, graphs = layer(x, return_graph=True)
    np.testing.assert_allclose(out.detach(), expected, atol=1e-12)
    assert torch.equal(layer(x), out)
    assert len(graphs) == len(attention) == 2
    for graph, weights in zip(graphs, attention, strict=True):
        np.testing.assert_allclose(graph.weights.detach(), weights, atol=1e-12)


def test_gradients() -> None:
    layer = small(depth=1)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x), (x,))
    layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_has_the_size_that_the_paper_leaves_for_it() -> None:
    """74.0 M in all, of which 14.90 M are the rest of the model."""
    with torch.device("meta"):
        layer = NodeTransformer(7 * 7 * 64, 960)
    count = sum(parameter.numel() for parameter in layer.parameters())
    assert count == 6 * 9_348_480 + 3137 * 960
    assert f"{14.896 + count / 1e6:.1f}" == "74.0"


@pytest.mark.parametrize("shape", [(0, 3), (2, 1)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    assert small()(torch.zeros(*shape, 5, dtype=torch.float64)).shape == (*shape, 6)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(B, N, C=5\), got \(2, 3, 4\)"):
        small()(torch.zeros(2, 3, 4))
    assert "5, 6" in repr(small())


def test_absent_nodes_have_no_attention() -> None:
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    x = torch.randn(2, 4, 5, dtype=torch.float64).masked_fill(~mask[..., None], torch.nan)
    _, (graph, _) = small()(x, mask, return_graph=True)
    assert graph.weights.isfinite().all()
    assert not graph.weights[~mask].any() and not graph.weights[0, :, 2].any()

"""CrossAttention: ME-GraphAU's equation, computed without projecting the tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.layers.cross_attention import CrossAttention


def by_the_equation(layer: CrossAttention, nodes: Tensor, tokens: Tensor) -> np.ndarray:
    """Project every token, as ME-GraphAU's code does, in numpy."""
    w = {key: value.numpy() for key, value in layer.state_dict().items()}
    x, t = nodes.detach().numpy(), tokens.detach().numpy()
    query = x @ w["query.weight"].T + w["query.bias"]
    # A key bias, which the layer has not, changes nothing.
    key = t @ w["key.weight"].T + 3.0
    scores = query @ key.swapaxes(1, 2) / np.sqrt(key.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ (t @ w["value.weight"].T + w["value.bias"])


@pytest.mark.parametrize(("nodes", "tokens"), [(5, 7), (1, 1), (7, 2)])
def test_equals_numpy(nodes: int, tokens: int) -> None:
    layer = CrossAttention(6).double()
    x = torch.randn(3, nodes, 6, dtype=torch.float64)
    t = torch.randn(3, 6, tokens, dtype=torch.float64).mT
    np.testing.assert_allclose(layer(x, t).detach(), by_the_equation(layer, x, t), atol=1e-12)


def test_gradients() -> None:
    layer = CrossAttention(4).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    t = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, t: layer(x, t), (x, t))
    layer(x, t).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="channels must be even, got 5"):
        CrossAttention(5)
    layer = CrossAttention(4)
    with pytest.raises(ValueError, match=r"x must have shape \(B, N, C=4\), got \(2, 3, 6\)"):
        layer(torch.zeros(2, 3, 6), torch.zeros(2, 5, 4))
    with pytest.raises(
        ValueError, match=r"tokens must have shape \(B=2, D, C=4\), got \(3, 5, 4\)"
    ):
        layer(torch.zeros(2, 3, 4), torch.zeros(3, 5, 4))


def test_empty_batch() -> None:
    assert CrossAttention(4)(torch.zeros(0, 3, 4), torch.zeros(0, 5, 4)).shape == (0, 3, 4)

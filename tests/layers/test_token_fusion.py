"""TokenFusion against its equation, written out head by head."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aurel.layers.token_fusion import TokenFusion

C, N = 8, 5


def perturbed(layer: nn.Module) -> nn.Module:
    """Return the layer with weights of which none is zero or one."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return layer


def inputs(batch: int = 3, **options: object) -> tuple[Tensor, ...]:
    shapes = ((batch, N), (batch, N), (batch, N, C), (batch, C))
    return tuple(torch.randn(shape, **options) for shape in shapes)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def weight_oracle(layer: TokenFusion, nodes: np.ndarray, face: np.ndarray) -> float:
    """Return the weight that one face, nodes (N, C) and token (C,), gives."""
    w = {name: value.numpy() for name, value in layer.state_dict().items()}
    x = np.concatenate([w["token"][None], face[None], nodes])
    size = C // layer.heads
    for index in range(layer.depth):
        p = {k.removeprefix(f"blocks.{index}."): v for k, v in w.items()}
        normed = layer_norm(x, p["norm1.weight"], p["norm1.bias"])
        projected = normed @ p["self_attn.in_proj_weight"].T + p["self_attn.in_proj_bias"]
        query, key, value = np.split(projected, 3, axis=-1)
        mixed = np.zeros_like(x)
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(size))
            mixed[:, part] = scores / scores.sum(-1, keepdims=True) @ value[:, part]
        x = x + mixed @ p["self_attn.out_proj.weight"].T + p["self_attn.out_proj.bias"]
        normed = layer_norm(x, p["norm2.weight"], p["norm2.bias"])
        hidden = gelu(normed @ p["linear1.weight"].T + p["linear1.bias"])
        x = x + hidden @ p["linear2.weight"].T + p["linear2.bias"]
    first = layer_norm(x[0], w["norm.weight"], w["norm.bias"])
    return float(1 / (1 + np.exp(-(w["linear.weight"][0] @ first + w["linear.bias"][0]))))


@pytest.mark.parametrize("learning", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize(("depth", "heads"), [(1, 1), (2, 4)])
def test_meets_the_equation(depth: int, heads: int, learning: bool) -> None:
    layer = perturbed(TokenFusion(C, depth, heads).double()).eval()
    node_logits, face_logits, nodes, face = inputs(dtype=torch.float64)
    with torch.set_grad_enabled(learning):
        out = layer(node_logits, face_logits, nodes, face)
    for i in range(3):
        weight = weight_oracle(layer, nodes[i].numpy(), face[i].numpy())
        assert 0.001 < weight < 0.999
        expected = weight * node_logits[i] + (1 - weight) * face_logits[i]
        torch.testing.assert_close(out[i].detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_constant_weight_looks_at_no_tokens(weight: float) -> None:
    layer = TokenFusion(C, weight=weight)
    assert not list(layer.parameters())
    node_logits, face_logits, *_ = inputs()
    expected = weight * node_logits + (1 - weight) * face_logits
    torch.testing.assert_close(layer(node_logits, face_logits), expected)
    with pytest.raises(ValueError, match=f"weight must be None .*, got {weight}"):
        layer.node_weight(torch.rand(1, N, C), torch.rand(1, C))


def test_gradcheck() -> None:
    layer = TokenFusion(4, 1, 2).double()
    shapes = ((2, 3), (2, 3), (2, 3, 4), (2, 4))
    parts = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(layer, parts)


def test_faces_do_not_meet() -> None:
    layer = perturbed(TokenFusion(C)).eval()
    parts = inputs()
    clean = layer(*parts)
    parts[2][1, 0, 0] = torch.nan
    out = layer(*parts)
    torch.testing.assert_close(out[[0, 2]], clean[[0, 2]])
    assert out[1].isnan().all()
    torch.testing.assert_close(layer(*(part[:1] for part in parts)), clean[:1])
    assert layer(*(part[:0] for part in parts)).shape == (0, N)


def test_blocks_start_from_different_weights() -> None:
    first, second = TokenFusion(C).blocks
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_low_precision() -> None:
    layer = TokenFusion(C).eval()
    parts = inputs()
    expected = layer(*parts)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(*parts)
    half = deepcopy(layer).bfloat16()(*(part.bfloat16() for part in parts))
    assert mixed.dtype == half.dtype == torch.float32
    for out in (mixed, half):
        assert (out - expected).abs().max() < 0.03


def test_compiles_in_one_graph() -> None:
    layer = TokenFusion(C)
    parts = inputs()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*parts), layer(*parts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads must divide the 8 channels, got 3"),
        ({"heads": 0}, "heads must divide"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"weight": 1.5}, r"weight must be in 0..1, got 1.5"),
        ({"weight": math.nan}, r"weight must be in 0..1, got nan"),
    ],
)
def test_bad_arguments(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenFusion(C, **options)


def test_messages() -> None:
    layer = TokenFusion(C)
    node_logits, face_logits, nodes, face = inputs()
    with pytest.raises(ValueError, match="nodes and face must be tensors .*, got None"):
        layer(node_logits, face_logits, nodes)
    with pytest.raises(ValueError, match=r"face_logits must have shape \(B=3, N=5\), got \(3, 4\)"):
        layer(node_logits, face_logits[:, :4], nodes, face)
    with pytest.raises(ValueError, match=r"nodes must have shape \(B=3, N=5, C=8\), got \(3, 4, 8"):
        layer(node_logits, face_logits, nodes[:, :4], face)
    with pytest.raises(ValueError, match=r"face must have shape \(B=3, C=8\), got \(3, 7\)"):
        layer(node_logits, face_logits, nodes, face[:, :7])
    with pytest.raises(ValueError, match="mask must be bool"):
        layer(node_logits, face_logits, nodes, face, torch.ones(3, N))
    assert "8, depth=2, heads=8, weight=None" in repr(layer)


def test_every_parameter_gets_a_gradient() -> None:
    layer = perturbed(TokenFusion(C))
    layer(*inputs()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())

"""The vision transformer of OpenGraphAU, against a plain one with the same weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.backbones.build import build_backbone
from aurel.backbones.vit_sincos import sine_positions

SMALL = {"img_size": 48, "embed_dim": 12, "num_heads": 3, "depth": 2}


def small() -> Any:
    torch.manual_seed(0)
    backbone = build_backbone(
        "vit_base_patch16_sincos", out_indices=(-1,), final_norm=True, **SMALL
    ).double()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return backbone.eval()


def plain(state: dict[str, Tensor], images: Tensor, heads: int, depth: int) -> Tensor:
    """Patches, positions, pre-norm blocks whose keys have no bias, and the final norm."""
    width = state["norm.weight"].numel()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    patches = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 16)
    x = patches.flatten(2).mT
    table = [
        [
            (math.cos if c % 2 else math.sin)(place / 10000 ** (2 * (c // 2) / width))
            for c in range(width)
        ]
        for place in range(x.shape[1])
    ]
    x = x + torch.tensor(table, dtype=torch.float64).float()
    for block in (f"blocks.{index}" for index in range(depth)):
        y = norm(x, f"{block}.norm1")
        q, k, v = (y @ state[f"{block}.attn.qkv.weight"].T).chunk(3, dim=-1)
        q, v = q + state[f"{block}.attn.q_bias"], v + state[f"{block}.attn.v_bias"]
        parts = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v)]
        weights = (parts[0] @ parts[1].mT / math.sqrt(width // heads)).softmax(-1)
        mixed = (weights @ parts[2]).transpose(1, 2).flatten(2)
        x = x + linear(mixed, f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")


def test_tokens_are_those_of_a_plain_transformer() -> None:
    backbone = small()
    images = torch.randn(2, 3, 48, 48).double()
    with torch.no_grad():
        (found,) = backbone(images)
        expected = plain(backbone.net.state_dict(), images, heads=3, depth=2)
    assert found.shape == (2, 12, 3, 3) and backbone.reductions == [16]
    torch.testing.assert_close(found.flatten(2).mT, expected, rtol=1e-9, atol=1e-9)


def test_every_parameter_learns_and_places_do_not() -> None:
    backbone = small()
    backbone(torch.randn(2, 3, 48, 48).double())[-1].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not any("pos_embed" in name for name in backbone.state_dict())


@pytest.mark.parametrize("count", [1, 9, 196])
def test_places_are_sines_and_cosines(count: int) -> None:
    table = sine_positions(count, 6).numpy()
    place = np.arange(count)[:, None]
    frequency = 10000.0 ** (-np.array([0, 2, 4]) / 6)
    np.testing.assert_allclose(table[:, ::2], np.sin(place * frequency), atol=1e-6)
    np.testing.assert_allclose(table[:, 1::2], np.cos(place * frequency), atol=1e-6)

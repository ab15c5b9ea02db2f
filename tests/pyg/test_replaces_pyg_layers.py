"""Our graph convolutions against PyTorch Geometric's own: same edges, same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torch_geometric")

from aurel.layers import CrossRegionGAT
from aurel.pyg import OnEdges

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from pyg_layers import PYG, Apply, attention  # noqa: E402

sys.path.remove(str(BENCHMARKS))

WIDTH, OUT, NODES = 8, 12, 10


def random_edges() -> Tensor:
    """Any number of edges to a node, in any order; none to node 4."""
    pairs = (torch.rand(NODES, NODES) < 0.3).nonzero().t()
    pairs = pairs[:, pairs[1] != 4]
    return pairs[:, torch.randperm(pairs.shape[1])]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("conv", "reference"), PYG.items(), ids=lambda value: value.__name__)
def test_gives_their_numbers(conv: type[nn.Module], reference: Apply, training: bool) -> None:
    layer = conv(WIDTH, OUT, k=3).double().train(training)
    with torch.no_grad():
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if "norm" in name and tensor.is_floating_point() or name == "epsilon":
                tensor.uniform_(0.5, 1.5)
    x = torch.randn(NODES, WIDTH, dtype=torch.float64, requires_grad=True)
    edge_index = random_edges()
    expected = reference(layer, x, edge_index)
    got = OnEdges(layer)(x, edge_index)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert_same_gradients(got, expected, [x, *layer.parameters()])


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_between_regions_gives_the_numbers_of_gat(heads: int) -> None:
    layer = CrossRegionGAT(WIDTH, (0, 0, 1, 1, 1, 2), heads, "cross_region").double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(6, WIDTH, dtype=torch.float64, requires_grad=True)
    target, source = layer.adjacency(x[None]).nonzero(as_tuple=True)
    expected = attention(layer, x, torch.stack((source, target)))
    got = layer(x[None])[0]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert_same_gradients(got, expected, [x, *layer.parameters()])


def assert_same_gradients(got: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    weight = torch.randn_like(got)
    for actual, other in zip(
        torch.autograd.grad(got, leaves, weight),
        torch.autograd.grad(expected, leaves, weight),
        strict=True,
    ):
        torch.testing.assert_close(actual, other, rtol=1e-9, atol=1e-9)

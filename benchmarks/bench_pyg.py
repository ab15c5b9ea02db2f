"""Compare layers on lists of edges with those of PyTorch Geometric."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import peers
import pytest
import torch
from torch import Tensor, nn

pyg_layers = pytest.importorskip("pyg_layers", exc_type=ImportError)

from torch_geometric.nn import EdgeConv  # noqa: E402

from aurel.pyg import DynamicEdgeConv, OnEdges, edge_index_of  # noqa: E402

HUBS = [{"hub": 2000, "C": 64}]
SWEEP = [{"hub": hub, "C": 64} for hub in (125, 250, 500, 1000, 2000, 4000)]


def gradients(out: Tensor, x: Tensor, module: nn.Module) -> list[Tensor]:
    """Return the output, and the gradients of x and parameters for a fixed cotangent."""
    cotangent = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, [x, *module.parameters()], cotangent)]


@pytest.mark.parametrize("layer_type", pyg_layers.PYG)
@pytest.mark.sizes(cpu=HUBS, cuda=HUBS, sweep=SWEEP)
def test_on_a_hub(layer_type: Any, size: dict[str, int], bench: Any, versus: Any) -> None:
    """Measure a graph in which all edges except one lead to one node."""
    channels = size["C"]
    layer = layer_type(channels, channels, k=9).to(bench.device)
    peer, aurel = deepcopy(layer), OnEdges(layer)
    edges = pyg_layers.star(size["hub"]).to(bench.device)
    x = torch.randn(size["hub"] + 1, channels, device=bench.device).requires_grad_()
    steps = {
        "aurel": lambda: gradients(aurel(x, edges), x, aurel),
        "pyg": lambda: gradients(pyg_layers.PYG[layer_type](peer, x, edges), x, peer),
    }
    versus(f"OnEdges {layer_type.__name__} on a hub", size, "training", steps, allowed=0.01)


@pytest.mark.sizes(
    cpu=[{"B": 4, "N": 512, "C": 64, "K": 20}], cuda=[{"B": 32, "N": 1024, "C": 64, "K": 20}]
)
def test_dynamic_edge_conv(size: dict[str, int], bench: Any, versus: Any) -> None:
    """Measure point clouds, as in the paper: the K nearest in l2, then a linear map and a ReLU."""
    nodes, channels, k = size["N"], size["C"], size["K"]
    mlp = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU()).to(bench.device)
    aurel, peer = DynamicEdgeConv(mlp, k), EdgeConv(mlp)
    batch = torch.arange(size["B"], device=bench.device).repeat_interleave(nodes)
    x = torch.randn(len(batch), channels, device=bench.device).requires_grad_()

    def pyg() -> list[Tensor]:
        edges = edge_index_of(peers.ragged_nearest(x.detach(), batch, k))
        return gradients(peer(x, edges), x, mlp)

    steps = {"aurel": lambda: gradients(aurel(x, batch), x, mlp), "pyg": pyg}
    versus("DynamicEdgeConv", size, "training", steps, allowed=0.01)

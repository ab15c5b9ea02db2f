"""Our graph convolutions against PyTorch Geometric's own: same edges, same weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

pytest.importorskip("torch_geometric")

from torch_geometric.nn import EdgeConv, GINConv, MessagePassing, SAGEConv

from aurel.layers import EdgeGraphConv, GINGraphConv, MaxRelativeGraphConv, SAGEGraphConv
from aurel.layers.linear_norm import LinearNorm
from aurel.pyg import OnEdges

WIDTH, OUT, NODES = 8, 12, 10

Apply = Callable[[nn.Module, Tensor, Tensor], Tensor]


class MaxRelative(MessagePassing):
    """The aggregation of Vision GNN, as its definition reads: the maximum of x_j - x_i."""

    def __init__(self) -> None:
        super().__init__(aggr="max")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return x_j - x_i


def full_weight(part: LinearNorm) -> Tensor:
    """The grouped weight as that of one plain linear map, (O, I)."""
    return torch.block_diag(*part.weight.chunk(part.groups))


def side_by_side(weight: Tensor) -> Tensor:
    """Columns for (x_0, x_1, ..., y_0, y_1, ...), from those for (x_0, y_0, x_1, y_1, ...)."""
    return torch.cat((weight[:, ::2], weight[:, 1::2]), dim=1)


def normalise(part: LinearNorm, x: Tensor) -> Tensor:
    norm = part.norm
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    return F.gelu(F.batch_norm(x, mean, var, norm.weight, norm.bias, norm.training))


def mlp(part: LinearNorm, weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: normalise(part, F.linear(x, weight, part.bias))


def edge(layer: EdgeGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    """EdgeConv joins [x_i ; x_j - x_i] side by side."""
    part = layer.project
    return EdgeConv(mlp(part, side_by_side(full_weight(part))), aggr="max")(x, edge_index)


def gin(layer: GINGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    conv = GINConv(mlp(layer.project, full_weight(layer.project)), train_eps=True).double()
    return functional_call(conv, {"eps": layer.epsilon[None]}, (x, edge_index))


def sage(layer: SAGEGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    """SAGEConv maps the node and the maximum by a matrix each, and leaves the rest to the user."""
    weight = side_by_side(full_weight(layer.project))
    conv = SAGEConv(WIDTH, OUT, aggr="max").double()
    weights = {
        "lin_l.weight": weight[:, WIDTH:],
        "lin_l.bias": layer.project.bias,
        "lin_r.weight": weight[:, :WIDTH],
    }
    messages = mlp(layer.message, full_weight(layer.message))(x)
    return normalise(layer.project, functional_call(conv, weights, ((messages, x), edge_index)))


def max_relative(layer: MaxRelativeGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    """Vision GNN's MRConv2d: the halves interleaved, a grouped 1x1 convolution, BatchNorm, GELU."""
    part = layer.project
    joined = torch.stack((x, MaxRelative()(x, edge_index)), dim=-1).flatten(1)
    mapped = F.conv2d(joined[:, :, None, None], part.weight[..., None, None], part.bias, groups=4)
    return normalise(part, mapped.flatten(1))


THEIRS = {
    MaxRelativeGraphConv: max_relative,
    EdgeGraphConv: edge,
    GINGraphConv: gin,
    SAGEGraphConv: sage,
}


def random_edges() -> Tensor:
    """Any number of edges to a node, in any order; nobody leads to node 4."""
    pairs = (torch.rand(NODES, NODES) < 0.3).nonzero().t()
    pairs = pairs[:, pairs[1] != 4]
    return pairs[:, torch.randperm(pairs.shape[1])]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("conv", "theirs"), THEIRS.items(), ids=lambda value: value.__name__)
def test_gives_their_numbers(conv: type[nn.Module], theirs: Apply, training: bool) -> None:
    layer = conv(WIDTH, OUT, k=3).double().train(training)
    with torch.no_grad():
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if "norm" in name and tensor.is_floating_point() or name == "epsilon":
                tensor.uniform_(0.5, 1.5)
    x = torch.randn(NODES, WIDTH, dtype=torch.float64, requires_grad=True)
    edge_index = random_edges()
    want = theirs(layer, x, edge_index)
    got = OnEdges(layer)(x, edge_index)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(got)
    leaves = [x, *layer.parameters()]
    for ours, other in zip(
        torch.autograd.grad(got, leaves, weight),
        torch.autograd.grad(want, leaves, weight),
        strict=True,
    ):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)

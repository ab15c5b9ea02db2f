"""Graph convolutions of PyTorch Geometric with the weights of a layer of aurel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch_geometric.nn import EdgeConv, GATConv, GINConv, MessagePassing, SAGEConv

from aurel.layers import (
    CrossRegionGAT,
    EdgeGraphConv,
    GINGraphConv,
    MaxRelativeGraphConv,
    SAGEGraphConv,
)
from aurel.layers.linear_norm import LinearNorm

Apply = Callable[..., Tensor]  # from a layer of aurel, nodes (M, C) and edges (2, E)


class MaxRelative(MessagePassing):
    """The aggregation of Vision GNN by its definition: the maximum of x_j - x_i."""

    def __init__(self) -> None:
        super().__init__(aggr="max")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return x_j - x_i


def full_weight(part: LinearNorm) -> Tensor:
    """Return the weight of the dense linear map that equals a grouped one, (O, I)."""
    return torch.block_diag(*part.weight.chunk(part.groups))


def side_by_side(weight: Tensor) -> Tensor:
    """Reorder columns from (x_0, y_0, x_1, y_1, ...) to (x_0, x_1, ..., y_0, y_1, ...)."""
    return torch.cat((weight[:, ::2], weight[:, 1::2]), dim=1)


def normalize(part: LinearNorm, x: Tensor) -> Tensor:
    norm = part.norm
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    return F.gelu(F.batch_norm(x, mean, var, norm.weight, norm.bias, norm.training))


def mlp(part: LinearNorm, weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: normalize(part, F.linear(x, weight, part.bias))


def edge(layer: EdgeGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    """Apply EdgeConv, which concatenates [x_i ; x_j - x_i]."""
    part = layer.project
    return EdgeConv(mlp(part, side_by_side(full_weight(part))), aggr="max")(x, edge_index)


def gin(layer: GINGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    conv = GINConv(mlp(layer.project, full_weight(layer.project)), train_eps=True).to(x)
    return functional_call(conv, {"eps": layer.epsilon[None]}, (x, edge_index))


def sage(layer: SAGEGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    """Apply SAGEConv, a matrix for the node and one for the maximum, with bias, norm and GELU."""
    weight = side_by_side(full_weight(layer.project))
    width = x.shape[1]
    conv = SAGEConv(width, len(weight), aggr="max").to(x)
    weights = {
        "lin_l.weight": weight[:, width:],
        "lin_l.bias": layer.project.bias,
        "lin_r.weight": weight[:, :width],
    }
    messages = mlp(layer.message, full_weight(layer.message))(x)
    return normalize(layer.project, functional_call(conv, weights, ((messages, x), edge_index)))


def max_relative(layer: MaxRelativeGraphConv, x: Tensor, edge_index: Tensor) -> Tensor:
    """Apply Vision GNN's MRConv2d: interleaved halves, grouped 1x1 convolution, BatchNorm, GELU."""
    part = layer.project
    joined = torch.stack((x, MaxRelative()(x, edge_index)), dim=-1).flatten(1)
    weight = part.weight[..., None, None]
    mapped = F.conv2d(joined[:, :, None, None], weight, part.bias, groups=part.groups)
    return normalize(part, mapped.flatten(1))


def attention(layer: CrossRegionGAT, x: Tensor, edge_index: Tensor) -> Tensor:
    """Apply GATConv, then the residual, the bias and ELU. The edges include loops."""
    width = x.shape[1]
    heads = {"heads": layer.heads, "add_self_loops": False, "bias": False}
    conv = GATConv(width, width // layer.heads, **heads).to(x)
    weights = {
        "lin.weight": layer.linear.weight,
        "att_dst": layer.target_attention[None],
        "att_src": layer.source_attention[None],
    }
    return F.elu(functional_call(conv, weights, (x, edge_index)) + x + layer.bias)


PYG: dict[type[nn.Module], Apply] = {
    MaxRelativeGraphConv: max_relative,
    EdgeGraphConv: edge,
    GINGraphConv: gin,
    SAGEGraphConv: sage,
}


def star(leaves: int) -> Tensor:
    """Return edges from every leaf to the hub, node 0, and from the hub to the first leaf."""
    source = torch.arange(1, leaves + 1)
    edges = torch.stack((source, torch.zeros_like(source)))
    return torch.cat((edges, torch.tensor([[0], [1]])), dim=1)

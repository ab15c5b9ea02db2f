"""The graph convolutions of Vision GNN, with the parameters of its released code.

Each takes nodes (B, N, C), sources (B, M, C) and, for every node, rows of the sources (B, N, K),
and returns (B, 2C, N). They differ from the layers over neighbor lists in the input of a channel
group (`EdgeConv`, `SAGEConv`) and in the entries of their batch statistics (`SAGEConv`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.linear_norm import interleave
from aurel.layers.plain import is_plain
from aurel.ops.distances import at_least_float32
from aurel.ops.gather_reduce import gather_rows
from aurel.ops.neighbor_aggregate import neighbor_aggregate

GROUPS = 4


class MaxRelativeConv(nn.Module):
    r"""Map every node together with the largest difference of its neighbors in each channel.

    .. math:: y_i = f([x_i ; \max_j (s_j - x_i)]), \text{ the halves interleaved}
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nn = conv_norm_gelu(2 * channels, 2 * channels)

    def forward(self, nodes: Tensor, sources: Tensor, neighbors: Tensor) -> Tensor:
        relative = neighbor_aggregate(sources, neighbors, "max") - nodes
        return self.nn(as_map(interleave(nodes, relative))).flatten(2)


class EdgeConv(nn.Module):
    r"""Map every edge, and keep the largest of a node's edges in each channel.

    .. math:: y_i = \max_j f([x_i ; s_j - x_i])

    The first two channel groups map :math:`x_i` alone, the others :math:`s_j - x_i`. Batch
    statistics are over edges.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nn = conv_norm_gelu(2 * channels, 2 * channels)

    def forward(self, nodes: Tensor, sources: Tensor, neighbors: Tensor) -> Tensor:
        if not is_conv_norm_gelu(self.nn):
            center = nodes.unsqueeze(2).expand(-1, -1, neighbors.shape[2], -1)
            edges = torch.cat((center, gather_neighbors(sources, neighbors) - center), dim=3)
            return self.nn(edges.permute(0, 3, 1, 2)).max(3).values
        conv, norm = parts_of(self.nn)
        assert conv.bias is not None
        (itself, difference), bias = conv.weight.chunk(2), conv.bias.chunk(2)
        x = as_map(nodes)
        first = F.conv2d(x, itself, bias[0], groups=GROUPS // 2)
        # W (s_j - x_i) = W s_j - W x_i: maps of nodes, K times fewer than edges.
        center = F.conv2d(x, difference, -bias[1], groups=GROUPS // 2)
        source = F.conv2d(as_map(sources), difference, groups=GROUPS // 2)
        second = gather_neighbors(as_nodes(source), neighbors).permute(0, 3, 1, 2) - center
        edges = torch.cat((first.expand_as(second), second), dim=1)
        return F.gelu(norm(edges)).max(3).values


class SAGEConv(nn.Module):
    r"""Map every node together with the largest message of its neighbors.

    .. math:: y_i = f_2([x_i ; \max_j f_1(s_j)])

    The first two channel groups of :math:`f_2` map :math:`x_i` alone. Batch statistics of
    :math:`f_1` are over edges: a source counts as often as it is chosen.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nn1 = conv_norm_gelu(channels, channels)
        self.nn2 = conv_norm_gelu(2 * channels, 2 * channels)

    def forward(self, nodes: Tensor, sources: Tensor, neighbors: Tensor) -> Tensor:
        if is_conv_norm_gelu(self.nn1):
            conv, norm = parts_of(self.nn1)
            messages = norm_of_messages(norm, as_nodes(conv(as_map(sources))), neighbors)
            largest = neighbor_aggregate(F.gelu(messages), neighbors, "max")
        else:
            edges = gather_neighbors(sources, neighbors).permute(0, 3, 1, 2)
            largest = as_nodes(self.nn1(edges).max(3).values)
        return self.nn2(as_map(torch.cat((nodes, largest), dim=2))).flatten(2)


class GINConv(nn.Module):
    r"""Map the weighted sum of every node and its neighbors.

    .. math:: y_i = f((1 + \epsilon) x_i + \sum_j s_j)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.nn = conv_norm_gelu(channels, 2 * channels)

    def forward(self, nodes: Tensor, sources: Tensor, neighbors: Tensor) -> Tensor:
        total = (1 + self.eps) * nodes + neighbor_aggregate(sources, neighbors, "sum")
        return self.nn(as_map(total)).flatten(2)


def conv_norm_gelu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return the f of the equations: a grouped linear map, batch normalization and GELU."""
    conv = nn.Conv2d(in_channels, out_channels, 1, groups=GROUPS)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.GELU())


def is_conv_norm_gelu(sequence: nn.Sequential) -> bool:
    """Return whether the modules of `conv_norm_gelu` may be used one by one, see `is_plain`."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.GELU)
    return is_plain(sequence, nn.Sequential) and all(map(is_plain, sequence, kinds))


def parts_of(sequence: nn.Sequential) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return the linear map and the normalization of `conv_norm_gelu`."""
    conv, norm = sequence[0], sequence[1]
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return conv, norm


def as_map(nodes: Tensor) -> Tensor:
    """Return nodes (B, N, C) as a map (B, C, N, 1), without a copy.

    Not by `unsqueeze`: for the strides that it gives a batch norm returns wrong gradients on a CPU
    (PyTorch 2.11).
    """
    return nodes.mT.unflatten(2, (-1, 1))


def as_nodes(x: Tensor) -> Tensor:
    """Return a map (B, C, N, 1) as nodes (B, N, C), without a copy."""
    return x.flatten(2).mT


def gather_neighbors(x: Tensor, neighbors: Tensor) -> Tensor:
    """Return the rows of `x`, (B, M, C), that `neighbors` lists: (B, N, K, C)."""
    first = torch.arange(x.shape[0], device=x.device)[:, None, None] * x.shape[1]
    return gather_rows(x.flatten(0, 1), neighbors + first)


def norm_of_messages(norm: nn.BatchNorm2d, messages: Tensor, neighbors: Tensor) -> Tensor:
    """Return messages (B, M, C) normalized with statistics over the edges that carry them."""
    if not norm.training:
        return as_nodes(norm(as_map(messages)))
    wide = at_least_float32(messages)
    chosen = neighbors.flatten(1)
    weight = wide.new_zeros(messages.shape[:2]).scatter_add_(1, chosen, wide.new_ones(chosen.shape))
    weight = (weight / neighbors.numel()).unsqueeze(2)
    mean = (weight * wide).sum((0, 1))
    variance = (weight * (wide - mean).square()).sum((0, 1))
    _track(norm, mean.detach(), variance.detach(), neighbors.numel())
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return ((wide - mean) * scale + norm.bias).to(messages.dtype)


def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics as `nn.BatchNorm2d` does for `count` entries a channel."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.momentum is not None and norm.num_batches_tracked is not None
    unbiased = variance * (count / max(count - 1, 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
    norm.num_batches_tracked.add_(1)

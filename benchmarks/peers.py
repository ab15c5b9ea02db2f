"""What one would use without this library: plain PyTorch, and torch-cluster with torch-scatter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

try:
    import torch_cluster
    import torch_scatter
except ImportError:
    torch_cluster = torch_scatter = None


def cluster_serves(device: torch.device) -> bool:
    """Return whether torch-cluster and torch-scatter are there, compiled for this device."""
    if torch_cluster is None:
        return False
    return device.type == "cpu" or torch.ops.torch_cluster.cuda_version() > 0


def nearest(x: Tensor, k: int) -> Tensor:
    """The k nearest nodes by bmm and topk."""
    with torch.no_grad():
        products = torch.bmm(x, x.mT)
        squares = products.diagonal(dim1=1, dim2=2)
        return (squares[:, None] - 2 * products).topk(k, dim=2, largest=False).indices


def gathered(x: Tensor, neighbors: Tensor) -> Tensor:
    """The features of all neighbours, (B, N, K, C)."""
    batch, nodes, k = neighbors.shape
    index = neighbors.reshape(batch, nodes * k, 1).expand(-1, -1, x.shape[2])
    return x.gather(1, index).view(batch, nodes, k, x.shape[2])


def max_relative(x: Tensor, k: int) -> Tensor:
    return gathered(x, nearest(x, k)).amax(2) - x


def aggregate_max(x: Tensor, neighbors: Tensor) -> Tensor:
    return gathered(x, neighbors).amax(2)


def aggregate_mean(x: Tensor, neighbors: Tensor) -> Tensor:
    return gathered(x, neighbors).mean(2)


def ragged_nearest(x: Tensor, batch: Tensor, k: int) -> Tensor:
    """The k nearest rows of the same graph: all graphs padded to the size of the largest."""
    with torch.no_grad():
        sizes = batch.bincount()
        there = torch.arange(int(sizes.max()), device=x.device) < sizes[:, None]
        dense = x.new_zeros(*there.shape, x.shape[1])
        dense[there] = x
        products = torch.bmm(dense, dense.mT)
        scores = products.diagonal(dim1=1, dim2=2)[:, None] - 2 * products
        scores = scores.masked_fill(~there[:, None], float("inf"))
        first = sizes.cumsum(0) - sizes
        return (scores.topk(k, dim=2, largest=False).indices + first[:, None, None])[there]


def ragged_max(x: Tensor, neighbors: Tensor) -> Tensor:
    return x[neighbors].amax(1)


def ragged_max_relative(x: Tensor, batch: Tensor, k: int) -> Tensor:
    return ragged_max(x, ragged_nearest(x, batch, k)) - x


def topk_convolution(x: Tensor, values: Tensor, k: int) -> Tensor:
    """D^-1/2 A D^-1/2 values, A of all scores no worse than the k-th, as published code has it."""
    scores = (x @ x.mT).detach()
    kth = scores.topk(k, dim=-1).values[..., -1:]
    adjacency = (scores >= kth).to(x.dtype)
    scale = adjacency.sum(-1, keepdim=True).rsqrt()
    return (scale * adjacency * scale.mT) @ values


def attention(values: Tensor, target: Tensor, source: Tensor, adjacency: Tensor) -> Tensor:
    """Masked softmax over all pairs: values (B, H, N, C), scores (B, H, N)."""
    scores = F.leaky_relu(target.unsqueeze(3) + source.unsqueeze(2), 0.2)
    bias = torch.where(adjacency, 0.0, float("-inf")).unsqueeze(1)
    return (scores + bias).softmax(-1) @ values


def gated_sum(edge: Tensor, values: Tensor) -> Tensor:
    return (edge.sigmoid().softmax(2) * values.unsqueeze(1)).sum(2)


def edge_update(
    edges: Tensor, projected: Tensor, target: Tensor, source: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Edges (B, N, N, C) with their ends, through a batch norm over N * N channels."""
    joined = projected + target.unsqueeze(2) + source.unsqueeze(1)
    pairs = joined.flatten(1, 2)
    normed = F.batch_norm(pairs, None, None, weight.flatten(), bias.flatten(), training=True)
    return edges + normed.view_as(edges).relu()


def cluster_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B N, C), and the graph of each."""
    batch, nodes, _ = x.shape
    return x.flatten(0, 1), torch.arange(batch, device=x.device).repeat_interleave(nodes)


def cluster_nearest(x: Tensor, k: int) -> Tensor:
    nearest = cluster_ragged_nearest(*cluster_rows(x), k)
    return nearest.view(x.shape[0], x.shape[1], k) % x.shape[1]


def cluster_max_relative(x: Tensor, k: int) -> Tensor:
    return cluster_ragged_max_relative(*cluster_rows(x), k).view(x.shape)


def cluster_ragged_nearest(x: Tensor, batch: Tensor, k: int) -> Tensor:
    """The k nearest rows of the same graph, each graph having as many."""
    return torch_cluster.knn_graph(x.detach(), k, batch, loop=True)[0].view(len(x), k)


def cluster_ragged_max_relative(x: Tensor, batch: Tensor, k: int) -> Tensor:
    source, target = torch_cluster.knn_graph(x.detach(), k, batch, loop=True)
    relative = x[source] - x[target]
    return torch_scatter.scatter_max(relative, target, dim=0, dim_size=len(x))[0]


def cluster_ragged_max(x: Tensor, neighbors: Tensor) -> Tensor:
    ends = torch.arange(len(x) + 1, device=x.device) * neighbors.shape[1]
    return torch_scatter.segment_csr(x[neighbors.flatten()], ends, reduce="max")


def scatter_rows(x: Tensor, neighbors: Tensor, reduce: str) -> Tensor:
    batch, nodes, k = neighbors.shape
    start = torch.arange(batch, device=x.device).view(-1, 1, 1) * nodes
    source = (neighbors + start).flatten()
    target = torch.arange(batch * nodes, device=x.device).repeat_interleave(k)
    out = torch_scatter.scatter(
        x.flatten(0, 1)[source], target, 0, dim_size=batch * nodes, reduce=reduce
    )
    return out.view(x.shape)


class StateTable:
    """Energies of a pairwise model of binary nodes by a table of all states, kept between calls."""

    def __init__(self, nodes: int, device: torch.device | str) -> None:
        numbers = torch.arange(2**nodes, device=device)[:, None]
        self.states = ((numbers >> torch.arange(nodes, device=device)) & 1).float()
        self.first, self.second = torch.triu_indices(nodes, nodes, 1, device=device)
        self.pairs = self.states[:, self.first] * self.states[:, self.second]

    def __call__(self, logits: Tensor, couplings: Tensor) -> Tensor:
        """Return the energies, (B, 2^N), of logits (B, N) and couplings (N, N)."""
        both = (couplings + couplings.T)[self.first, self.second] / 2
        return logits @ self.states.T + self.pairs @ both

"""Implementations without this library: plain PyTorch, and torch-cluster with torch-scatter."""

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
    """Return whether torch-cluster and torch-scatter are installed and compiled for this device."""
    if torch_cluster is None:
        return False
    return device.type == "cpu" or torch.ops.torch_cluster.cuda_version() > 0


def nearest(x: Tensor, k: int) -> Tensor:
    """Return the k nearest nodes by bmm and topk."""
    with torch.no_grad():
        products = torch.bmm(x, x.mT)
        squares = products.diagonal(dim1=1, dim2=2)
        return (squares[:, None] - 2 * products).topk(k, dim=2, largest=False).indices


def gathered(x: Tensor, neighbors: Tensor) -> Tensor:
    """Return the features of all neighbors, (B, N, K, C)."""
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
    """Return the k nearest rows of the same graph: all graphs are padded to the largest size."""
    with torch.no_grad():
        sizes = batch.bincount()
        valid = torch.arange(int(sizes.max()), device=x.device) < sizes[:, None]
        dense = x.new_zeros(*valid.shape, x.shape[1])
        dense[valid] = x
        products = torch.bmm(dense, dense.mT)
        scores = products.diagonal(dim1=1, dim2=2)[:, None] - 2 * products
        scores = scores.masked_fill(~valid[:, None], float("inf"))
        first = sizes.cumsum(0) - sizes
        return (scores.topk(k, dim=2, largest=False).indices + first[:, None, None])[valid]


def ragged_max(x: Tensor, neighbors: Tensor) -> Tensor:
    return x[neighbors].amax(1)


def ragged_max_relative(x: Tensor, batch: Tensor, k: int) -> Tensor:
    return ragged_max(x, ragged_nearest(x, batch, k)) - x


def topk_convolution(x: Tensor, values: Tensor, k: int) -> Tensor:
    """Return D^-1/2 A D^-1/2 values, where A has all scores >= the k-th, as in published code."""
    scores = (x @ x.mT).detach()
    kth = scores.topk(k, dim=-1).values[..., -1:]
    adjacency = (scores >= kth).to(x.dtype)
    scale = adjacency.sum(-1, keepdim=True).rsqrt()
    return (scale * adjacency * scale.mT) @ values


def attention(values: Tensor, target: Tensor, source: Tensor, adjacency: Tensor) -> Tensor:
    """Return a masked softmax over all pairs: values (B, H, N, C), scores (B, H, N)."""
    scores = F.leaky_relu(target.unsqueeze(3) + source.unsqueeze(2), 0.2)
    bias = torch.where(adjacency, 0.0, float("-inf")).unsqueeze(1)
    return (scores + bias).softmax(-1) @ values


def gated_sum(edge: Tensor, values: Tensor) -> Tensor:
    return (edge.sigmoid().softmax(2) * values.unsqueeze(1)).sum(2)


def edge_update(
    edges: Tensor, projected: Tensor, target: Tensor, source: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Return edges (B, N, N, C) plus their nodes, after a batch norm over N * N channels."""
    joined = projected + target.unsqueeze(2) + source.unsqueeze(1)
    pairs = joined.flatten(1, 2)
    normed = F.batch_norm(pairs, None, None, weight.flatten(), bias.flatten(), training=True)
    return edges + normed.view_as(edges).relu()


def cluster_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (B N, C), and the index of the graph of each."""
    batch, nodes, _ = x.shape
    return x.flatten(0, 1), torch.arange(batch, device=x.device).repeat_interleave(nodes)


def cluster_nearest(x: Tensor, k: int) -> Tensor:
    nearest = cluster_ragged_nearest(*cluster_rows(x), k)
    return nearest.view(x.shape[0], x.shape[1], k) % x.shape[1]


def cluster_max_relative(x: Tensor, k: int) -> Tensor:
    return cluster_ragged_max_relative(*cluster_rows(x), k).view(x.shape)


def cluster_ragged_nearest(x: Tensor, batch: Tensor, k: int) -> Tensor:
    """Return the k nearest rows of the same graph, if each graph has at least k."""
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


def chain_energies(logits: Tensor, couplings: Tensor) -> tuple[Tensor, Tensor]:
    """The states of binary action units, (2^N, N), and their energies, (B, T, 2^N), in float64."""
    units = logits.shape[2]
    numbers = torch.arange(2**units, device=logits.device)
    states = (numbers[:, None] >> torch.arange(units, device=logits.device) & 1).double()
    half = ((couplings + couplings.T) / 2).double().triu(1)
    return states, logits.double() @ states.T + ((states @ half) * states).sum(1)


def smoothed_chain(logits: Tensor, couplings: Tensor, stay: Tensor) -> Tensor:
    """Forward-backward over all states: a step is a product with a 2 x 2 matrix for each unit."""
    states, energies = chain_energies(logits, couplings)
    potentials = (energies - energies.amax(2, keepdim=True)).exp()
    change = stay.double().neg().exp()

    def move(message: Tensor) -> Tensor:
        for i in range(len(change)):
            pairs = message.unflatten(1, (-1, 2, 2**i))
            message = (pairs + change[i] * pairs.flip(2)).flatten(1)
        return message

    forward = [potentials[:, 0]]
    for t in range(1, logits.shape[1]):
        message = move(forward[-1]) * potentials[:, t]
        forward.append(message / message.sum(1, keepdim=True))
    backward = [torch.ones_like(forward[0])]
    for t in range(logits.shape[1] - 1, 0, -1):
        message = move(backward[-1] * potentials[:, t])
        backward.append(message / message.sum(1, keepdim=True))
    joint = torch.stack(forward, 1) * torch.stack(backward[::-1], 1)
    return ((joint @ states).log() - (joint @ (1 - states)).log()).to(logits.dtype)


def best_path(logits: Tensor, couplings: Tensor, stay: Tensor) -> Tensor:
    """Viterbi over all states: each step keeps from where the best score came."""
    states, energies = chain_energies(logits, couplings)
    numbers = torch.arange(len(states), device=logits.device)
    score, came = energies[:, 0], []
    for t in range(1, logits.shape[1]):
        origin = numbers.expand(len(score), -1)
        for i, cost in enumerate(stay.double()):
            other = numbers ^ (1 << i)
            better = score[:, other] - cost > score
            origin = torch.where(better, origin[:, other], origin)
            score = torch.where(better, score[:, other] - cost, score)
        came.append(origin)
        score = score + energies[:, t]
    path = [score.argmax(1)]
    for origin in reversed(came):
        path.append(origin.gather(1, path[-1][:, None])[:, 0])
    return states[torch.stack(path[::-1], 1)].float()

"""The graph that a model builds, averaged over images and brought to the level of AUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from aurel.facs import AUSet
from aurel.graph import RelationGraph
from aurel.models.base import AUModel


@torch.inference_mode()
def mean_graphs(model: AUModel, batches: Iterable[Tensor]) -> list[Tensor]:
    """Average each graph that a model returns over images; see `edge_strengths`.

    Args:
        model: one that builds graphs.
        batches: images (B, 3, S, S) each, on the model's device.

    Returns:
        one (R, R) float64 matrix a graph, in the order of use; row i is what node i listens to.

    Raises:
        ValueError: the model returns no graph, or there are no images.
    """
    sums: list[Tensor] = []
    count = 0
    for images in batches:
        graphs = model(images, return_graph=True).graphs
        if not graphs:
            raise ValueError(f"{type(model).__name__} returns no graph")
        strengths = [edge_strengths(graph).double().sum(0).cpu() for graph in graphs]
        sums = [a + b for a, b in zip(sums, strengths, strict=True)] if sums else strengths
        count += len(images)
    if not count:
        raise ValueError("there is no face to average the graph over")
    return [total / count for total in sums]


def edge_strengths(graph: RelationGraph) -> Tensor:
    r"""Return how strongly each node listens to each other one, (B, R, R).

    A graph of neighbours gives 1 for a neighbour and 0 for others, so that the mean over images is
    how often an edge is there; a dense graph gives its weights; a graph that has edge features
    alone gives the gates by which `GatedEdgeGCN` weighs nodes, averaged over channels,
    :math:`\mathrm{mean}_c\, \mathrm{softmax}_j\, \sigma(e_{ijc})`.
    """
    if graph.neighbors is not None:
        return graph.edges().float()
    if graph.weights is not None:
        return graph.weights
    assert graph.edge_features is not None
    return graph.edge_features.float().sigmoid().softmax(2).mean(3)


def lift_to_aus(adjacency: Tensor, au_nodes: Sequence[Sequence[int]]) -> Tensor:
    r"""Bring a graph over facial regions to the level of AUs.

    .. math:: A_{ij} = \mathrm{mean}_{r \in R_i,\, s \in R_j,\, r \ne s}\; a_{rs}

    where :math:`R_i` are the regions of AU i: a random region of AU i listens to a random other
    region of AU j so strongly. A region's loop counts for nothing, also where two AUs share it.

    Args:
        adjacency: (R, R), between regions.
        au_nodes: for each of N AUs its regions.

    Returns:
        (N, N).
    """
    nodes = adjacency.shape[0]
    member = adjacency.new_zeros(len(au_nodes), nodes)
    for au, own in enumerate(au_nodes):
        member[au, list(own)] = 1
    others = 1 - torch.eye(nodes, dtype=adjacency.dtype)
    total = member @ (adjacency * others) @ member.T
    return total / (member @ others @ member.T).clamp_min(1)


def au_adjacency(model: AUModel, adjacency: Tensor) -> tuple[Tensor, AUSet]:
    """Return a graph of a model at the level of AUs, and those AUs.

    A graph over regions is lifted; one over the first AUs of the set alone, as in a model whose
    left and right AUs share the node of the whole, keeps those.

    Raises:
        ValueError: the nodes are neither AUs nor regions of AUs.
    """
    aus, rules = model.aus, model.center_rules
    nodes = len(adjacency)
    # First, as there may be as many regions as AUs.
    if rules is not None and rules.num_nodes == nodes:
        return lift_to_aus(adjacency, rules.au_nodes), aus
    if nodes == len(aus):
        return adjacency, aus
    both_sides = [number for number, side in zip(aus.numbers, aus.sides, strict=True) if not side]
    if nodes == len(both_sides):
        return adjacency, AUSet.of(both_sides)
    raise ValueError(f"{nodes} nodes are neither the {len(aus)} AUs nor their regions")

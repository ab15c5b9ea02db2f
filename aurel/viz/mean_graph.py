"""Average the graphs of a model over images, and convert graphs of regions to graphs of AUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from aurel.facs import AUSet
from aurel.graph import RelationGraph
from aurel.models.base import AUModel


@torch.inference_mode()
def mean_graphs(model: AUModel, batches: Iterable[Tensor]) -> list[Tensor]:
    """Return each graph of a model, averaged over images; see `edge_strengths`.

    Args:
        model: a model that returns graphs.
        batches: images (B, 3, S, S) each, on the model's device.

    Returns:
        One (R, R) float64 matrix for each graph, in the order of use; [i, j] is the edge from node
        j to node i.

    Raises:
        ValueError: the model returns no graph, or there are no images.
    """
    sums: list[Tensor] = []
    count = 0
    for images in batches:
        graphs = model(images, return_graph=True).graphs
        if not graphs:
            raise ValueError(
                f"model must return a graph, got {type(model).__name__}, which returns none"
            )
        strengths = [edge_strengths(graph).double().sum(0).cpu() for graph in graphs]
        sums = [a + b for a, b in zip(sums, strengths, strict=True)] if sums else strengths
        count += len(images)
    if not count:
        raise ValueError("batches must contain at least one face, got none")
    return [total / count for total in sums]


def edge_strengths(graph: RelationGraph) -> Tensor:
    r"""Return the strength of the edge from each node j to each node i, (B, R, R).

    For a graph of neighbors it is 1 for a neighbor and 0 for other nodes, so that the mean over
    images is the frequency of an edge; for a dense graph it is the weight; for a graph with edge
    features only, it is the gate of `GatedEdgeGCN`, averaged over channels,
    :math:`\mathrm{mean}_c\, \mathrm{softmax}_j\, \sigma(e_{ijc})`.
    """
    if graph.neighbors is not None:
        return graph.edges().float()
    if graph.weights is not None:
        return graph.weights
    assert graph.edge_features is not None
    return graph.edge_features.float().sigmoid().softmax(2).mean(3)


def lift_to_aus(adjacency: Tensor, au_nodes: Sequence[Sequence[int]]) -> Tensor:
    r"""Convert a graph of facial regions to a graph of AUs.

    .. math:: A_{ij} = \mathrm{mean}_{r \in R_i,\, s \in R_j,\, r \ne s}\; a_{rs}

    where :math:`R_i` are the regions of AU i: the mean weight of the edges from the regions of AU j
    to those of AU i. Loops of regions are not counted, also if two AUs share a region.

    Args:
        adjacency: (R, R), between regions.
        au_nodes: the regions of each of N AUs.

    Returns:
        The adjacency of AUs, (N, N).
    """
    nodes = adjacency.shape[0]
    member = adjacency.new_zeros(len(au_nodes), nodes)
    for au, own in enumerate(au_nodes):
        member[au, list(own)] = 1
    others = 1 - torch.eye(nodes, dtype=adjacency.dtype)
    total = member @ (adjacency * others) @ member.T
    return total / (member @ others @ member.T).clamp_min(1)


def au_adjacency(model: AUModel, adjacency: Tensor) -> tuple[Tensor, AUSet]:
    """Return a graph of AUs from a graph of a model, and its AUs.

    A graph of regions is converted by `lift_to_aus`. A graph of the first AUs of the set only, as
    in a model whose left and right AUs share the node of the whole AU, is returned with these AUs.

    Raises:
        ValueError: the nodes are neither AUs nor regions of AUs.
    """
    aus, rules = model.aus, model.center_rules
    nodes = len(adjacency)
    # Check regions first: there may be as many regions as AUs.
    if rules is not None and rules.num_nodes == nodes:
        return lift_to_aus(adjacency, rules.au_nodes), aus
    if nodes == len(aus):
        return adjacency, aus
    both_sides = [number for number, side in zip(aus.numbers, aus.sides, strict=True) if not side]
    if nodes == len(both_sides):
        return adjacency, AUSet.of(both_sides)
    raise ValueError(
        f"adjacency must be over the {len(aus)} AUs or their regions, got {nodes} nodes"
    )

"""Every relation layer of nodes: how it is built, and the forms of inputs and results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from aurel import layers
from helpers.graph_forms import Part
from helpers.random_layers import NODES, RandomLayer, random_layer, seed

WIDTH, TOKENS = 8, 3
METRICS = ("l2", "l1", "cosine", "dot")
REGIONS = (0, 0, 1, 1, 2)
Options = dict[str, st.SearchStrategy[Any]]


@dataclass(frozen=True)
class Kind:
    """How to build a layer for a number of nodes from its options; forms of inputs and results.

    Shapes are those behind the batch, and for nodes and pairs behind the nodes.
    """

    make: Callable[..., nn.Module]
    options: Options = field(default_factory=dict)
    inputs: tuple[tuple[str, tuple[int, ...]], ...] = (("node", (WIDTH,)),)
    outputs: tuple[str, ...] = ("node",)


def fixed(graph: str, nodes: int) -> str | Tensor:
    itself = torch.eye(nodes, dtype=torch.bool, device="cpu")  # where the layer may be "meta"
    return graph if graph != "fixed" else itself | itself.roll(1, 0)


CHOICE: Options = {"k": st.integers(1, NODES), "metric": st.sampled_from(METRICS)}
EMBEDDING: Options = {"embed": st.booleans()}
CONVOLUTION = {**CHOICE, "loop": st.booleans(), **EMBEDDING}


def embedding(embed: bool, nodes: int) -> dict[str, Any]:
    return {"node_embedding": embed, "num_nodes": nodes if embed else None}


def convolution(conv: type[nn.Module]) -> Kind:
    def make(nodes: int, k: int, metric: str, loop: bool, embed: bool = False) -> nn.Module:
        k = max(1, min(k, nodes if loop else nodes - 1))
        return conv(WIDTH, 12, k, metric, loop=loop, **embedding(embed, nodes))

    return Kind(make, CONVOLUTION)


KINDS = {
    "TopKGraphConv": Kind(
        lambda nodes, k, metric, ties, embed=False: layers.TopKGraphConv(
            WIDTH, nodes, min(k, nodes), metric, ties, node_embedding=embed
        ),
        {**CHOICE, "ties": st.sampled_from(["exact", "all"]), **EMBEDDING},
    ),
    "MaxRelativeGraphConv": convolution(layers.MaxRelativeGraphConv),
    "EdgeGraphConv": convolution(layers.EdgeGraphConv),
    "GINGraphConv": convolution(layers.GINGraphConv),
    "SAGEGraphConv": convolution(layers.SAGEGraphConv),
    "SelfAdjustingGCN": Kind(
        lambda nodes, k, metric, conv, graph, embed=False: layers.SelfAdjustingGCN(
            WIDTH,
            6,
            (8,),
            (1,),
            min(k, nodes),
            metric,
            conv,
            graph=fixed(graph, nodes),
            **embedding(embed, nodes),
        ),
        {
            **CHOICE,
            **EMBEDDING,
            "conv": st.sampled_from(["max_relative", "edge", "gin", "sage"]),
            "graph": st.sampled_from(["knn", "self", "fixed"]),
        },
    ),
    "CrossRegionGAT": Kind(
        lambda nodes, heads, edges, embed=False: layers.CrossRegionGAT(
            WIDTH, REGIONS[:nodes], heads, edges, node_embedding=embed
        ),
        {
            **EMBEDDING,
            "heads": st.sampled_from([1, 2]),
            "edges": st.sampled_from(
                ["fully_connected", "same_region", "cross_region", "active", "active_cross_region"]
            ),
        },
        (("node", (WIDTH,)), ("node", ())),
    ),
    "MultiDimensionalEdges": Kind(
        lambda nodes: layers.MultiDimensionalEdges(WIDTH, nodes),
        {},
        (("node", (TOKENS, WIDTH)), ("graph", (TOKENS, WIDTH))),
        ("pair",),
    ),
    "GatedEdgeGCN": Kind(
        lambda nodes, residual, divide=True, embed=False: layers.GatedEdgeGCN(
            WIDTH, nodes, 1, residual, divide_messages=divide, node_embedding=embed
        ),
        {
            "residual": st.sampled_from(["inside", "outside"]),
            "divide": st.booleans(),
            **EMBEDDING,
        },
        (("node", (WIDTH,)), ("pair", (WIDTH,))),
        ("node", "pair"),
    ),
    "CosineClassifier": Kind(lambda nodes: layers.CosineClassifier(WIDTH, nodes)),
    "AUSpecificFeatures": Kind(
        lambda nodes: layers.AUSpecificFeatures(6, 7, nodes), {}, (("graph", (TOKENS, 6)),)
    ),
    "CrossAttention": Kind(
        lambda nodes: layers.CrossAttention(WIDTH),
        {},
        (("node", (WIDTH,)), ("graph", (TOKENS, WIDTH))),
    ),
    "NodeTransformer": Kind(
        lambda nodes, heads, embed=False: layers.NodeTransformer(
            WIDTH, 6, 1, heads, head_dim=3, expansion=2, **embedding(embed, nodes)
        ),
        {"heads": st.sampled_from([1, 2]), **EMBEDDING},
    ),
    "NodeEmbedding": Kind(lambda nodes: layers.NodeEmbedding(WIDTH, nodes)),
    "PairMessages": Kind(lambda nodes: layers.PairMessages(WIDTH, nodes)),
    "PairwiseInference": Kind(lambda nodes: layers.PairwiseInference(nodes), {}, (("node", ()),)),
    "TokenFusion": Kind(
        lambda nodes, weight: layers.TokenFusion(WIDTH, 1, 2, weight),
        {"weight": st.sampled_from([None, 0.3])},
        (("node", ()), ("node", ()), ("node", (WIDTH,)), ("graph", (WIDTH,))),
    ),
}


@cache
def built(name: str, training: bool, nodes: int, **options: Any) -> nn.Module:
    return KINDS[name].make(nodes, **options).double().train(training)


def sample(name: str, data: st.DataObject, training: bool) -> tuple[RandomLayer, dict[str, Any]]:
    """Return a layer and the options that it was built from; seed torch."""
    seed(data)
    options = data.draw(st.fixed_dictionaries(KINDS[name].options))
    return random_layer(lambda nodes: built(name, training, nodes, **options)), options


def inputs_of(name: str, batch: int) -> list[Part]:
    leading = {"graph": (batch,), "node": (batch, NODES), "pair": (batch, NODES, NODES)}
    return [
        (torch.randn(*leading[form], *shape, dtype=torch.float64), form)
        for form, shape in KINDS[name].inputs
    ]

"""Every model at a size that trains in less than a minute, with and without its relations.

Without relations, the parameters are the same if possible: the layer that relates AUs stays, and
every node is its own only neighbor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers import CrossRegionGAT, GatedEdgeGCN
from aurel.layers.gated_edge_gcn import GatedEdgeLayer
from aurel.models import create_model

SIZE = 64
BACKBONE = "test_efficientnet"
WIDTH = 32

PRESETS: dict[str, dict[str, Any]] = {
    "me_graphau_stage1": {"channels": WIDTH},
    "me_graphau": {"channels": WIDTH},
    "open_graphau_stage1": {"channels": WIDTH},
    "open_graphau": {"channels": WIDTH},
    "sacl": {
        "image_size": SIZE,
        "dims": (32,),
        "depths": (2,),
        "landmark_widths": (8, 16, 32),
        "token_dim": 16,
    },
    "mdhr": {"channels": WIDTH, "num_adjacent": 1},
    "macg": {"channels": WIDTH},
    "lrp_fgg": {"channels": WIDTH, "fusion_depth": 1, "fusion_heads": 4},
    "gtle_net": {"widths": (16, 8, 8), "bottlenecks": 1, "classifier_widths": (8, 8, 8)},
}

# With k = 1 by distance, a node's one neighbor is itself.
ITSELF = {"k": 1, "metric": "l2"}
WITHOUT: dict[str, dict[str, Any]] = {
    "me_graphau_stage1": ITSELF,
    "open_graphau_stage1": ITSELF,
    "macg": ITSELF,
    "lrp_fgg": ITSELF,
    "sacl": {"graph": "self"},
    "gtle_net": {"local_features": "maps"},
}
"""Options that remove the relations; `isolate_nodes` does so for models without such options."""

REMOVED = {
    "me_graphau_stage1": "neighbors (k=1, itself)",
    "me_graphau": "messages between nodes; the edges and their loss stay",
    "open_graphau_stage1": "neighbors (k=1, itself)",
    "open_graphau": "messages between nodes, and with them the use of edges",
    "sacl": 'neighbors (graph="self")',
    "mdhr": "attention to other nodes; the region heads and their loss stay",
    "macg": "neighbors (k=1, itself); attention and channel topology stay",
    "lrp_fgg": "neighbors (k=1, itself); perception and fusion stay",
    "gtle_net": "the masks of the AUs, with their parameters; AUs have no other relations",
}


PLAIN = "backbone alone"
"""The baseline: the mean of the last map and a linear layer."""


def build(name: str, relations: bool) -> Any:
    """Return a model of BP4D's twelve AUs, or the plain backbone, with fresh weights."""
    if name == PLAIN:
        parts = {"perception": False, "graph": False, "fusion": "none"}
        return create_model("lrp_fgg", aus="BP4D", backbone=BACKBONE, **parts)
    options = PRESETS[name] if relations else PRESETS[name] | WITHOUT.get(name, {})
    model = create_model(name, aus="BP4D", backbone=BACKBONE, **options)
    if not relations:
        isolate_nodes(model)
    return model


def isolate_nodes(model: nn.Module) -> None:
    """Make each node its own only neighbor in gated edges and attention; weights stay."""
    for layer in list(model.modules()):
        for name, child in list(layer.named_children()):
            alone: nn.Module
            if isinstance(child, GatedEdgeGCN):
                alone = IsolatedGatedEdges(child)
            elif isinstance(child, CrossRegionGAT):
                alone = IsolatedAttention(child.channels, child.regions, child.heads)
                alone.load_state_dict(child.state_dict())
            else:
                continue
            setattr(layer, name, alone)


class IsolatedGatedEdges(nn.Module):
    """`GatedEdgeGCN` in which every node is its own only neighbor, whose gate is 1.

    Edges depend on their nodes, but nodes do not depend on edges.
    """

    def __init__(self, gcn: GatedEdgeGCN) -> None:
        super().__init__()
        self.layers = gcn.layers

    def forward(
        self, x: Tensor, edges: Tensor, *, projected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nodes (B, N, C) and edges (B, N, N, C) as `GatedEdgeGCN` does."""
        for layer in self.layers:
            assert isinstance(layer, GatedEdgeLayer)
            joined = layer.edge(edges) if projected is None else projected
            joined = joined + layer.target(x).unsqueeze(2) + layer.source(x).unsqueeze(1)
            edges, projected = edges + F.relu(layer.edge_norm(joined)), None
            update = layer.node_norm(layer.node(x) + layer.message(x))
            x = F.relu(x + update) if layer.residual == "inside" else x + F.relu(update)
        return x, edges


class IsolatedAttention(CrossRegionGAT):
    """`CrossRegionGAT` in which every node is its own only neighbor."""

    def adjacency(
        self, x: Tensor, active: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the identity, (N, N)."""
        return torch.eye(x.shape[1], dtype=torch.bool, device=x.device)

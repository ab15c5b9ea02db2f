"""Relation layers: `torch.nn` modules over `aurel.ops`, on (B, N, C) nodes.

Layers of nodes take a `mask` (B, N), True where the node exists: one that does not exist sends no
message and counts in no statistics. Those that build a graph return it with ``return_graph=True``.
These take no mask:

- layers of a map, whose cells all exist: `AUMaskedFeatures`, `ChannelTopology`, `FacialDynamics`,
  `Grapher`, `LandmarkPredictor`, `LandmarkROI`, `LocalRegionPerception`, `MapDecoder`,
  `MultiScaleAttention`, `MultiScaleFusion`, `MultiScaleLinearAttention`, `RegionalAUFeatures`, and
  `TokenProjection` on the cells as tokens;
- `ChainInference`, in which an AU without evidence has logits of 0; it has a mask of frames;
- `PerAUClassifier`, `PerAUTemporalConv` and `PlattScaling`, in which each AU has weights and
  statistics of its own and depends on no other, so that the result for one that does not exist need
  only be ignored.

Layers fold the weights of some submodules into cheaper computations. A submodule that is replaced
(by an adapter, a quantized map, a parametrization) or has hooks is called instead, with the same
results; hooks on all modules at once do not count. ReLUs inside of `nn.Sequential` work in place in
``FacialDynamics`` and ``PerAUClassifier``, as in torchvision's networks: full backward hooks on the
norms before them raise, and forward hooks must copy what those norms return.
"""

from __future__ import annotations

from aurel.layers.au_masked_features import AUMaskedFeatures
from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.calibration import PlattScaling
from aurel.layers.chain_inference import ChainInference
from aurel.layers.channel_topology import ChannelTopology
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.layers.cross_attention import CrossAttention
from aurel.layers.cross_region_gat import CrossRegionGAT
from aurel.layers.facial_dynamics import FacialDynamics
from aurel.layers.gated_edge_gcn import GatedEdgeGCN
from aurel.layers.graph_convs import (
    EdgeGraphConv,
    GINGraphConv,
    MaxRelativeGraphConv,
    SAGEGraphConv,
)
from aurel.layers.grapher import Grapher
from aurel.layers.landmark_predictor import LandmarkPredictor
from aurel.layers.landmark_roi import LandmarkROI
from aurel.layers.local_region_perception import LocalRegionPerception
from aurel.layers.map_decoder import MapDecoder
from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.layers.multi_scale_attention import MultiScaleAttention
from aurel.layers.multi_scale_fusion import MultiScaleFusion
from aurel.layers.multi_scale_linear_attention import MultiScaleLinearAttention
from aurel.layers.node_embedding import NodeEmbedding
from aurel.layers.node_transformer import NodeTransformer
from aurel.layers.pair_messages import PairMessages
from aurel.layers.pairwise_inference import PairwiseInference
from aurel.layers.per_au_classifier import PerAUClassifier
from aurel.layers.per_au_temporal_conv import PerAUTemporalConv
from aurel.layers.regional_au_features import RegionalAUFeatures
from aurel.layers.self_adjusting_gcn import SelfAdjustingGCN
from aurel.layers.token_fusion import TokenFusion
from aurel.layers.token_projection import TokenProjection
from aurel.layers.topk_graph_conv import TopKGraphConv
from aurel.name_clash import check_owner

check_owner()

__all__ = [
    "AUMaskedFeatures",
    "AUSpecificFeatures",
    "ChainInference",
    "ChannelTopology",
    "CosineClassifier",
    "CrossAttention",
    "CrossRegionGAT",
    "EdgeGraphConv",
    "FacialDynamics",
    "GINGraphConv",
    "GatedEdgeGCN",
    "Grapher",
    "LandmarkPredictor",
    "LandmarkROI",
    "LocalRegionPerception",
    "MapDecoder",
    "MaxRelativeGraphConv",
    "MultiDimensionalEdges",
    "MultiScaleAttention",
    "MultiScaleFusion",
    "MultiScaleLinearAttention",
    "NodeEmbedding",
    "NodeTransformer",
    "PairMessages",
    "PairwiseInference",
    "PerAUClassifier",
    "PerAUTemporalConv",
    "PlattScaling",
    "RegionalAUFeatures",
    "SAGEGraphConv",
    "SelfAdjustingGCN",
    "TokenFusion",
    "TokenProjection",
    "TopKGraphConv",
]

"""The edge layers put together give the numbers of the authors' second-stage head."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load
from torch import Tensor, nn

from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.layers.gated_edge_gcn import GatedEdgeGCN
from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.models.author_keys import layers as author_keys

Golden = Callable[[str], dict[str, np.ndarray]]
PARTS = {
    "features": ("class_linears.", author_keys.au_specific_features),
    "edges": ("edge_extractor.", author_keys.multi_dimensional_edges),
    "relation": ("gnn.", author_keys.gated_edge_gcn),
    "classifier": ("", author_keys.cosine_classifier),
    "edge_classifier": ("edge_fc.", dict),
}


class Head(nn.Module):
    """Features, edges, gated graph convolution and the two classifiers."""

    def __init__(self, channels: int, nodes: int, fold: bool) -> None:
        super().__init__()
        self.fold = fold
        self.features = AUSpecificFeatures(channels, channels, nodes)
        self.edges = MultiDimensionalEdges(channels, nodes)
        self.relation = GatedEdgeGCN(channels, nodes)
        self.classifier = CosineClassifier(channels, nodes)
        self.edge_classifier = nn.Linear(channels, 4)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        node_tokens = self.features(tokens)
        nodes, projected = node_tokens.mean(2), None
        if self.fold:
            weight = self.relation.layers[0].edge.weight
            edges, projected = self.edges.with_projection(node_tokens, tokens, weight)
        else:
            edges = self.edges(node_tokens, tokens)
        nodes, edges = self.relation(nodes, edges, projected=projected)
        return self.classifier(nodes), self.edge_classifier(edges)


def convert(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    actual = {}
    for part, (prefix, function) in PARTS.items():
        own = {k.removeprefix(prefix): v for k, v in author.items() if k.startswith(prefix)}
        actual |= {f"{part}.{name}": value for name, value in function(own).items()}
    return actual


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("fold", [False, True], ids=["apart", "folded"])
def test_gives_the_authors_numbers(golden: Golden, fold: bool, mode: str) -> None:
    arrays = golden("me_graphau_head_stage2")
    head = Head(16, 6, fold)
    load(head, arrays, convert, mode)
    tokens = torch.from_numpy(arrays["input.x"]).requires_grad_()
    probs, logits = head(tokens)
    outs = [probs, logits.flatten(1, 2)]
    for index, out in enumerate(outs):
        expected = torch.from_numpy(arrays[f"{mode}.out.{index}"])
        torch.testing.assert_close(out, expected, **TOLERANCE)
    cotangents = [torch.from_numpy(arrays[f"cotangent.{index}"]) for index in range(2)]
    assert_gradients(head, arrays, convert, mode, {"x": tokens}, outs, cotangents)
    if mode == "train":
        assert_buffers(head, arrays, convert)

"""Options for readings of the papers that differ from the defaults."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_models import small_images, small_model

from aurel.facs import (
    AU_SETS,
    conditional_probabilities,
    facs_graph,
    region_plan,
    statistics_graph,
)
from aurel.layers import FacialDynamics
from aurel.models import create_model
from aurel.models.registry import make_config, model_info
from aurel.models.sacl import SACLConfig

WIDE: dict[str, Any] = {"image_size": 128, "roi_fraction": 0.2}


def shuffled_cells(model: Any) -> None:
    """Exchange the cells of every region of `model`."""
    regions = model.relations.regions
    crop = regions.forward

    def forward(*inputs: Any) -> torch.Tensor:
        cells = crop(*inputs).flatten(3)
        return cells[..., torch.arange(cells.shape[3]).flip(0)].view_as(crop(*inputs))

    regions.forward = forward


@pytest.mark.parametrize("correlation", ["gcn", "transformer"])
@pytest.mark.parametrize("embed", ["pool", "flatten"])
def test_the_layout_of_a_region_counts_where_it_is_flattened(correlation: str, embed: str) -> None:
    model = small_model("sacl", correlation=correlation, roi_embed=embed, **WIDE).eval()
    assert model.relations.regions.window(32, 32) == 7
    images = torch.randn(2, 3, 128, 128)
    landmarks = 128 * torch.rand(2, 49, 2)
    with torch.no_grad():
        before, _, _ = model.relations(model.backbone(images)[model._taps[0]], landmarks)
        shuffled_cells(model)
        after, _, _ = model.relations(model.backbone(images)[model._taps[0]], landmarks)
    assert torch.allclose(before, after, atol=1e-5) == (embed == "pool")


def test_flattened_regions_add_a_map_to_the_width_of_a_node() -> None:
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in create_model("sacl", roi_embed=embed).parameters())
            for embed in ("pool", "flatten")
        ]
    assert sizes[1] - sizes[0] == 3136 * 64 + 64


def test_the_transformer_takes_flattened_regions_by_default() -> None:
    info = model_info("sacl")
    for correlation, embed in (("gcn", "pool"), ("transformer", "flatten")):
        config: Any = make_config(info, AU_SETS["BP4D"], {"correlation": correlation})
        assert config.roi_embed == embed


def test_an_untrained_sacl_has_distinct_regions() -> None:
    model = create_model("sacl", aus="BP4D", backbone="rest_tiny").eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        basic = model.backbone(images)[model._taps[0]]
        landmarks = model.relations.landmarks(basic, (224, 224))
        regions = model.relations.regions(basic, landmarks, (224, 224))
    for face in regions:
        assert len({tuple(region.flatten().tolist()) for region in face}) == 18


def test_the_named_graphs_of_table_7() -> None:
    aus = [1, 2, 4, 12, 15]
    labels = torch.arange(60).view(12, 5) * 7 % 3 % 2
    for name, matrix in (
        ("facs", facs_graph(aus)),
        ("statistics", statistics_graph(aus, conditional_probabilities(labels))),
    ):
        options = {"graph": name}
        options |= SACLConfig.from_labels(AU_SETS["BP4D"].of(aus), options, labels)
        torch.manual_seed(0)
        named = small_model("sacl", aus=aus, **options)
        torch.manual_seed(0)
        given = small_model("sacl", aus=aus, graph=matrix)
        assert torch.equal(named.relations.graph.neighbors, given.relations.graph.neighbors)
    with pytest.raises(ValueError, match="statistics_graph outside a training run"):
        small_model("sacl", graph="statistics")
    with pytest.raises(ValueError, match="graph must be one of knn, self, facs, statistics, got"):
        small_model("sacl", graph="facts")


def test_the_face_has_three_regions_where_the_groups_are_four() -> None:
    plan = region_plan("BP4D")
    names = AU_SETS["BP4D"].numbers
    assert [names[i] for i, region in enumerate(plan.region_of) if region == 2] == [
        10, 12, 14, 15, 17, 23, 24,
    ]  # fmt: skip
    row = names.index(12)
    for regions, expected in (
        ("groups", [1, 2, 4, 6, 7, 10, 12, 17, 23, 24]),
        ("face", [1, 2, 4, 6, 7, 12]),
    ):
        model: Any = small_model("mdhr", aus="BP4D", edge_regions=regions)
        assert model.region_plan.num_classes == (16, 2, 8, 16)
        nodes = torch.zeros(1, 12, model.relation.channels)
        sources = model.relation.adjacency(nodes, torch.ones(1, 12))[0, row]
        assert [names[i] for i in sources.nonzero().flatten().tolist()] == expected
    with pytest.raises(ValueError, match="edge_regions must be one of groups, face, got 'thirds'"):
        small_model("mdhr", edge_regions="thirds")


def test_the_papers_gate_is_one_convolution_of_all_scales() -> None:
    torch.manual_seed(0)
    layer = FacialDynamics([4, 6], [2, 1], 5, 3, 2, gate="direct").eval().double()
    maps = [torch.randn(1, 4, 4, 6, 6).double(), torch.randn(1, 4, 6, 3, 3).double()]
    motion = [layer._motion(scale, x) for scale, x in zip(layer.scales, maps, strict=True)]
    assert layer.weigh is not None and layer.weigh.weight.shape == (2, 10, 1, 1)
    stacked = torch.cat(motion, dim=1)
    scores = torch.einsum("bchw,lc->blhw", stacked, layer.weigh.weight[..., 0, 0])
    weights = (scores + layer.weigh.bias[:, None, None]).softmax(1)
    fused = sum(weights[:, i, None] * part for i, part in enumerate(motion))
    expected = layer.project(fused).permute(0, 2, 3, 1)[None]
    torch.testing.assert_close(layer(maps), expected)
    with pytest.raises(ValueError, match="gate must be one of bottleneck, direct, got 'paper'"):
        FacialDynamics([4], [1], 5, 3, gate="paper")  # type: ignore[arg-type]
    model: Any = small_model("mdhr", gate="direct")
    assert len(model.dynamics.gates) == 0


def test_the_stacked_layer_lets_aus_mix() -> None:
    for classifier, mixes in (("per_au", False), ("stacked", True)):
        model: Any = small_model("lrp_fgg", classifier=classifier)
        layer, count = model.head.classifier, len(model.aus)
        nodes = torch.randn(2, count, model.head.relation.channels, requires_grad=True)
        layer(nodes)[:, 0].sum().backward()
        assert nodes.grad is not None
        assert bool((nodes.grad[:, 1:] != 0).any()) == mixes
    with torch.device("meta"):
        head: Any = create_model("lrp_fgg", aus="Aff-Wild2", classifier="stacked")
    assert sum(p.numel() for p in head.head.classifier.parameters()) == 73_740
    assert small_model("lrp_fgg", classifier="stacked")(small_images()).probs.shape[0] == 3

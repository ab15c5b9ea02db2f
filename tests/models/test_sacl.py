"""SACL: the sizes of the paper, its ablations, its landmarks and graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_images, small_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from aurel.facs import AUCenter, conditional_probabilities, facs_graph, statistics_graph
from aurel.models.checkpoint import load_model, save_model
from aurel.models.registry import create_model
from aurel.models.sacl import DEPTHS, DIMS

# Options, then parameters (M) and multiply-adds (G) in table 8 of the paper; the last row is in
# the text of section 4.3.3.
TABLE_8 = {
    "backbone": ({"multi_scale": False, "relations": False}, 10.0, 1.47),
    "multi-scale": ({"relations": False}, 12.5, 1.66),
    "relations": ({"multi_scale": False}, 24.2, 2.36),
    "both": ({}, 27.1, 2.57),
    "transformer": ({"correlation": "transformer"}, 74.0, 3.41),
}

AUS = [1, 2, 4, 12, 15]
CHANCES = conditional_probabilities(torch.arange(60).view(12, 5) * 7 % 3 % 2)
# Rows of table 9 and of the figures that table 8 lacks, at the size of `small_model`.
ABLATIONS: dict[str, dict[str, Any]] = {
    "facs-based graph": {"graph": facs_graph(AUS)},
    "statistics-based graph": {"graph": statistics_graph(AUS, CHANCES)},
    "cross-attention": {"fusion": "cross_attention"},
    "cross-attention, last stage": {"fusion": "cross_attention", "multi_scale": False},
    **{f"distance {metric}": {"metric": metric} for metric in ("l2", "l1", "cosine", "dot")},
    **{f"conv {conv}": {"conv": conv} for conv in ("max_relative", "edge", "gin", "sage")},
    **{f"last {n} stages": {"relations": False, "scales": n} for n in (1, 2, 3)},
    **{f"k = {k}": {"k": k} for k in (1, 3, 8)},
    **{
        f"S = {count}": {"dims": [width // 8 for width in DIMS[:count]], "depths": DEPTHS[:count]}
        for count in range(1, 8)
    },
}


def count(**options: Any) -> tuple[int, float]:
    """Return parameters, and multiply-adds of all matrix products for an image of 224 pixels."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad():
        model = create_model("sacl", num_aus=12, **options).eval()
        with counter:
            model(torch.zeros(1, 3, 224, 224))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2


@pytest.mark.parametrize("row", TABLE_8)
def test_sizes_are_those_of_the_paper(row: str) -> None:
    options, params, macs = TABLE_8[row]
    own_params, own_macs = count(**options)
    assert own_params / 1e6 == pytest.approx(params, rel=0.02)
    assert own_macs / 1e9 == pytest.approx(macs, rel=0.06)


@pytest.mark.parametrize(("aus", "nodes"), [("BP4D", 18), ("DISFA", 16)])
def test_shapes_of_the_paper(aus: str, nodes: int) -> None:
    model = create_model("sacl", aus=aus).eval()
    with torch.no_grad():
        out = model(torch.randn(1, 3, 224, 224), return_graph=True)
    assert out.logits.shape == (1, len(model.aus))
    assert [graph.neighbors.shape for graph in out.graphs] == [(1, nodes, 9)] * 12
    assert model.classifier.linear.in_features == (3136 + nodes) * 64
    assert model.classifier.reduce.in_features == 960


@pytest.mark.parametrize("row", [*TABLE_8, *ABLATIONS])
def test_every_row_learns(row: str) -> None:
    options = ABLATIONS[row] if row in ABLATIONS else TABLE_8[row][0]
    model = small_model("sacl", **options).train()
    out = model(small_images(), return_graph=True)
    loss = out.logits.square().sum()
    if out.landmarks is not None:
        loss = loss + out.landmarks.square().sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert (out.landmarks is None) == ("relations" in options)
    if out.graphs is not None:
        blocks = sum(model.config.depths) if model.config.correlation == "gcn" else 6
        assert len(out.graphs) == blocks
        assert all(graph.adjacency().shape == (3, 8, 8) for graph in out.graphs)


@pytest.mark.parametrize("stages", range(1, 8))
def test_sizes_of_one_to_seven_stages(stages: int) -> None:
    with torch.device("meta"):
        model = create_model("sacl", num_aus=12, dims=DIMS[:stages], depths=DEPTHS[:stages])
    assert len(model.relations.graph.stages) == stages
    assert model.classifier.reduce.in_features == 960


def test_after_the_cross_attention_only_nodes_are_classified() -> None:
    with torch.device("meta"):
        model = create_model("sacl", num_aus=12, fusion="cross_attention")
    assert model.look.channels == 960
    assert model.classifier.linear.in_features == 18 * 64


def test_scales_drop_the_finest_maps() -> None:
    wide = small_model("sacl", relations=False).classifier
    for scales, side in ((4, 16), (3, 8), (2, 4), (1, 2)):
        narrow = small_model("sacl", relations=False, scales=scales).classifier
        assert narrow.linear.in_features == 8 * side**2
        assert (narrow.reduce.in_features < wide.reduce.in_features) == (scales < 4)


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(
        ValueError, match="fusion must be one of concat, cross_attention, got 'sum'"
    ):
        small_model("sacl", fusion="sum")
    with pytest.raises(ValueError, match="correlation must be one of gcn, transformer, got 'rnn'"):
        small_model("sacl", correlation="rnn")
    with pytest.raises(ValueError, match="relations must be True for fusion='cross_att"):
        small_model("sacl", fusion="cross_attention", relations=False)
    with pytest.raises(ValueError, match="scales must be in 1..4, got 5"):
        small_model("sacl", scales=5)
    with pytest.raises(ValueError, match="must have R=8 rows, one for each region .*got 16"):
        small_model("sacl", graph=facs_graph("DISFA"))
    with pytest.raises(ValueError, match=r"k must be in 1..8 \(the number of nodes\), got 9"):
        small_model("sacl", k=9)


def face(batch: int) -> Tensor:
    return torch.rand(batch, 49, 2) * 64


def test_given_landmarks_move_the_regions() -> None:
    model = small_model("sacl")
    evaluate_after_one_step(model)
    images, first, second = small_images(), face(3), face(3)
    out = model(images, first)
    assert not torch.allclose(out.logits, model(images, second).logits)
    assert torch.equal(out.logits, model(images, landmarks=first).logits)
    # The output is the prediction, so that it can be trained.
    torch.testing.assert_close(out.landmarks, model(images).landmarks)
    same = model(images, landmarks=model(images).landmarks)
    torch.testing.assert_close(same.logits, model(images).logits)


def test_landmarks_learn_from_landmarks_only() -> None:
    model = small_model("sacl").train()
    model(small_images()).logits.sum().backward()
    assert all(p.grad is None for p in model.relations.landmarks.parameters())


def test_each_option_changes_something() -> None:
    images, landmarks = small_images(), face(3)
    # Training mode, so that the graph network's branches are of the size of its input.
    torch.manual_seed(5)
    plain = small_model("sacl", depths=(2, 2)).train()(images, landmarks).logits
    for option in (
        {"metric": "cosine"},
        {"k": 2},
        {"conv": "edge"},
        {"roi_fraction": 0.4},
        {"fusion": "cross_attention"},
        {"correlation": "transformer"},
        {"scales": 2},
    ):
        torch.manual_seed(5)
        model = small_model("sacl", **{"depths": (2, 2), **option}).train()
        other = model(images, landmarks).logits
        assert not torch.allclose(plain, other), option


def test_the_graph_follows_the_features_unless_it_is_fixed(tmp_path: Any) -> None:
    ring = torch.eye(8, dtype=torch.bool).roll(1, dims=1)
    options: dict[str, Any] = {"depths": (2, 2), "aus": [1, 2, 4, 12]}
    alone = torch.arange(8).view(1, 8, 1).expand(3, 8, 1)
    found = {}
    for name, graph in {"knn": "knn", "self": "self", "ring": ring}.items():
        model = small_model("sacl", graph=graph, **options)
        evaluate_after_one_step(model)
        images, landmarks = small_images(), face(3)
        out = model(images, landmarks, return_graph=True)
        found[name] = [item.neighbors for item in out.graphs]
        save_model(model, tmp_path / name)
        loaded = load_model(tmp_path / name)
        torch.testing.assert_close(loaded(images, landmarks).logits, out.logits)
    assert [len(neighbors) for neighbors in found.values()] == [4, 4, 4]
    assert all(neighbors.shape == (3, 8, 4) for neighbors in found["knn"])
    assert len({tuple(neighbors.flatten().tolist()) for neighbors in found["knn"]}) > 1
    assert all(torch.equal(neighbors, alone) for neighbors in found["self"])
    assert all(torch.equal(neighbors, (alone + 1) % 8) for neighbors in found["ring"])


def test_k_defaults_to_all_regions_of_a_small_set() -> None:
    assert create_model("sacl", aus=[1, 12], backbone="rest_tiny").config.k == 4
    assert create_model("sacl", aus="BP4D", backbone="rest_tiny").config.k == 9


def test_aus_without_a_center_rule() -> None:
    with pytest.raises(
        ValueError, match=r"(?s)center rule .* got none for AU05, AU20.*extra_rules="
    ):
        create_model("sacl", aus=[1, 5, 20], backbone="rest_tiny")
    with pytest.raises(ValueError, match="aus must name the AUs for .* got 3 unnamed columns"):
        create_model("sacl", num_aus=3, backbone="rest_tiny")
    assert create_model("sacl", num_aus=3, backbone="rest_tiny", relations=False).config.k == 9


def test_own_center_rules(tmp_path: Any) -> None:
    rules = {5: AUCenter((20, 27)), 20: AUCenter((31, 37), 0.25)}
    model = create_model(
        "sacl", aus=[1, 5, 20], backbone="rest_tiny", image_size=64, extra_rules=rules
    )
    assert model.relations.num_nodes == 6
    save_model(model, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth")
    assert loaded.config == model.config
    images = small_images()
    torch.testing.assert_close(loaded(images).logits, model.eval()(images).logits)


def test_images_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"images must have shape .*S=64.*got \(2, 3, 96, 96\)"):
        small_model("sacl")(torch.randn(2, 3, 96, 96))


@pytest.mark.parametrize("backbone", ["resnet18", "rest_tiny"])
def test_backbones(backbone: str) -> None:
    model = small_model("sacl", backbone=backbone)
    assert model(small_images(2)).probs.shape == (2, 5)
    cells = model.relations.landmarks.map_size
    assert cells == (16, 16)

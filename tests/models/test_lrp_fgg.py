"""LRP + FGG: its equations, its ablations, its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_images, small_model
from torch import Tensor, nn

from aurel.backbones.build import build_backbone
from aurel.models.checkpoint import load_model, save_model
from aurel.models.lrp_fgg import LRPFGGConfig, LRPFGGHead, NodeClassifier
from aurel.models.registry import create_model

PERCEPTION, FACE = {"perception"}, {"face_classifier"}
GRAPH = {"features", "relation", "classifier"}
ATTENTION = {"fusion", "face_token", *FACE}
# Rows of the paper's table 2: options, then parts of the head. Two rows differ in loss and weights.
ROWS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "baseline": ({"perception": False, "graph": False, "fusion": "none"}, FACE),
    "+ARL": ({"perception": False, "fusion": "none"}, GRAPH),
    "+LRP": ({"fusion": "none"}, PERCEPTION | GRAPH),
    "all": ({}, PERCEPTION | GRAPH | ATTENTION),
    "all, fixed weight": ({"fusion": "fixed"}, PERCEPTION | GRAPH | FACE),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("aus", ["DISFA", "Aff-Wild2"])
def test_parameter_count(aus: str) -> None:
    with torch.device("meta"):
        model = create_model("lrp_fgg", aus=aus)
    n, c = len(model.aus), 512
    body = 52_308_544 + 1_024
    perception = 4 * (c * 32 + 32 + 32 + 1)
    graph = n * (c**2 + 3 * c) + 2 * (c**2 + c) + 2 * n + n * (c + 1)
    block = 4 * (c**2 + c) + 2 * (4 * c**2) + 5 * c + 4 * c
    fusion = c + 2 * block + 2 * c + c + 1
    face = c**2 + c + n * (c + 1)
    assert count(model) == body + perception + graph + fusion + face


def test_the_papers_values() -> None:
    config = create_model("lrp_fgg", aus="Aff-Wild2", backbone="rest_tiny").config
    assert LRPFGGConfig().backbone == "iresnet100"
    assert (config.fusion, config.fusion_depth) == ("attention", 2)
    assert config.perception and config.graph and config.k == 4
    assert small_model("lrp_fgg", aus=[1, 2]).config.k == 2


def test_the_model_is_its_equations() -> None:
    model = small_model("lrp_fgg", k=2)
    evaluate_after_one_step(model)
    images = small_images()
    head, features = model.head, model.backbone(images)[-1]
    weighted = features * head.perception.attention(features)
    nodes = head.relation(head.features(weighted.flatten(2).mT).mean(2))
    of_nodes = torch.stack(
        [nodes[:, n] @ head.classifier.weight[n] + head.classifier.bias[n] for n in range(5)], dim=1
    )
    face = features.mean((2, 3))
    of_face = head.face_classifier(face)
    weight = head.fusion.node_weight(nodes, head.face_token(face))
    out = model(images)
    torch.testing.assert_close(out.logits, weight * of_nodes + (1 - weight) * of_face)
    torch.testing.assert_close(out.probs, out.logits.sigmoid())
    assert weight.shape == (3, 1) and weight.std() > 0


def test_fixed_fusion_has_the_same_weight_for_all() -> None:
    head = LRPFGGHead(16, 3, LRPFGGConfig(k=2, fusion="fixed", fusion_weight=0.8)).eval()
    features = torch.randn(2, 16, 4, 4)
    nodes = head.relation(head.features(head.perception(features).flatten(2).mT).mean(2))
    expected = 0.8 * head.classifier(nodes) + 0.2 * head.face_classifier(features.mean((2, 3)))
    torch.testing.assert_close(head(features)[0], expected)


def test_node_classifier_has_a_map_for_each_node() -> None:
    layer = NodeClassifier(4, 3).double()
    nodes = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.einsum("bnc,nc->bn", nodes, layer.weight) + layer.bias
    torch.testing.assert_close(layer(nodes), expected)
    assert torch.autograd.gradcheck(layer, nodes)
    assert layer.weight.abs().max() <= 0.5


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablation_learns(row: str) -> None:
    options, parts = ROWS[row]
    model = small_model("lrp_fgg", **options).train()
    out = model(small_images(), return_graph=True)
    assert (out.graphs is None) == ("relation" not in parts)
    (out.logits * torch.randn_like(out.logits)).sum().backward()
    learned = {name.split(".")[1] for name, _ in model.named_parameters() if "head." in name}
    assert learned == parts
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_each_option_changes_something() -> None:
    images = small_images()
    outputs = []
    for options in (
        {},
        {"k": 1},
        {"metric": "l1"},
        {"channels": 64},
        {"perception": False},
        {"networks": 2},
        {"reduction": 8},
        {"fusion": "fixed"},
        {"fusion": "fixed", "fusion_weight": 0.25},
        {"fusion": "none"},
        {"fusion": "none", "graph": False},
        {"fusion_depth": 2},
        {"fusion_heads": 4},
    ):
        torch.manual_seed(5)
        outputs.append(small_model("lrp_fgg", **{"k": 2, **options}).train()(images).logits)
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert not torch.allclose(one, other)


def test_ties_reach_the_graph() -> None:
    images = small_images(1)
    out = small_model("lrp_fgg", ties="all").eval()(images, return_graph=True)
    assert out.graphs[0].weights is not None and out.graphs[0].neighbors is None


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    model = small_model("lrp_fgg")
    evaluate_after_one_step(model)
    images = torch.randn(2, 3, *size)
    assert model(images).probs.shape == (2, 5)
    assert not torch.allclose(model(images).probs, model(images.transpose(2, 3)).probs)


def narrow_iresnet(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the model's iresnet100 by a narrow and shallow one, and return its options."""
    small = {"dims": (4, 8, 12, 16), "depths": (1, 1, 1, 1)}

    def build(*args: Any, **options: Any) -> Any:
        return build_backbone(*args, **options, **small)

    monkeypatch.setattr("aurel.models.lrp_fgg.build_backbone", build)
    monkeypatch.setattr("aurel.models.base.build_backbone", build)
    return small


def test_images_are_normalized_with_the_statistics_of_iresnet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow_iresnet(monkeypatch)
    model = create_model("lrp_fgg", aus="Aff-Wild2").eval()
    seen: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = torch.rand(2, 3, 112, 112)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    model((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(seen[0], (pixels - 0.5) / 0.5)


def test_the_published_weights_of_the_backbone_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import timm

    from aurel.training.start import load_backbone_weights

    published = timm.create_model("iresnet100", **narrow_iresnet(monkeypatch))
    torch.save(published.state_dict(), tmp_path / "backbone.pth")
    model = create_model("lrp_fgg", aus="Aff-Wild2")
    load_backbone_weights(model, tmp_path / "backbone.pth")
    for name, tensor in model.backbone.net.state_dict().items():
        assert torch.equal(tensor, published.state_dict()[name]), name
    with pytest.raises(RuntimeError, match="No pretrained weights exist for iresnet100"):
        create_model("lrp_fgg", aus="Aff-Wild2", pretrained=True)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = small_model("lrp_fgg", fusion="fixed", fusion_weight=0.7)
    evaluate_after_one_step(model)
    save_model(model, tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert loaded.config == model.config and loaded.aus == model.aus
    images = small_images()
    assert torch.equal(loaded(images).probs, model(images).probs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, "fusion must be one of attention, fixed, none, got 'sum'"),
        ({"graph": False}, "fusion must be none where graph is false,.*got 'attention'"),
        ({"fusion": "fixed", "fusion_weight": -1}, r"weight must be in 0..1, got -1"),
        ({"fusion_heads": 3}, "heads must divide the 128 channels, got 3"),
        ({"networks": 0}, "networks must be at least 1"),
        ({"k": 6}, r"k must be in 1..5"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("lrp_fgg", **options)

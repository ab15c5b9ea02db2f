"""MDHR: the rows of its ablations, its edges, its regions and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.small_models import evaluate_after_one_step, small_input, small_model

from aurel.facs import AUSet, RegionGroup, region_plan
from aurel.models.checkpoint import load_model, save_model
from aurel.models.mdhr import _swin_maps
from aurel.models.registry import create_model

# Options of the rows of the paper's tables, and the modules that a row has.
TEMPORAL = {"temporal": False}
NO_REGIONS: dict[str, Any] = {"regional": False, "auxiliary": False, "edges": None, **TEMPORAL}
AFE: dict[str, Any] = {"auxiliary": False, "edges": None, **TEMPORAL}
TABLE_3: dict[str, tuple[dict[str, Any], set[str]]] = {
    "backbone": ({"scales": (), **NO_REGIONS}, set()),
    "MFD": (NO_REGIONS, {"dynamics"}),
    "AFE": ({"scales": (), **AFE}, {"features"}),
    "AFE, Aux": ({"scales": (), "edges": None, **TEMPORAL}, {"features", "heads"}),
    "AFE, Aux, CRM": ({"scales": (), **TEMPORAL}, {"features", "heads", "relation"}),
    "MFD, AFE": (AFE, {"dynamics", "features"}),
    "MFD, AFE, Aux": ({"edges": None, **TEMPORAL}, {"dynamics", "features", "heads"}),
    "no TCN": (TEMPORAL, {"dynamics", "features", "heads", "relation"}),
    "all": ({}, {"dynamics", "features", "heads", "relation", "temporal"}),
}
TABLE_4: dict[str, tuple[dict[str, Any], set[str]]] = {
    f"{fusion} {scales}": (
        {"scales": scales, "fusion": fusion, **AFE},
        {"dynamics", "features"},
    )
    for scales, fusion in (
        ((1,), "adaptive"),
        ((4,), "adaptive"),
        ((1, 2), "adaptive"),
        ((1, 2, 3), "adaptive"),
        ((1, 2, 3, 4), "sum"),
        ((1, 2, 3, 4), "cat"),
    )
}
STRATEGIES = ("same_region", "cross_region", "fully_connected", "active_cross_region")
TABLE_5: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no Aux": (
        {"scales": (), "auxiliary": False, "edges": "fully_connected", **TEMPORAL},
        {"features", "relation"},
    ),
    **{
        edges: ({"scales": (), "edges": edges, **TEMPORAL}, {"features", "heads", "relation"})
        for edges in STRATEGIES
    },
}
ROWS = {**TABLE_3, **TABLE_4, **TABLE_5}


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_tables(row: str) -> None:
    options, expected = ROWS[row]
    model = small_model("mdhr", aus="BP4D", channels=16, **options).train()
    out = model(small_input("mdhr", 2), return_graph=True)
    assert out.probs.shape == (2, 3, 12) and out.probs.std() > 0
    assert (out.region_logits is not None) == ("heads" in expected)
    assert (out.graphs is not None) == ("relation" in expected)
    names = [name for name, _ in model.named_parameters()]
    for part in ("dynamics", "features", "relation", "temporal"):
        assert any(name.startswith(f"{part}.") for name in names) == (part in expected)
    loss = (out.probs * torch.randn_like(out.probs)).sum()
    loss = loss + sum(group.square().sum() for group in out.region_logits or ())
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def decided(model: Any, labels: dict[str, int]) -> Any:
    """Set the region heads so that they always choose these combinations."""
    for head, name in zip(model.features.heads, model.features.plan.names, strict=True):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        head.bias.data[labels[name]] = 1.0
    return model


@pytest.mark.parametrize("training", [False, True])
def test_edges_depend_on_the_region_heads(training: bool) -> None:
    model = small_model("mdhr", aus="BP4D").train(training)
    # Present: AU04 and AU07; AU06; AU14; none of the last.
    labels = {"upper": 0b0011, "middle": 1, "lower1": 0b010, "lower2": 0}
    out = decided(model, labels)(small_input("mdhr", 2), return_graph=True)
    names, group = model.aus.names, model.features.plan.group_of
    active = {"AU04", "AU07", "AU06", "AU14"}
    weights = out.graphs[0].adjacency()
    assert weights.shape == (6, 12, 12)
    for n, m in ((n, m) for n in range(12) for m in range(12)):
        is_edge = n == m or (names[m] in active and group[n] != group[m])
        assert bool((weights[:, n, m] > 0).all()) == is_edge
        assert bool((weights[:, n, m] == 0).all()) != is_edge


def test_probabilities_do_not_train_the_region_heads() -> None:
    model = small_model("mdhr").train()
    model(small_input("mdhr", 2)).probs.sum().backward()
    assert all(parameter.grad is None for parameter in model.features.heads.parameters())


@pytest.mark.parametrize(
    ("options", "context"),
    [({}, 3), ({"temporal": False}, 1), ({"scales": ()}, 2), ({"padding": "repeat"}, 3)],
)
def test_a_frame_depends_on_its_context_only(options: dict[str, Any], context: int) -> None:
    model = small_model("mdhr", num_adjacent=1, channels=16, **options)
    assert model.context == context
    evaluate_after_one_step(model)
    clips = torch.randn(1, 9, 3, 32, 32)
    changed = clips.clone()
    changed[0, 4] += 1.0
    with torch.no_grad():
        difference = (model(clips).probs - model(changed).probs).abs().amax((0, 2))
    near = torch.arange(9).sub(4).abs() <= context
    assert (difference[near] > 1e-5).all() and (difference[~near] < 1e-5).all()


def test_padding_reaches_the_dynamics() -> None:
    outputs = []
    for padding in ("zeros", "repeat"):
        torch.manual_seed(3)
        model = small_model("mdhr", padding=padding, channels=16)
        outputs.append(model.eval()(torch.ones(1, 2, 3, 32, 32)).probs)
    assert not torch.allclose(*outputs)


def test_a_single_frame_is_a_clip() -> None:
    model = small_model("mdhr").eval()
    assert model(torch.randn(2, 1, 3, 64, 64)).probs.shape == (2, 1, 5)


def test_own_groups(tmp_path: Path) -> None:
    table = (RegionGroup("eyes", "upper", (1, 2, 4)), RegionGroup("mouth", "lower", (12, 15)))
    model = small_model("mdhr", groups=table)
    assert model.features.plan == region_plan(model.aus, table)
    assert not model.features.group_projections
    save_model(model, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth")
    assert loaded.config == model.config and loaded.features.plan == model.features.plan
    assert small_model("mdhr", group_projections=True).features.group_projections


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [["eyes", "upper", [1, 2, 4]], ["mouth", "lower", [12]]],
            r"AU15 0 times: add a group .*, such as \('mouth', 'lower', \(15",
        ),
        (
            [["eyes", "upper", [1, 2, 4]], ["mouth", "lower", [12, 15, 1]]],
            "each AU once, got AU01 2 times",
        ),
        (
            [["eyes", "upper", [1, 2, 4, 12]], ["mouth", "chin", [15]]],
            "region must be one of upper, middle, lower, got 'chin' in group 'mouth'",
        ),
        (
            [["eyes", "upper", [1, 2, 4, 12, 15]], ["mouth", "lower", []]],
            "must hold at least one AU, got none in group 'mouth'",
        ),
        ([["eyes", "upper"]], r"\(name, region, AU numbers\) each, got \('eyes', 'upper'\)"),
        (
            [["eyes", "upper", [1, 2, 4, 12, 15]], ["nose", "middle", [9]]],
            "table must name AUs of the AU set custom, got AU09",
        ),
    ],
)
def test_groups_that_leave_an_au_without_a_region(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("mdhr", groups=groups)


def test_any_set_of_aus_has_regions() -> None:
    aus = ["AU12L", "AU12R", 5, 20, 26, 27, 28, 43, 45, 9]
    model = small_model("mdhr", aus=aus)
    plan = model.region_plan
    assert max(plan.num_classes) <= 16 and set(plan.regions) == {"upper", "middle", "lower"}
    assert sorted(c for columns in plan.columns for c in columns) == list(range(len(aus)))
    assert [group.shape[-1] for group in model(small_input("mdhr", 2)).region_logits] == list(
        plan.num_classes
    )
    assert small_model("mdhr", **NO_REGIONS).region_plan is None
    assert small_model("mdhr", auxiliary=False, edges=None).region_plan is None
    with pytest.raises(ValueError, match="number must be a facial AU of FACS .* got 40"):
        small_model("mdhr", aus=[1, 40])


def test_aus_without_names() -> None:
    with pytest.raises(ValueError, match="region_plan"):
        create_model("mdhr", num_aus=3, backbone="rest_tiny")
    model = create_model("mdhr", num_aus=3, backbone="rest_tiny", **NO_REGIONS)
    assert model(small_input("mdhr", 2)).probs.shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (2, 1)}, r"scales must be ascending, of 1..4, got \(2, 1\)"),
        ({"scales": (0, 1)}, r"scales must be ascending, of 1..4, got \(0, 1\)"),
        ({"regional": False}, "auxiliary must be False and edges None where regional is False"),
        ({"auxiliary": False}, "auxiliary must be True for edges='active_cross_region'"),
        ({"fusion": "max"}, "fusion must be one of"),
        ({"padding": "same"}, "padding must be one of"),
        ({"edges": "all"}, "edges must be one of"),
    ],
)
def test_options_that_exclude_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model("mdhr", **options)


def test_inputs_that_are_no_clips() -> None:
    model = small_model("mdhr")
    with pytest.raises(ValueError, match=r"clips must have shape \(B, T, C=3, H, W\), got \(2, 3"):
        model(torch.randn(2, 3, 64, 64))
    with pytest.raises(ValueError, match=r"maps\[0\] must have shape"):
        model.eval()(torch.randn(1, 2, 3, 72, 72))


def test_swin_gives_the_inputs_of_its_stages() -> None:
    net = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=64,
        window_size=2,
        embed_dim=8,
        depths=(1, 1, 2, 1),
        num_heads=(1, 1, 2, 2),
        num_classes=0,
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        *entering, last = _swin_maps(net, images)
        leaving = net.forward_intermediates(images, norm=True, intermediates_only=True)
        expected = [net.patch_embed(images)]
        for stage, out in zip(net.layers[1:], leaving, strict=False):
            expected.append(stage.downsample(out.permute(0, 2, 3, 1)))
    for found, feature_map in zip(entering, expected, strict=True):
        torch.testing.assert_close(found, feature_map.permute(0, 3, 1, 2))
    torch.testing.assert_close(last, leaving[-1])
    assert [tuple(x.shape[1:]) for x in entering] == [
        (8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2),
    ]  # fmt: skip


def test_swin_runs() -> None:
    model = create_model("mdhr", aus="DISFA", backbone="swin_tiny_patch4_window7_224", channels=16)
    with torch.no_grad():
        out = model.eval()(torch.randn(1, 2, 3, 224, 224))
    assert out.probs.shape == (1, 2, 8)
    assert model.dynamics.in_channels == (96, 192, 384, 768)


def test_columns_are_those_of_the_au_set() -> None:
    model = small_model("mdhr", aus=["AU12L", "AU12R", 4])
    assert model.aus == AUSet.of(["L12", "R12", 4])
    out = model(small_input("mdhr", 2))
    assert out.aus.names == ("AU12L", "AU12R", "AU04") and out.probs.shape == (2, 3, 3)

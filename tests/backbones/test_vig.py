"""Vision GNN: the authors' key trees, the paper's sizes, whole networks, timm's interface."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.backbones.build import build_backbone
from aurel.backbones.tapped import Blocks
from aurel.backbones.vig import VisionGNN

NAMES = [f"vig_{size}_224_gelu" for size in ("ti", "s", "b")]
NAMES += [f"pvig_{size}_224_gelu" for size in ("ti", "s", "m", "b")]
TAPS = {"vig_ti_224_gelu": 12, "pvig_ti_224_gelu": 4}
SMALL: dict[str, Any] = {
    "img_size": 32,
    "dims": (8, 12, 16),
    "depths": (1, 2, 1),
    "reductions": (2, 1, 1),
    "halvings": 2,
    "neighbors": (2, 3),
    "relative": True,
}


def small(**options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model("pvig_ti_224_gelu", **{**SMALL, "num_classes": 5, **options}).eval()


def randomized(model: nn.Module) -> nn.Module:
    """Positions that are not zero, statistics that are not those of a fresh norm."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "1.weight")) and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias", "pos_embed")):
            tensor.normal_(std=0.3)
    return model


def plain(
    state: dict[str, Tensor], images: Tensor, blocks: Sequence[tuple[int, int, int]]
) -> Tensor:
    """Return logits by the paper's equations, for k, dilation and reduction of each block."""

    def conv(x: Tensor, name: str, **options: Any) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def unit(nodes: Tensor) -> Tensor:
        return nodes / nodes.norm(dim=1, keepdim=True)

    def graph(x: Tensor, name: str, k: int, dilation: int, reduction: int) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, (x.shape[2] // reduction, x.shape[3] // reduction))
        nodes, sources = x.flatten(2), pooled.flatten(2)
        distances = 2 - 2 * unit(nodes).mT @ unit(sources)
        distances = distances + state.get(f"{name}.relative_pos", 0.0)
        nearest = distances.argsort(2)[..., : k * dilation : dilation]
        around = torch.stack([s[:, n] for s, n in zip(sources, nearest, strict=True)])
        relative = (around - nodes[..., None]).amax(3)
        pairs = torch.stack((nodes, relative), dim=2).flatten(1, 2).unflatten(2, x.shape[2:])
        gconv = f"{name}.graph_conv.gconv.nn"
        return F.gelu(norm(conv(pairs, f"{gconv}.0", groups=4), f"{gconv}.1"))

    x, layer = images, 0
    while f"stem.convs.{layer}.weight" in state:
        last = f"stem.convs.{layer + 3}.weight" not in state
        x = conv(x, f"stem.convs.{layer}", stride=1 if last else 2, padding=1)
        x = norm(x, f"stem.convs.{layer + 1}")
        x = x if last else F.gelu(x)
        layer += 3
    x = x + state["pos_embed"]
    index = 0
    for k, dilation, reduction in blocks:
        if f"backbone.{index}.conv.0.weight" in state:
            x = conv(x, f"backbone.{index}.conv.0", stride=2, padding=1)
            x = norm(x, f"backbone.{index}.conv.1")
            index += 1
        name = f"backbone.{index}"
        hidden = norm(conv(x, f"{name}.0.fc1.0"), f"{name}.0.fc1.1")
        hidden = graph(hidden, f"{name}.0", k, dilation, reduction)
        x = x + norm(conv(hidden, f"{name}.0.fc2.0"), f"{name}.0.fc2.1")
        hidden = F.gelu(norm(conv(x, f"{name}.1.fc1.0"), f"{name}.1.fc1.1"))
        x = x + norm(conv(hidden, f"{name}.1.fc2.0"), f"{name}.1.fc2.1")
        index += 1
    hidden = F.gelu(norm(conv(x.mean((2, 3), True), "prediction.0"), "prediction.1"))
    return conv(hidden, "prediction.4").flatten(1)


ISOTROPIC = list(
    zip(
        (9, 9, 10, 11, 12, 13, 13, 14, 15, 16, 17, 18),
        [1] * 4 + [2] * 4 + [3] * 4,
        [1] * 12,
        strict=True,
    )
)
PYRAMID = [(9, 1, 4)] * 2 + [(9, 1, 2)] * 2 + [(9, 2, 1)] * 4 + [(9, 3, 1)] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks"), [("vig_ti_224_gelu", ISOTROPIC), ("pvig_ti_224_gelu", PYRAMID)]
)
def test_whole_networks(name: str, blocks: Any) -> None:
    model = randomized(timm.create_model(name, num_classes=7).double()).eval()
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(model.state_dict(), images, blocks)
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


def test_small_network() -> None:
    model = randomized(small().double())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    blocks = [(2, 1, 2), (2, 1, 1), (2, 1, 1), (3, 1, 1)]
    expected = plain(model.state_dict(), images, blocks)
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["vig_ti_224_gelu", "pvig_ti_224_gelu"])
def test_key_tree(name: str, released: Callable[[str], dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert shapes == released(name)


# In millions. The paper's counts include relative positions for M and B alone.
@pytest.mark.parametrize(
    ("name", "parameters", "positions"),
    [
        ("vig_ti_224_gelu", 7.2, 0),
        ("vig_s_224_gelu", 22.7, 0),
        ("vig_b_224_gelu", 86.8, 0),
        ("pvig_ti_224_gelu", 10.7, 0),
        ("pvig_s_224_gelu", 27.3, 0),
        ("pvig_m_224_gelu", 51.7, 1),
        ("pvig_b_224_gelu", 95.2, 1),
    ],
)
def test_sizes_of_the_paper(name: str, parameters: float, positions: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    count = sum(parameter.numel() for parameter in model.parameters())
    fixed = sum(t.numel() for key, t in model.named_buffers() if key.endswith("relative_pos"))
    assert round((count + positions * fixed) / 1e6, 1) == parameters


@pytest.mark.parametrize("name", NAMES)
def test_neighbors_and_dilation(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, drop_path_rate=0.1)
    blocks = [block for block in model.backbone if isinstance(block, Blocks)]
    count = len(blocks)
    last = 9 if name.startswith("p") else 18
    most = 5 if name.startswith("p") else 10
    convs = [grapher.graph_conv for grapher, _ in blocks]
    assert [conv.k for conv in convs] == [int(k) for k in torch.linspace(9, last, count)]
    assert [conv.dilation for conv in convs] == [min(i // 4 + 1, most) for i in range(count)]
    rates = [[part.drop_path for part in block] for block in blocks]
    np.testing.assert_allclose(np.transpose(rates), [np.linspace(0, 0.1, count)] * 2, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", TAPS)
def test_backbone_maps(name: str) -> None:
    backbone = build_backbone(name, img_size=96, neighbors=(4, 4)).eval()
    assert len(backbone.channels) == TAPS[name]
    assert backbone.data_config["mean"] == (0.5, 0.5, 0.5)
    maps = backbone(torch.randn(1, 3, 96, 96))
    assert [tuple(level.shape) for level in maps] == [
        (1, width, 96 // reduction, 96 // reduction)
        for width, reduction in zip(backbone.channels, backbone.reductions, strict=True)
    ]


def test_maps_follow_the_stages() -> None:
    model = small().double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    final, maps = model.forward_intermediates(images)
    assert [tuple(level.shape[1:]) for level in maps] == [(8, 8, 8), (12, 4, 4), (16, 2, 2)]
    x = model.stem(images) + model.pos_embed
    x = model.backbone[0](x)
    torch.testing.assert_close(maps[0], x)
    torch.testing.assert_close(maps[1], model.backbone[1:4](x))
    torch.testing.assert_close(maps[2], final)
    torch.testing.assert_close(final, model.forward_features(images))


@pytest.mark.parametrize("taps", [[0], [0, 1], [2]])
def test_every_parameter_serves_the_maps(taps: list[int]) -> None:
    images = torch.randn(3, 3, 32, 32)
    every = small().forward_intermediates(images, intermediates_only=True)
    torch.manual_seed(0)
    backbone = build_backbone("pvig_ti_224_gelu", out_indices=taps, **SMALL)
    backbone.net.load_state_dict(small().state_dict(), strict=False)
    maps = backbone.eval()(images)
    torch.testing.assert_close(maps, [every[tap] for tap in taps])
    sum(level.square().sum() for level in backbone.train()(images)).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []
    assert backbone.channels == [(8, 12, 16)[tap] for tap in taps]


def test_features_only_equals_the_plain_model() -> None:
    model = randomized(small())
    wrapped = timm.create_model(
        "pvig_ti_224_gelu",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": model.state_dict()},
        features_only=True,
        out_indices=(0, 1, 2),
        **SMALL,
    ).eval()
    assert wrapped.feature_info.channels() == [8, 12, 16]
    assert wrapped.feature_info.reduction() == [4, 8, 16]
    images = torch.randn(1, 3, 32, 32)
    maps = model.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(wrapped(images), maps)


@pytest.mark.parametrize("name", TAPS)
def test_features_only_by_default(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True)
    pyramid = name.startswith("p")
    assert model.feature_info.reduction() == ([4, 8, 16, 32] if pyramid else [16])


def test_checkpoint_with_and_without_classifier(tmp_path: Any) -> None:
    trained = randomized(small(num_classes=1000))
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "weights.pth")
    images = torch.randn(2, 3, 32, 32)
    backbone = build_backbone(
        "pvig_ti_224_gelu", checkpoint=tmp_path / "weights.pth", out_indices=(-1,), **SMALL
    ).eval()
    torch.testing.assert_close(backbone(images)[0], trained.forward_features(images))
    overlay = {"file": str(tmp_path / "weights.pth")}
    same = timm.create_model(
        "pvig_ti_224_gelu", pretrained=True, pretrained_cfg_overlay=overlay, **SMALL
    ).eval()
    torch.testing.assert_close(same(images), trained(images))
    other = timm.create_model(
        "pvig_ti_224_gelu",
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        num_classes=3,
        **SMALL,
    ).eval()
    torch.testing.assert_close(other.prediction[0].weight, trained.prediction[0].weight)
    assert other(images).shape == (2, 3)


def test_classifier() -> None:
    model = small().double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    final = model.forward_features(images)
    pooled = final.mean((2, 3))
    torch.testing.assert_close(model.forward_head(final, pre_logits=True), pooled)
    assert model(images).shape == (2, 5) and model.get_classifier() is model.prediction
    model.reset_classifier(12)
    assert model.double().eval()(images).shape == (2, 12) and model.num_classes == 12
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), pooled)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(images), final)
    model = small(drop_rate=0.3)
    assert model.prediction[3].p == 0.3


def test_images_of_other_sizes() -> None:
    model = randomized(small().double())
    images = torch.randn(1, 3, 50, 36, dtype=torch.float64)
    x = model.stem(images)
    assert x.shape[2:] == (13, 9)
    positions = F.interpolate(model.pos_embed, (13, 9), mode="bicubic")
    torch.testing.assert_close(model._embed(images), x + positions)
    assert model(images).isfinite().all()
    with pytest.raises(ValueError, match=r"k must be in 1\.\.1"):
        model(torch.zeros(1, 3, 16, 16, dtype=torch.float64))


def test_recomputing_activations_changes_no_gradient() -> None:
    images = torch.randn(2, 3, 32, 32)
    model = build_backbone("pvig_ti_224_gelu", **SMALL).train()
    other = copy.deepcopy(model)
    other.set_grad_checkpointing()
    for each in (model, other):
        sum(level.square().sum() for level in each(images)).backward()
    for actual, expected in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)
    torch.testing.assert_close(dict(other.named_buffers()), dict(model.named_buffers()))


def test_initial_parameters() -> None:
    model = timm.create_model("pvig_ti_224_gelu", num_classes=9)
    assert not model.pos_embed.any()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            expected = (2 / fan) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1), name
            assert not module.bias.any(), name


@pytest.mark.parametrize(("coarse", "groups"), [(False, 12), (True, 8)])
def test_groups_follow_depth(coarse: bool, groups: int) -> None:
    from timm.models import group_parameters

    model = small()
    matched = group_parameters(model, model.group_matcher(coarse), reverse=True)
    assert set(matched) == {name for name, _ in model.named_parameters()}
    order = ["stem.convs.0", "backbone.0.0.fc1.0", "backbone.1.conv.0", "backbone.2.0.fc1.0"]
    order += ["backbone.3.1.fc2.0", "backbone.5.0.fc1.0", "prediction.4"]
    layers = [matched[f"{name}.weight"] for name in order]
    assert layers == sorted(set(layers))
    assert len(set(matched.values())) == groups


def test_registry() -> None:
    assert set(NAMES) <= set(timm.list_models("*vig_*_224_gelu"))
    assert not timm.list_pretrained("*vig_*_224_gelu")
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("vig_ti_224_gelu", pretrained=True, **SMALL)


def test_compiles_and_exports() -> None:
    model = small()
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), model(images))
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    again = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(program.module()(again), model(again))


def test_samples_do_not_meet() -> None:
    model = small()
    images = torch.randn(3, 3, 32, 32)
    clean = model(images)
    images[1] = torch.nan
    out = model(images)
    torch.testing.assert_close(out[[0, 2]], clean[[0, 2]])
    assert out[1].isnan().all()


def test_stages_must_agree() -> None:
    with pytest.raises(ValueError, match="must have one entry a stage, got 2, 1 and 1"):
        VisionGNN(dims=(8, 12), depths=(1,))

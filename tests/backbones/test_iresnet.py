"""IResNet-100: the published key tree, counts and blocks, and timm's interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.key_tree import expand
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from aurel.backbones.build import build_backbone
from aurel.backbones.iresnet import Block, IResNet
from aurel.backbones.renormalize import Renormalize

# The published checkpoint; PR are the slopes of a PReLU.
KEY_TREE = """
conv1                             C(64,3,3,3)
bn1                               BN(64)
prelu                             PR(64)
layer1.0.bn1                      BN(64)
layer1.0.conv1                    C(64,64,3,3)
layer1.0.downsample.0             C(64,64,1,1)
layer1.0.downsample.1             BN(64)
layer1.{1..2}.bn1                 BN(64)
layer1.{1..2}.conv1               C(64,64,3,3)
layer1.{0..2}.{bn2,bn3}           BN(64)
layer1.{0..2}.prelu               PR(64)
layer1.{0..2}.conv2               C(64,64,3,3)
layer2.0.bn1                      BN(64)
layer2.0.conv1                    C(128,64,3,3)
layer2.0.downsample.0             C(128,64,1,1)
layer2.0.downsample.1             BN(128)
layer2.{1..12}.bn1                BN(128)
layer2.{1..12}.conv1              C(128,128,3,3)
layer2.{0..12}.{bn2,bn3}          BN(128)
layer2.{0..12}.prelu              PR(128)
layer2.{0..12}.conv2              C(128,128,3,3)
layer3.0.bn1                      BN(128)
layer3.0.conv1                    C(256,128,3,3)
layer3.0.downsample.0             C(256,128,1,1)
layer3.0.downsample.1             BN(256)
layer3.{1..29}.bn1                BN(256)
layer3.{1..29}.conv1              C(256,256,3,3)
layer3.{0..29}.{bn2,bn3}          BN(256)
layer3.{0..29}.prelu              PR(256)
layer3.{0..29}.conv2              C(256,256,3,3)
layer4.0.bn1                      BN(256)
layer4.0.conv1                    C(512,256,3,3)
layer4.0.downsample.0             C(512,256,1,1)
layer4.0.downsample.1             BN(512)
layer4.{1..2}.bn1                 BN(512)
layer4.{1..2}.conv1               C(512,512,3,3)
layer4.{0..2}.{bn2,bn3}           BN(512)
layer4.{0..2}.prelu               PR(512)
layer4.{0..2}.conv2               C(512,512,3,3)
bn2                               BN(512)
fc                                Lb(512,25088)
features                          BN(512)
"""
SMALL = {"dims": (4, 8, 12, 16), "depths": (1, 2, 1, 1)}
TAPS = ["prelu", "layer1", "layer2", "layer3", "layer4", "bn2"]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def shapes() -> IResNet:
    """The published model, as shapes without numbers."""
    with torch.device("meta"):
        return timm.create_model("iresnet100").eval()


@pytest.fixture
def small() -> IResNet:
    """A narrow, shallow one with running statistics that are not the initial ones."""
    model = timm.create_model("iresnet100", num_classes=5, **SMALL)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def test_key_tree(shapes: IResNet) -> None:
    actual = {name: tuple(tensor.shape) for name, tensor in shapes.state_dict().items()}
    assert actual == expand(KEY_TREE)
    assert len(actual) == 925


def test_parameter_counts(shapes: IResNet) -> None:
    assert parameters(shapes) == 65_156_160
    assert sum(p.numel() for p in shapes.parameters() if p.requires_grad) == 65_155_648
    counts = {
        "layer1": 226_752,
        "layer2": 3_780_096,
        "layer3": 35_181_312,
        "layer4": 13_118_464,
        "bn2": 1_024,
        "fc": 12_845_568,
        "features": 1_024,
    }
    assert {name: parameters(getattr(shapes, name)) for name in counts} == counts
    assert sum(buffer.numel() for buffer in shapes.buffers()) == 69_786


def test_multiply_adds(shapes: IResNet) -> None:
    with FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, 112, 112, device="meta"))
    assert round(counter.get_total_flops() / 2e6, 1) == 12089.6


def test_widths_and_strides_of_the_taps(shapes: IResNet) -> None:
    assert [info["module"] for info in shapes.feature_info] == TAPS
    assert [info["num_chs"] for info in shapes.feature_info] == [64, 64, 128, 256, 512, 512]
    assert [info["reduction"] for info in shapes.feature_info] == [1, 2, 4, 8, 16, 16]
    maps = shapes.forward_intermediates(
        torch.empty(1, 3, 112, 112, device="meta"), intermediates_only=True
    )
    assert [level.shape[-1] for level in maps] == [112, 56, 28, 14, 7, 7]


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (112, 112, [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7), (7, 7)]),
        (97, 75, [(97, 75), (49, 38), (25, 19), (13, 10), (7, 5), (7, 5)]),
        (1, 17, [(1, 17), (1, 9), (1, 5), (1, 3), (1, 2), (1, 2)]),
    ],
)
def test_map_sizes(small: IResNet, height: int, width: int, sizes: list[tuple[int, int]]) -> None:
    images = torch.randn(1, 3, height, width)
    maps = small.forward_intermediates(images, intermediates_only=True)
    assert [tuple(level.shape[-2:]) for level in maps] == sizes
    assert [level.shape[1] for level in maps] == [4, 4, 8, 12, 16, 16]
    torch.testing.assert_close(maps[-1], small.bn2(maps[-2]))


def normed(x: np.ndarray, norm: nn.BatchNorm2d) -> np.ndarray:
    w = {
        name: value.numpy()[:, None, None]
        for name, value in norm.state_dict().items()
        if value.ndim
    }
    scaled = (x - w["running_mean"]) / np.sqrt(w["running_var"] + 1e-5)
    return scaled * w["weight"] + w["bias"]


def convolved(x: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    weight, stride = conv.weight.detach().numpy(), conv.stride[0]
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    rows, columns = (range(0, size, stride) for size in x.shape[1:])
    size = weight.shape[-1]
    windows = [[padded[:, r : r + size, c : c + size] for c in columns] for r in rows]
    return np.einsum("rcijk,oijk->orc", np.array(windows), weight)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_meets_its_equation(stride: int) -> None:
    block = Block(4, 4 * stride, stride).double().eval().requires_grad_(False)
    for name, tensor in block.state_dict().items():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5 if "var" in name else -1.0, 2.0)
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    image = x[0].numpy()
    out = normed(convolved(normed(image, block.bn1), block.conv1), block.bn2)
    slopes = block.prelu.weight.numpy()[:, None, None]
    out = normed(convolved(np.where(out > 0, out, slopes * out), block.conv2), block.bn3)
    shortcut = image
    if stride == 2:
        shortcut = normed(convolved(image, block.downsample[0]), block.downsample[1])
    else:
        assert block.downsample is None
    np.testing.assert_allclose(block(x)[0].numpy(), out + shortcut, atol=1e-12)
    assert (block(x) < 0).any()  # nothing cuts the sum


def test_embedding(small: IResNet) -> None:
    faces = torch.randn(2, 3, 112, 112)
    last = small.forward_features(faces)
    expected = small.features(small.fc(last.flatten(1)))
    torch.testing.assert_close(small(faces), expected)
    assert small(torch.randn(1, 3, 97, 100)).shape == (1, 5)
    assert not small.features.weight.requires_grad
    torch.testing.assert_close(small.forward_head(last, pre_logits=True), last.mean((2, 3)))
    with pytest.raises(ValueError, match=r"map of 7 x 7 \(images of 97 to 112 .*got \(14, 14\)"):
        small(torch.randn(1, 3, 224, 224))
    small.reset_classifier(0)
    torch.testing.assert_close(small(faces), last.mean((2, 3)))
    assert small(torch.randn(1, 3, 64, 48)).shape == (1, 16)
    assert small.get_classifier() is small.fc


def test_initial_weights() -> None:
    for name, module in IResNet(0, depths=(1, 1, 1, 1)).named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.1, rel=0.1), name
        if isinstance(module, nn.PReLU):
            assert (module.weight == 0.25).all(), name


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_the_published_file_loads(prefix: str, tmp_path: Path, small: IResNet) -> None:
    torch.save(
        {f"{prefix}{k}": v for k, v in small.state_dict().items()}, tmp_path / "backbone.pth"
    )
    backbone = build_backbone(
        "iresnet100", checkpoint=tmp_path / "backbone.pth", out_indices=(1, 5), **SMALL
    ).eval()
    images = torch.randn(2, 3, 50, 64)
    expected = small.forward_intermediates(images, [1, 5], intermediates_only=True)
    torch.testing.assert_close(backbone(images), expected)
    assert backbone.channels == [4, 16] and backbone.reductions == [2, 16]
    assert not any(name.startswith(("net.fc", "net.features")) for name in backbone.state_dict())


def test_a_file_without_embedding_loads_and_a_damaged_one_does_not(
    tmp_path: Path, small: IResNet
) -> None:
    state = {k: v for k, v in small.state_dict().items() if not k.startswith(("fc", "features"))}
    torch.save(state, tmp_path / "w.pth")
    build_backbone("iresnet100", checkpoint=tmp_path / "w.pth", **SMALL)
    del state["layer2.1.prelu.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(RuntimeError, match=r"Missing key.*layer2\.1\.prelu\.weight"):
        build_backbone("iresnet100", checkpoint=tmp_path / "w.pth", **SMALL)


def test_embeddings_of_other_widths_start_anew(tmp_path: Path) -> None:
    published = timm.create_model("iresnet100", **SMALL)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth")}
    options = {**SMALL, "pretrained": True, "pretrained_cfg_overlay": overlay}
    same = timm.create_model("iresnet100", **options)
    assert torch.equal(same.fc.weight, published.fc.weight)
    other = timm.create_model("iresnet100", num_classes=12, **options)
    assert other.fc.out_features == other.features.num_features == 12
    assert torch.equal(other.layer4[0].conv1.weight, published.layer4[0].conv1.weight)


@pytest.mark.parametrize("feature_cls", ["list", "getter"])
def test_features_only_equals_the_plain_model(small: IResNet, feature_cls: str) -> None:
    wrapped = timm.create_model(
        "iresnet100",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": small.state_dict()},
        features_only=True,
        feature_cls=feature_cls,
        **SMALL,
    ).eval()
    assert wrapped.feature_info.channels() == [4, 8, 12, 16]
    assert wrapped.feature_info.reduction() == [2, 4, 8, 16]
    images = torch.randn(1, 3, 80, 64)
    maps = small.forward_intermediates(images, [1, 2, 3, 4], intermediates_only=True)
    torch.testing.assert_close(wrapped(images), maps)


def test_pruned_model_keeps_what_its_taps_need(small: IResNet) -> None:
    images = torch.randn(2, 3, 32, 32)
    every = small.forward_intermediates(images, intermediates_only=True)
    assert small.prune_intermediate_layers([0, 4]) == [0, 4]
    maps = small.forward_intermediates(images, [0, 4], intermediates_only=True)
    torch.testing.assert_close(maps, [every[0], every[4]])
    sum(level.sum() for level in maps).backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_samples_do_not_meet_and_gradients_are_recomputed(small: IResNet) -> None:
    images = torch.randn(3, 3, 112, 112)
    clean = small(images)
    images[1] = torch.nan
    torch.testing.assert_close(small(images)[[0, 2]], clean[[0, 2]])
    images = torch.randn(2, 3, 112, 112)

    def gradients() -> list[Tensor]:
        small.train().zero_grad()
        small(images).square().sum().backward()
        return [p.grad.clone() for p in small.parameters() if p.grad is not None]

    plain = gradients()
    small.set_grad_checkpointing()
    for actual, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(actual, expected)


def test_groups_follow_depth() -> None:
    from timm.models import group_parameters

    model = IResNet(**SMALL)
    matched = group_parameters(model, model.group_matcher(), reverse=True)
    order = ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer2.1.conv1", "layer3.0.conv1", "fc"]
    layers = [matched[f"{name}.weight"] for name in order]
    assert layers == sorted(layers) and len(set(layers)) == len(layers)
    assert model.no_weight_decay() == set()


def test_registry() -> None:
    assert timm.list_models("iresnet*") == ["iresnet100"]
    assert not timm.list_pretrained("iresnet*")
    config = timm.get_pretrained_cfg("iresnet100")
    assert config.tag == "glint360k" and config.input_size == (3, 112, 112)
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        build_backbone("iresnet100", pretrained=True, **SMALL)


def test_compiles_and_exports() -> None:
    small = IResNet(0, dims=(4, 8), depths=(2, 1)).eval()
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(small, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), small(images))
    batch = torch.export.Dim("batch")
    program = torch.export.export(small, (images,), dynamic_shapes=({0: batch},))
    again = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(program.module()(again), small(again))


def test_images_are_normalized_for_the_weights() -> None:
    pixels = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = (pixels - pixels.new_tensor(mean)[:, None, None]) / pixels.new_tensor(std)[
        :, None, None
    ]
    config = build_backbone("iresnet100", **SMALL).data_config
    actual = Renormalize(config["mean"], config["std"]).double()
    torch.testing.assert_close(actual(images), (pixels - 0.5) / 0.5, rtol=0, atol=1e-6)
    assert not actual.state_dict()
    assert Renormalize(mean, std)(images) is images

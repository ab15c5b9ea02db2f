"""InceptionResnetV1: the published key tree, counts, maps and blocks, and timm's interface."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from helpers.key_tree import expand
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from aurel.backbones.build import build_backbone
from aurel.backbones.inception_resnet_v1 import Branches, ConvNorm, InceptionResnetV1, Residual

# The published checkpoint of VGGFace2. CBN: convolution and norm, C and L: with b a bias.
KEY_TREE = """
conv2d_1a                         CBN(32,3,3,3)
conv2d_2a                         CBN(32,32,3,3)
conv2d_2b                         CBN(64,32,3,3)
conv2d_3b                         CBN(80,64,1,1)
conv2d_4a                         CBN(192,80,3,3)
conv2d_4b                         CBN(256,192,3,3)
repeat_1.{0..4}.branch0           CBN(32,256,1,1)
repeat_1.{0..4}.branch1.0         CBN(32,256,1,1)
repeat_1.{0..4}.branch1.1         CBN(32,32,3,3)
repeat_1.{0..4}.branch2.0         CBN(32,256,1,1)
repeat_1.{0..4}.branch2.{1,2}     CBN(32,32,3,3)
repeat_1.{0..4}.conv2d            Cb(256,96,1,1)
mixed_6a.branch0                  CBN(384,256,3,3)
mixed_6a.branch1.0                CBN(192,256,1,1)
mixed_6a.branch1.1                CBN(192,192,3,3)
mixed_6a.branch1.2                CBN(256,192,3,3)
repeat_2.{0..9}.branch0           CBN(128,896,1,1)
repeat_2.{0..9}.branch1.0         CBN(128,896,1,1)
repeat_2.{0..9}.branch1.1         CBN(128,128,1,7)
repeat_2.{0..9}.branch1.2         CBN(128,128,7,1)
repeat_2.{0..9}.conv2d            Cb(896,256,1,1)
mixed_7a.branch0.0                CBN(256,896,1,1)
mixed_7a.branch0.1                CBN(384,256,3,3)
mixed_7a.branch1.0                CBN(256,896,1,1)
mixed_7a.branch1.1                CBN(256,256,3,3)
mixed_7a.branch2.0                CBN(256,896,1,1)
mixed_7a.branch2.{1,2}            CBN(256,256,3,3)
repeat_3.{0..4}.branch0           CBN(192,1792,1,1)
repeat_3.{0..4}.branch1.0         CBN(192,1792,1,1)
repeat_3.{0..4}.branch1.1         CBN(192,192,1,3)
repeat_3.{0..4}.branch1.2         CBN(192,192,3,1)
repeat_3.{0..4}.conv2d            Cb(1792,384,1,1)
block8.branch0                    CBN(192,1792,1,1)
block8.branch1.0                  CBN(192,1792,1,1)
block8.branch1.1                  CBN(192,192,1,3)
block8.branch1.2                  CBN(192,192,3,1)
block8.conv2d                     Cb(1792,384,1,1)
last_linear                       L(512,1792)
last_bn                           BN(512)
logits                            Lb(8631,512)
"""


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def shapes() -> InceptionResnetV1:
    """The published model, as shapes without numbers."""
    with torch.device("meta"):
        return timm.create_model("inception_resnet_v1").eval()


@pytest.fixture(scope="module")
def model() -> InceptionResnetV1:
    """With running statistics that keep the signal of random weights alive."""
    torch.manual_seed(0)
    model = timm.create_model("inception_resnet_v1", num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.3)
    return model.eval()


def test_key_tree(shapes: InceptionResnetV1) -> None:
    actual = {name: tuple(tensor.shape) for name, tensor in shapes.state_dict().items()}
    assert actual == expand(KEY_TREE)
    assert len(actual) == 716


def test_parameter_counts(shapes: InceptionResnetV1) -> None:
    assert parameters(shapes) == 27_910_327
    assert parameters(shapes) - parameters(shapes.logits) == 23_482_624
    assert sum(buffer.numel() for buffer in shapes.buffers()) == 29_712
    counts = {"repeat_1": 387_200, "mixed_6a": 1_710_080, "repeat_2": 6_900_480}
    counts |= {"mixed_7a": 3_346_176, "repeat_3": 8_003_840, "block8": 1_600_768}
    assert {name: parameters(getattr(shapes, name)) for name in counts} == counts
    with torch.device("meta"):
        casia = timm.create_model("inception_resnet_v1.casia_webface")
    assert parameters(casia) == 28_907_599


VALID = {160: [77, 36, 17, 8, 3], 224: [109, 52, 25, 12, 5], 256: [125, 60, 29, 14, 6]}
SAME = {256: [128, 64, 32, 16, 8], 160: [80, 40, 20, 10, 5], 100: [50, 25, 13, 7, 4]}


@pytest.mark.parametrize(
    ("padding", "size", "sides"),
    [("valid", *item) for item in VALID.items()] + [("same", *item) for item in SAME.items()],
)
def test_map_sizes(padding: str, size: int, sides: list[int]) -> None:
    with torch.device("meta"):
        backbone = build_backbone("inception_resnet_v1", padding=padding)
        maps = backbone(torch.empty(1, 3, size, size))
    assert [tuple(level.shape[1:]) for level in maps] == [
        (width, side, side) for width, side in zip((64, 192, 256, 896, 1792), sides, strict=True)
    ]
    assert backbone.reductions == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("padding", "size", "taps", "millions"),
    [
        ("valid", 160, 5, 1416.7),
        ("valid", 224, 5, 3139.7),
        ("valid", 256, 5, 4257.3),
        ("same", 256, 4, 4392.0),
    ],
)
def test_multiply_adds(padding: str, size: int, taps: int, millions: float) -> None:
    """Those of the published model less its 0.9 M of `last_linear`; of the 16 x 16 map."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        backbone = build_backbone(
            "inception_resnet_v1", padding=padding, out_indices=(taps - 1,)
        ).eval()
        backbone(torch.empty(1, 3, size, size))
    assert counter.get_total_flops() / 2e6 == pytest.approx(millions, abs=0.06)


def test_trunk_up_to_the_sixteenth() -> None:
    with torch.device("meta"):
        trunk = build_backbone("inception_resnet_v1", out_indices=(3,))
    assert parameters(trunk) == 9_613_312
    assert {name.split(".")[1] for name, _ in trunk.named_parameters()}.isdisjoint(
        {"mixed_7a", "repeat_3", "block8", "last_linear", "last_bn", "logits"}
    )


def test_blocks_by_hand() -> None:
    x = torch.randn(2, 3, 5, 6)
    conv = ConvNorm(3, 4, (1, 3)).eval()
    nn.init.uniform_(conv.bn.running_var, 0.5, 2.0)
    hidden = F.conv2d(x, conv.conv.weight, padding=(0, 1))
    hidden = hidden / (conv.bn.running_var + 1e-3).sqrt()[:, None, None]
    torch.testing.assert_close(conv(x), hidden.relu())
    branches = (nn.Conv2d(3, 2, 1), nn.Conv2d(3, 5, 1))
    together = torch.cat([branch(x) for branch in branches], 1)
    torch.testing.assert_close(Branches(*branches)(x), together)
    for relu in (True, False):
        block = Residual(3, 7, 0.2, *branches, relu=relu)
        out = x + 0.2 * block.conv2d(together)
        torch.testing.assert_close(block(x), out.relu() if relu else out)


def test_scales_of_the_blocks(shapes: InceptionResnetV1) -> None:
    for name, scale in (("repeat_1", 0.17), ("repeat_2", 0.1), ("repeat_3", 0.2)):
        assert all(block.scale == scale and block.relu for block in getattr(shapes, name))
    assert shapes.block8.scale == 1.0 and not shapes.block8.relu
    norms = [module for module in shapes.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in (*norms, shapes.last_bn)} == {1e-3}


def test_head(model: InceptionResnetV1) -> None:
    images = torch.randn(2, 3, 80, 80)
    features = model.forward_features(images)
    assert features.shape == (2, 1792, 1, 1)
    embedding = model.last_bn(model.last_linear(features.mean((2, 3))))
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), embedding)
    torch.testing.assert_close(model(images), model.get_classifier()(embedding))
    classifier = model.logits
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), embedding)
    model.reset_classifier(16)
    assert model(images).shape == (2, 16) and model.num_classes == 16
    model.logits = classifier
    kept = model.global_pool
    model.global_pool = ""
    torch.testing.assert_close(model(images), features)
    model.global_pool = kept


def test_dropout_is_before_the_embedding(model: InceptionResnetV1) -> None:
    features = torch.ones(200, 1792, 1, 1)
    weight = model.last_linear.weight
    with torch.no_grad():
        model.train()
        model.last_bn.eval()
        out = model.forward_head(features, pre_logits=True)
        model.eval()
        expected = model.forward_head(features[:1], pre_logits=True)
    assert out.std(0).mean() > 0.01 * weight.abs().sum(1).mean()
    torch.testing.assert_close(out.mean(0), expected[0], rtol=0.0, atol=0.3)


def test_published_files_load(tmp_path: Path, model: InceptionResnetV1) -> None:
    """With their classifier, or without it as in older releases; into either padding."""
    state = timm.create_model("inception_resnet_v1").state_dict()
    for name, tensor in state.items():
        if "running_mean" in name:
            tensor.fill_(0.25)
    images = torch.randn(1, 3, 96, 96)
    for drop in ((), ("logits.weight", "logits.bias")):
        torch.save({k: v for k, v in state.items() if k not in drop}, tmp_path / "vggface2.pt")
        for padding in ("valid", "same"):
            backbone = build_backbone(
                "inception_resnet_v1", checkpoint=tmp_path / "vggface2.pt", padding=padding
            )
            loaded = backbone.net.state_dict()
            assert all(torch.equal(value, state[name]) for name, value in loaded.items())
            assert len(loaded) == 714 - 6  # the embedding serves no map
            assert backbone.eval()(images)[0].isfinite().all()
    overlay = {"state_dict": state}
    whole = timm.create_model(
        "inception_resnet_v1", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0
    )
    assert torch.equal(whole.last_linear.weight, state["last_linear.weight"])
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("inception_resnet_v1", pretrained=True)


def test_features_only_equals_the_plain_model(model: InceptionResnetV1) -> None:
    wrapped = timm.create_model(
        "inception_resnet_v1",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": model.state_dict()},
        features_only=True,
    ).eval()
    images = torch.randn(1, 3, 96, 80)
    maps = model.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(wrapped(images), maps)


def test_data_config() -> None:
    with torch.device("meta"):
        config = build_backbone("inception_resnet_v1", out_indices=(0,)).data_config
    assert config["input_size"] == (3, 160, 160) and config["mean"] == (0.5, 0.5, 0.5)
    assert config["std"] == pytest.approx((0.501961,) * 3, abs=1e-6)


def test_every_parameter_learns_and_recomputing_changes_no_gradient() -> None:
    backbone = build_backbone("inception_resnet_v1", out_indices=(2,), padding="same").train()
    images = torch.randn(2, 3, 33, 40)

    def gradients() -> list[Tensor]:
        backbone.zero_grad()
        backbone(images)[0].square().mean().backward()
        assert all(parameter.grad is not None for parameter in backbone.parameters())
        return [parameter.grad.clone() for parameter in backbone.parameters()]

    plain = gradients()
    backbone.net.set_grad_checkpointing()
    assert backbone.net.repeat_1.grad_checkpointing
    for actual, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("coarse", "groups"), [(False, 24), (True, 7)])
def test_groups_follow_depth(shapes: InceptionResnetV1, coarse: bool, groups: int) -> None:
    from timm.models import group_parameters

    matched = group_parameters(shapes, shapes.group_matcher(coarse), reverse=True)
    assert set(matched) == {name for name, _ in shapes.named_parameters()}
    order = ["conv2d_1a.conv", "repeat_1.0.conv2d", "repeat_1.4.conv2d", "mixed_6a.branch0.conv"]
    order += ["repeat_2.9.conv2d", "mixed_7a.branch0.0.conv", "repeat_3.0.conv2d", "logits"]
    layers = [matched[f"{name}.weight"] for name in order]
    assert layers == sorted(layers)
    assert len(set(matched.values())) == groups


def test_padding_has_two_values() -> None:
    with pytest.raises(ValueError, match="padding must be one of valid, same, got 'full'"):
        InceptionResnetV1(padding="full")  # type: ignore[arg-type]

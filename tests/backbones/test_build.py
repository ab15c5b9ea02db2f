"""build_backbone: one interface for every timm model, and weights that load fully or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from aurel.backbones.build import Backbone, build_backbone

SWIN = "swin_tiny_patch4_window7_224"
SMALL_SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
SMALL_VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2}
CASES = {
    "resnet18": (64, {}, [64, 64, 128, 256, 512], [2, 4, 8, 16, 32]),
    "vgg11": (64, {}, [64, 128, 256, 512, 512, 512], [1, 2, 4, 8, 16, 32]),
    "rest_tiny": (64, {}, [16, 16, 32, 64, 128], [4, 4, 8, 16, 32]),
    SWIN: (224, SMALL_SWIN, [16, 32, 64, 128], [4, 8, 16, 32]),
    "vit_tiny_patch16_224": (224, SMALL_VIT, [32, 32, 32], [16, 16, 16]),
}


@pytest.mark.parametrize("name", CASES)
def test_maps_channels_and_reductions(name: str) -> None:
    size, options, channels, reductions = CASES[name]
    backbone = build_backbone(name, **options).eval()
    assert backbone.channels == channels and backbone.reductions == reductions
    maps = backbone(torch.randn(1, 3, size, size))
    assert [tuple(level.shape) for level in maps] == [
        (1, width, size // reduction, size // reduction)
        for width, reduction in zip(channels, reductions, strict=True)
    ]


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("name", [name for name in CASES if name != "vgg11"])
def test_every_parameter_serves_the_maps(name: str, final_norm: bool) -> None:
    size, options, channels, _ = CASES[name]
    for taps in ((-1,), (0, 1)):
        backbone = build_backbone(name, out_indices=taps, final_norm=final_norm, **options)
        assert backbone.channels == [channels[tap] for tap in taps]
        sum(level.sum() for level in backbone(torch.randn(2, 3, size, size))).backward()
        unused = [key for key, value in backbone.named_parameters() if value.grad is None]
        assert unused == []


def test_resnet_keys_are_torchvisions_without_the_classifier() -> None:
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.resnet18().eval()
    state = {key: value for key, value in reference.state_dict().items() if "fc." not in key}
    backbone = build_backbone("resnet18", out_indices=(-1,), final_norm=True).eval()
    assert backbone.state_dict().keys() == {f"net.{key}" for key in state}
    backbone.net.load_state_dict(state)
    images = torch.randn(2, 3, 96, 96)
    pooled = backbone(images)[-1].mean((2, 3))
    torch.testing.assert_close(reference.fc(pooled), reference(images))


def test_swin_tokens_are_normed_and_in_row_order() -> None:
    backbone = build_backbone(SWIN, out_indices=(-1,), final_norm=True, **SMALL_SWIN).eval()
    images = torch.randn(2, 3, 224, 224)
    tokens = backbone(images)[-1].flatten(2).mT
    plain = timm.create_model(SWIN, num_classes=0, **SMALL_SWIN).eval()
    plain.load_state_dict(backbone.net.state_dict())
    expected = plain.forward_features(images)
    assert expected.shape == (2, 7, 7, 128)
    torch.testing.assert_close(tokens, expected.flatten(1, 2))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 49), rtol=0, atol=1e-5)


def test_a_network_of_one_size_says_which() -> None:
    backbone = build_backbone("swin_tiny_patch4_window7_224")
    with pytest.raises(ValueError, match=r"images must be 224 x 224 pixels .* got 256 x 224"):
        backbone(torch.zeros(1, 3, 256, 224))


def test_equals_timm_features() -> None:
    backbone = build_backbone("resnet18", out_indices=(1, 3)).eval()
    features = timm.create_model("resnet18", features_only=True, out_indices=(1, 3)).eval()
    features.load_state_dict(backbone.net.state_dict())
    images = torch.randn(1, 3, 75, 64)
    for actual, expected in zip(backbone(images), features(images), strict=True):
        torch.testing.assert_close(actual, expected)


def test_data_config_says_how_to_normalize() -> None:
    config = build_backbone("rest_tiny").data_config
    assert config["mean"] == (0.485, 0.456, 0.406) and config["input_size"] == (3, 96, 96)
    config = build_backbone("vit_tiny_patch16_224", **SMALL_VIT).data_config
    assert config["mean"] == (0.5, 0.5, 0.5) and config["input_size"] == (3, 224, 224)


def test_a_module_of_the_users_own() -> None:
    class Own(nn.Module):
        channels, reductions = [3], [1]

        def forward(self, images: Tensor) -> list[Tensor]:
            return [images]

    own = Own()
    assert build_backbone(own) is own
    with pytest.raises(ValueError, match="backbone must have the attributes channels.*Identity"):
        build_backbone(nn.Identity())


def test_options_reach_timm() -> None:
    backbone = build_backbone("rest_tiny", drop_path_rate=0.3, depths=(1, 1, 1, 2))
    assert backbone.net.stage4[1].drop_path.drop_prob == pytest.approx(0.3)
    with pytest.raises(TypeError, match="dephts"):
        build_backbone("rest_tiny", dephts=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ((4, 2), r"out_indices must be ascending, got \(4, 2\)"),
        ((1, 1), r"out_indices must be ascending"),
        ((-1, 0), r"out_indices must be ascending"),
        ((5,), r"out_indices must be in -5\.\.4 \(rest_tiny has 5 taps\), got \(5,\)"),
        ((-6,), r"out_indices must be in"),
        ((), r"out_indices must be in"),
    ],
)
def test_indices_are_checked(indices: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone("rest_tiny", out_indices=indices)


def test_negative_indices_count_from_the_last() -> None:
    assert build_backbone("rest_tiny", out_indices=(0, -2, -1)).out_indices == [0, 3, 4]


def test_unknown_name_offers_close_matches() -> None:
    with pytest.raises(ValueError, match="must be a model of timm, got 'resnet_50'; .*resnet50"):
        build_backbone("resnet_50")
    with pytest.raises(ValueError, match="nearest: rest_lite"):
        build_backbone("rest-lite")


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'aurel-au\[models\]'"):
        build_backbone("resnet18")


def wrap(state: dict[str, Tensor], kind: str, path: Path) -> Path:
    """Save a state dict in one of the ways checkpoints are found in."""
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path / "weights.safetensors")
        return path / "weights.safetensors"
    prefixed = {f"module.{key}": value for key, value in state.items()}
    content = {
        "flat": state,
        "model": {"model": state, "epoch": 3, "optimizer": {"param_groups": []}},
        "module prefix": {"state_dict": prefixed},
    }[kind]
    torch.save(content, path / "weights.pth")
    return path / "weights.pth"


@pytest.mark.parametrize("kind", ["flat", "model", "module prefix", "safetensors"])
def test_checkpoint(kind: str, tmp_path: Path) -> None:
    trained = timm.create_model("rest_tiny", num_classes=1000).eval()
    path = wrap(trained.state_dict(), kind, tmp_path)
    images = torch.randn(1, 3, 64, 64)
    expected = trained.forward_intermediates(images, norm=True, intermediates_only=True)
    backbone = build_backbone("rest_tiny", checkpoint=path, final_norm=True).eval()
    torch.testing.assert_close(backbone(images), expected)
    assert "state_dict" not in backbone.net.pretrained_cfg
    plain = timm.create_model(
        "rest_tiny", pretrained=True, pretrained_cfg_overlay={"file": str(path)}
    ).eval()
    torch.testing.assert_close(plain(images), trained(images))


@pytest.mark.parametrize("classes", [0, 12])
def test_checkpoint_of_any_classifier(classes: int, tmp_path: Path) -> None:
    trained = timm.create_model("rest_tiny", num_classes=classes)
    path = wrap(trained.state_dict(), "flat", tmp_path)
    backbone = build_backbone("rest_tiny", checkpoint=path)
    assert torch.equal(backbone.net.stage4[0].attn.q.weight, trained.stage4[0].attn.q.weight)


def test_checkpoint_for_gray_images(tmp_path: Path) -> None:
    trained = timm.create_model("rest_tiny")
    path = wrap(trained.state_dict(), "flat", tmp_path)
    backbone = build_backbone("rest_tiny", checkpoint=path, in_chans=1).eval()
    weight = backbone.net.stem.conv1.weight
    torch.testing.assert_close(weight, trained.stem.conv1.weight.sum(1, keepdim=True))
    gray = torch.randn(2, 1, 48, 48, dtype=torch.float64)
    expected = trained.double().eval().forward_features(gray.expand(-1, 3, -1, -1))
    last = build_backbone(
        "rest_tiny", checkpoint=path, in_chans=1, out_indices=(-1,), final_norm=True
    )
    torch.testing.assert_close(last.double().eval()(gray)[0], expected, rtol=1e-4, atol=1e-4)


def test_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = timm.create_model("rest_tiny").state_dict()
    renamed = {f"encoder.{key}": value for key, value in state.items()}
    with pytest.raises(RuntimeError, match=r"Missing key(.|\n)*Unexpected key"):
        path = wrap(renamed, "flat", tmp_path)
        build_backbone("rest_tiny", checkpoint=path)
    del state["stage2.0.mlp.fc1.bias"]
    with pytest.raises(RuntimeError, match=r"stage2\.0\.mlp\.fc1\.bias"):
        build_backbone("rest_tiny", checkpoint=wrap(state, "flat", tmp_path))
    with pytest.raises(FileNotFoundError, match="checkpoint must be a file, got .*nowhere.pth"):
        build_backbone("rest_tiny", checkpoint=tmp_path / "nowhere.pth")


def test_weights_that_were_not_published_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist for rest_tiny"):
        build_backbone("rest_tiny", pretrained=True)


def test_repr() -> None:
    backbone = build_backbone("rest_tiny", out_indices=(2, 4))
    assert isinstance(backbone, Backbone)
    assert "channels=[32, 128], reductions=[8, 32]" in repr(backbone)

"""GTLE-Net and its expression encoder: sizes, ablations, start from the encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_images, small_model
from torch import Tensor, nn

from aurel.models.checkpoint import load_model, save_model
from aurel.models.registry import create_model, list_models, model_info
from aurel.training.start import load_backbone_weights, start_from

ENCODERS = {
    # backbone: channels of the map at 1/16, parameters up to it (M).
    "inception_resnet_v1": (896, 9.613),
    "resnet50": (1024, 8.54),
    "vgg16": (512, 14.71),
    "repvgg_a2": (384, 21.39),
}

# Rows of the paper's table 10 that are options of the model, and the trained parts.
ROWS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "full": ({}, {"backbone", "features.maps", "features.masks", "classifier"}),
    "w/o E_m": ({"local_features": "maps"}, {"backbone", "features.maps", "classifier"}),
    "w/o E_m & E_a": ({"local_features": "none"}, {"backbone", "classifier"}),
    "w. GEE fixed": ({"freeze_encoder": True}, {"features.maps", "features.masks", "classifier"}),
}


def small_encoder(**options: Any) -> Any:
    return create_model("expression_encoder", **{"backbone": "test_resnet", **options})


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("backbone", ENCODERS)
def test_encoders_of_the_paper(backbone: str) -> None:
    channels, millions = ENCODERS[backbone]
    with torch.device("meta"):
        model = create_model("gtle_net", num_aus=12, backbone=backbone)
        out = model(torch.empty(2, 3, 256, 256))
    assert model.backbone.channels == [channels] and model.backbone.reductions == [16]
    assert parameters(model.backbone) / 1e6 == pytest.approx(millions, abs=0.006)
    assert out.logits.shape == (2, 12) and out.masks.shape == (2, 12, 256, 256)


def test_sizes_of_the_parts() -> None:
    with torch.device("meta"):
        model = create_model("gtle_net", num_aus=12)
    assert parameters(model.features) == 17_124_772 + 4_370_508
    assert parameters(model.classifier) == 12 * 2_136_577
    assert parameters(model) == 56_747_516


@pytest.mark.parametrize("size", [(256, 256), (250, 131)])
def test_the_map_of_the_paper_is_16_by_16(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = create_model("gtle_net", num_aus=8)
        h = model.backbone(torch.empty(1, 3, *size))[0]
        masks = model(torch.empty(1, 3, *size)).masks
    rows, columns = (-(-side // 16) for side in size)
    assert h.shape == (1, 896, rows, columns) and masks.shape == (1, 8, 16 * rows, 16 * columns)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablation_learns(row: str) -> None:
    options, parts = ROWS[row]
    model = small_model("gtle_net", **options).train()
    out = model(small_images())
    assert (out.masks is None) == ("features.masks" not in parts)
    (out.logits * torch.randn_like(out.logits)).sum().backward()
    learned = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            depth = 2 if name.startswith("features") else 1
            learned.add(".".join(name.split(".")[:depth]))
        else:
            assert parameter.grad is None
    assert learned == parts


def test_a_frozen_encoder_does_not_change() -> None:
    frozen, free = small_model("gtle_net", freeze_encoder=True), small_model("gtle_net")
    for model, is_frozen in ((frozen, True), (free, False)):
        before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        evaluate_after_one_step(model)
        after = model.backbone.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before) == is_frozen
        model.train()
        assert model.training and model.classifier.training
        assert model.backbone.training != is_frozen


def test_masks_gate_the_maps() -> None:
    model = small_model("gtle_net")
    evaluate_after_one_step(model)
    images = small_images()
    nn.init.zeros_(model.features.masks.head.weight)
    nn.init.constant_(model.features.masks.head.bias, -200.0)
    out = model(images)
    assert not out.masks.any()
    torch.testing.assert_close(out.logits, out.logits[:1].expand(3, -1))
    nn.init.constant_(model.features.masks.head.bias, 200.0)
    opened = model(images)
    plain = small_model("gtle_net", local_features="maps").eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("features.masks")}
    )
    torch.testing.assert_close(opened.logits, plain(images).logits)
    assert not torch.allclose(opened.logits, out.logits)


def test_images_are_normalized_with_the_statistics_of_the_backbone() -> None:
    images = torch.rand(2, 3, 32, 32)
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    mean, std = (torch.tensor(imagenet[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = (images - 0.5) / 0.5
    for model in (small_model("gtle_net"), small_encoder()):  # statistics of 0.5
        torch.testing.assert_close(model.renormalize((images - mean) / std), expected)


def test_weights_come_from_the_expression_encoder(tmp_path: Any) -> None:
    encoder = small_encoder()
    with torch.no_grad():
        encoder.train()(torch.randn(4, 3, 64, 64))
    save_model(encoder, tmp_path / "encoder.pth")
    model = small_model("gtle_net")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = start_from(model, tmp_path / "encoder.pth")
    assert all(name.startswith(("features.", "classifier.")) for name in fresh)
    state, source = model.state_dict(), encoder.net.state_dict()
    for name, value in state.items():
        if name in fresh:
            assert torch.equal(value, before[name])
        else:
            assert torch.equal(value, source[name.removeprefix("backbone.net.")]), name
    images = small_images()
    encoder.eval(), model.eval()
    tap = encoder.net.forward_intermediates(images, [3], intermediates_only=True)[0]
    torch.testing.assert_close(model.backbone(images)[0], tap)
    with pytest.raises(ValueError, match="encoder must be a resnet18, got test_resnet"):
        start_from(small_model("gtle_net", backbone="resnet18"), tmp_path / "encoder.pth")
    with pytest.raises(ValueError, match="must hold a macg, got a expression_encoder"):
        start_from(small_model("macg"), tmp_path / "encoder.pth")


def test_published_weights_fit_encoder_and_model(tmp_path: Any) -> None:
    """Load a file with a classifier, as of face recognition; only the padding differs."""
    import timm

    donor = timm.create_model("inception_resnet_v1")
    torch.save(donor.state_dict(), tmp_path / "vggface2.pt")
    encoder = create_model("expression_encoder")
    head = encoder.net.logits.weight.clone()
    load_backbone_weights(encoder, tmp_path / "vggface2.pt")
    assert torch.equal(encoder.net.last_linear.weight, donor.last_linear.weight)
    assert torch.equal(encoder.net.logits.weight, head) and head.shape == (16, 512)
    assert encoder.net.padding == "same"
    model = small_model("gtle_net", backbone="inception_resnet_v1")
    load_backbone_weights(model, tmp_path / "vggface2.pt")
    assert torch.equal(model.backbone.net.conv2d_4b.conv.weight, donor.conv2d_4b.conv.weight)
    assert model.backbone.net.padding == "same"
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    for other in (encoder, model):
        with pytest.raises(ValueError, match="other.pt must fit the backbone inception_resnet"):
            load_backbone_weights(other, tmp_path / "other.pt")


def test_the_encoder_embeds_on_the_unit_sphere(tmp_path: Any) -> None:
    encoder = small_encoder(dim=5).eval()
    triplets = torch.randn(2, 3, 3, 64, 64)
    embeddings = encoder(triplets)
    assert embeddings.shape == (2, 3, 5) and embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2, 3))
    for one in range(2):
        torch.testing.assert_close(encoder(triplets[one]), embeddings[one], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(triplets[0, 1]), embeddings[0, 1], rtol=1e-4, atol=1e-5)
    save_model(encoder, tmp_path / "encoder.pth")
    torch.testing.assert_close(load_model(tmp_path / "encoder.pth")(triplets), embeddings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(triplets).dtype == torch.float32


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16", "repvgg_a2", "inception_resnet_v1"])
def test_encoder_networks_of_the_paper(backbone: str) -> None:
    with torch.device("meta"):
        encoder = create_model("expression_encoder", backbone=backbone)
        assert encoder(torch.empty(2, 3, 256, 256)).shape == (2, 16)
        trunk = create_model("gtle_net", backbone=backbone).backbone.net.state_dict()
    names = encoder.net.state_dict()
    assert all(name in names and names[name].shape == value.shape for name, value in trunk.items())


def test_an_encoder_is_no_au_model() -> None:
    assert "expression_encoder" not in list_models() and "gtle_net" in list_models()
    assert not model_info("expression_encoder").predicts_aus
    assert model_info("gtle_net").predicts_aus


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="local_features must be one of masked, maps, none, got"):
        small_model("gtle_net", local_features="both")
    message = "a map at 1/16 of the image, got vit_small_patch32_224 with 1/32"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model("gtle_net", backbone="vit_small_patch32_224")


def test_any_au_set_and_round_trip(tmp_path: Any) -> None:
    model = small_model("gtle_net", aus=[43, 1, 5])
    evaluate_after_one_step(model)
    save_model(model, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth")
    assert loaded.config == model.config and loaded.aus.names == ("AU43", "AU01", "AU05")
    images: Tensor = torch.randn(2, 3, 48, 80)
    torch.testing.assert_close(loaded(images).logits, model(images).logits)

"""Backbone weights of masked autoencoders (MAE, FMAE), in the authors' form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from aurel.backbones.build import build_backbone
from aurel.models.registry import create_model
from aurel.training.start import load_backbone_weights

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def encoder() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net: Any = timm.create_model(NAME, num_classes=0)
    with torch.no_grad():
        net.pos_embed.normal_()
    return dict(net.state_dict())


@pytest.fixture
def file(encoder: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    """Return a file as mae_pretrain_vit_*.pth, with its decoder under the key "model"."""
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, 192),
        "decoder_pos_embed": torch.zeros(1, 197, 8),
        "decoder_blocks.0.norm1.weight": torch.zeros(8),
        "decoder_pred.bias": torch.zeros(3),
    }
    path = tmp_path / "mae.pth"
    torch.save({"model": {**encoder, **decoder}, "optimizer": {}, "epoch": 799}, path)
    return path


def test_the_encoder_is_loaded_and_the_decoder_named(
    encoder: dict[str, torch.Tensor], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = create_model("me_graphau_stage1", aus="BP4D", backbone=NAME)
    with caplog.at_level(logging.WARNING, "aurel"):
        load_backbone_weights(model, file)
    assert "mae.pth: 5 tensors of the decoder are not loaded" in caplog.text
    loaded = model.backbone.net.state_dict()
    assert all(torch.equal(loaded[key], encoder[key]) for key in loaded)


def test_positions_are_interpolated_for_another_size(
    encoder: dict[str, torch.Tensor], file: Path
) -> None:
    backbone = build_backbone(NAME, checkpoint=file, img_size=112)
    positions = backbone.net.pos_embed
    assert positions.shape == (1, 1 + 7 * 7, 192)
    assert torch.equal(positions[:, 0], encoder["pos_embed"][:, 0])
    assert 0.1 < float(positions[:, 1:].detach().std()) < 1.0
    assert backbone(torch.randn(1, 3, 112, 112))[0].shape == (1, 192, 7, 7)


def test_an_encoder_of_another_width_is_refused(file: Path) -> None:
    model = create_model("me_graphau_stage1", aus="BP4D", backbone="vit_small_patch16_224")
    with pytest.raises(ValueError, match="mae.pth must fit the backbone vit_small_patch16_224"):
        load_backbone_weights(model, file)

"""A run over several processes uses timm's norms, and the model has its own norms afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from aurel.backbones.build import build_backbone
from aurel.layers.topk_graph_conv import TopKGraphConv
from aurel.models.registry import create_model
from aurel.training.options import TrainerOptions
from aurel.training.sync_norms import SyncNorms
from aurel.training.trainer import make_trainer


def small() -> nn.Module:
    backbone = build_backbone("mobilenetv3_small_050", out_indices=(0,))
    return nn.ModuleDict({"backbone": backbone, "graph": TopKGraphConv(8, 5)})


def test_a_model_is_the_same_during_the_run_and_after() -> None:
    plain = small().train()
    model = copy.deepcopy(plain)
    classes = {name: type(part) for name, part in model.named_modules()}
    seen: list[str] = []
    for name, part in model["backbone"].named_modules():
        if isinstance(part, BatchNormAct2d):
            part.register_forward_hook(lambda *_, name=name: seen.append(name))
    plugin = SyncNorms()
    synchronized = plugin.apply(model)
    norms = [part for part in synchronized.modules() if isinstance(part, nn.SyncBatchNorm)]
    assert synchronized["graph"].norm.processes in norms
    images = torch.randn(2, 3, 32, 32)
    expected = plain["backbone"](images)[0]
    torch.testing.assert_close(synchronized["backbone"](images)[0], expected)
    assert seen
    reverted = plugin.revert(synchronized)
    assert {name: type(part) for name, part in reverted.named_modules()} == classes
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(reverted.state_dict()[key], tensor)
    torch.testing.assert_close(
        reverted.eval()["backbone"](images), plain.eval()["backbone"](images)
    )


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "mobilenetv3_small_050", "regnety_002"])
def test_predictions_do_not_change(backbone: str) -> None:
    torch.manual_seed(0)
    aus = [1, 2, 4, 12, 15]
    model = create_model("me_graphau", aus=aus, backbone=backbone, channels=16).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images).probs
        torch.testing.assert_close(SyncNorms().apply(model)(images).probs, expected)


def test_a_trainer_takes_it() -> None:
    options = TrainerOptions(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True)
    trainer = make_trainer(options, [], logger=False)
    assert isinstance(trainer.strategy._layer_sync, SyncNorms)

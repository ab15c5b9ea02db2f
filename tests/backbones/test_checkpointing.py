from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from aurel.backbones.build import build_backbone


def statistics(backbone: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in backbone.named_buffers()}


@pytest.mark.parametrize("name", ["test_resnet", "rest_tiny"])
def test_statistics_advance_once_a_step(name: str) -> None:
    plain = build_backbone(name).train()
    recomputed = copy.deepcopy(plain)
    recomputed.set_grad_checkpointing()
    recomputed = pickle.loads(pickle.dumps(recomputed))
    for _ in range(2):
        images = torch.randn(2, 3, 64, 64)
        for backbone in (plain, recomputed):
            sum(each.sum() for each in backbone(images)).backward()
    for (key, expected), got in zip(
        statistics(plain).items(), statistics(recomputed).values(), strict=True
    ):
        assert torch.equal(got, expected), key
    norms = [module for module in recomputed.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(norm.momentum == 0.1 for norm in norms)
    before = norms[-1].running_mean.clone()
    with torch.no_grad():
        recomputed(torch.randn(2, 3, 64, 64))
    assert not torch.equal(norms[-1].running_mean, before)


def test_an_error_inside_leaves_the_norms_as_they_were() -> None:
    backbone = build_backbone("test_resnet").train()
    backbone.set_grad_checkpointing()
    with pytest.raises(RuntimeError):
        backbone(torch.randn(2, 4, 64, 64))
    assert all(
        module.momentum == 0.1
        for module in backbone.modules()
        if isinstance(module, nn.BatchNorm2d)
    )


def test_a_network_that_cannot_is_named() -> None:
    with torch.device("meta"):
        backbone = build_backbone("vgg11")
    with pytest.raises(ValueError, match="VGG: gradient checkpointing not supported"):
        backbone.set_grad_checkpointing()

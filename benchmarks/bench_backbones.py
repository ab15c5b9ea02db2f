"""Compare a training step and inference of Pyramid ViG-Ti with a plain implementation."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import timm
import torch
from measure import Step
from peers import gathered
from torch import Tensor, nn
from torch.nn import functional as F

import aurel.backbones  # noqa: F401  registers the network
from aurel.layers import Grapher

NAME = "pvig_ti_224_gelu"


def plain_graph_conv(layer: Any, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the convolution by its definition, with all distances and all neighbors' features."""
    nodes = x.flatten(2).mT
    sources = F.avg_pool2d(x, layer.reduction).flatten(2).mT if layer.reduction > 1 else nodes
    with torch.no_grad():
        ends = F.normalize(nodes, dim=2), F.normalize(sources, dim=2)
        squares = [end.square().sum(2) for end in ends]
        distances = squares[0][:, :, None] - 2 * ends[0] @ ends[1].mT + squares[1][:, None]
        if bias is not None:
            distances += bias
        nearest = distances.topk(layer.k * layer.dilation, dim=2, largest=False).indices
        neighbors = nearest[..., :: layer.dilation]
    relative = (gathered(sources, neighbors) - nodes.unsqueeze(2)).amax(2)
    pairs = torch.stack((nodes, relative), dim=3).flatten(2)
    return layer.gconv.nn(pairs.mT.unflatten(2, x.shape[2:])), neighbors


def networks(images: Tensor) -> tuple[Any, Any]:
    """Return the network and the plain one, with equal weights, and statistics of these images.

    Branches have small weights compared to their shortcuts, so that a near-tie between neighbors,
    in which the two may choose differently, has a small effect on later blocks.
    """
    network = timm.create_model(NAME, num_classes=0).to(images.device)
    for name, norm in network.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            if name.endswith("fc2.1"):
                nn.init.constant_(norm.weight, 0.01)
    with torch.no_grad():
        network(images)
    plain = deepcopy(network)
    for module in plain.modules():
        if isinstance(module, Grapher):
            conv = module.graph_conv
            conv.forward = partial(plain_graph_conv, conv)  # type: ignore[method-assign]
    return network, plain


SIZES = pytest.mark.sizes(cpu=[{"B": 2, "H": 224}], cuda=[{"B": 64, "H": 224}])


@SIZES
def test_pvig_training_step(size: dict[str, int], bench: Any, versus: Any) -> None:
    images = torch.randn(size["B"], 3, size["H"], size["H"], device=bench.device)

    def step(model: Any) -> Step:
        model.train()
        parameters = list(model.parameters())

        def train() -> list[Tensor]:
            features = model(images)
            torch.autograd.grad(features.square().mean(), parameters)
            return [features.detach()]

        return train

    network, plain = networks(images)
    versus(NAME, size, "training", {"aurel": step(network), "plain": step(plain)}, tolerance=1e-2)


@SIZES
def test_pvig_inference(size: dict[str, int], bench: Any, versus: Any) -> None:
    images = torch.randn(size["B"], 3, size["H"], size["H"], device=bench.device)

    def inference(model: Any) -> Step:
        model.eval()

        def step() -> Tensor:
            with torch.no_grad():
                return model(images)

        return step

    network, plain = networks(images)
    steps = {"aurel": inference(network), "plain": inference(plain)}
    versus(NAME, size, "inference", steps, tolerance=1e-2)

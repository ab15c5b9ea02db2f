"""Compare a training step and inference of ME-GraphAU with a plain implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measure import Step
from plain_me_graphau import PlainMEGraphAU
from torch import Tensor
from torch.nn import functional as F

from aurel.facs import AUSet
from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.registry import create_model

Outputs = tuple[Tensor, Tensor]


def models(nodes: int, device: torch.device) -> tuple[Any, Any]:
    """Return the model of aurel and the plain one, with ResNet-50 and equal weights."""
    plain = PlainMEGraphAU("resnet50", nodes, stage=2)
    aurel = create_model("me_graphau", aus=AUSet.unnamed(nodes), backbone="resnet50")
    load_author_checkpoint(aurel, plain.state_dict())
    return aurel.to(device), plain.to(device)


def run_aurel(model: Any, images: Tensor) -> Outputs:
    out = model(images)
    return out.probs, out.edge_logits.flatten(1, 2)


def loss_of(outputs: Outputs, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the AUs and cross-entropy of the pairs."""
    probs, edge_logits = outputs
    pairs = 2 * labels.unsqueeze(2) + labels.unsqueeze(1)
    clamped = probs.clamp(1e-6, 1 - 1e-6)
    edges = F.cross_entropy(edge_logits.flatten(0, -2), pairs.flatten())
    return F.binary_cross_entropy(clamped, labels.float()) + 0.01 * edges


@pytest.mark.sizes(
    cpu=[{"B": 8, "N": 12}, {"B": 8, "N": 27}], cuda=[{"B": 64, "N": 12}, {"B": 64, "N": 27}]
)
def test_me_graphau_training_step(size: dict[str, int], bench: Any, versus: Any) -> None:
    aurel, plain = models(size["N"], bench.device)
    images = torch.randn(size["B"], 3, 224, 224, device=bench.device)
    labels = torch.randint(2, (size["B"], size["N"]), device=bench.device)

    def step(model: Any, run: Any) -> Step:
        optimizer = torch.optim.AdamW(
            model.train().parameters(), 0.0
        )  # measured, although a rate of 0 changes nothing
        capturable = bench.device.type == "cuda"
        optimizer.param_groups[0]["capturable"] = capturable

        def train() -> tuple[Tensor, ...]:
            optimizer.zero_grad(set_to_none=True)
            outputs = run(model, images)
            loss_of(outputs, labels).backward()
            optimizer.step()
            return tuple(out.detach() for out in outputs)

        return train

    steps = {
        "aurel": step(aurel, run_aurel),
        "plain": step(plain, lambda model, images: model(images)),
    }
    versus("me_graphau resnet50", size, "training", steps, tolerance=1e-2)


@pytest.mark.sizes(
    cpu=[{"B": 8, "N": 12}, {"B": 8, "N": 27}], cuda=[{"B": 64, "N": 12}, {"B": 64, "N": 27}]
)
def test_me_graphau_inference(size: dict[str, int], bench: Any, versus: Any) -> None:
    aurel, plain = (model.eval() for model in models(size["N"], bench.device))
    images = torch.randn(size["B"], 3, 224, 224, device=bench.device)

    def inference(run: Any, model: Any) -> Step:
        def step() -> Outputs:
            with torch.no_grad():
                return run(model, images)

        return step

    steps = {
        "aurel": inference(run_aurel, aurel),
        "plain": inference(lambda model, images: model(images), plain),
    }
    versus("me_graphau resnet50", size, "inference", steps, tolerance=1e-2)

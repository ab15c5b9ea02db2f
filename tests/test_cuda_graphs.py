"""Captures in CUDA graphs, as far as a CPU can show: arguments, structures, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aurel.cuda_graphs import Captured, FlatModule, Signature, _restored_buffers, capture
from aurel.facs import AUSet
from aurel.graph import RelationGraph
from aurel.layers import SelfAdjustingGCN
from aurel.output import AUOutput


class Model(nn.Module):
    """A linear map with a mask, a constant, and an output that nests tensors, None and more."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> AUOutput:
        logits = self.linear(self.norm(x)).mul(scale)
        if mask is not None:
            logits = logits * mask
        graph = RelationGraph(neighbors=torch.zeros(2, 3, 1, dtype=torch.int64), weights=None)
        aus = AUSet.unnamed(3)
        return AUOutput(logits.sigmoid(), logits=logits, graphs=(graph,), aus=aus)


def replayed(model: nn.Module, *args: Any, trains: bool = False) -> Captured:
    """Return a capture whose replay runs the module."""
    signature = Signature(args)
    flat = FlatModule(model, signature)
    flat(*signature.tensors(args))
    return Captured(model, signature, flat, flat, trains)


def test_outputs_keep_their_structure() -> None:
    model = Model().eval()
    step = replayed(model, torch.randn(2, 4), None, 2.0)
    x = torch.randn(2, 4)
    with torch.no_grad():
        got, expected = step(x, None, 2.0), model(x, None, 2.0)
    assert torch.equal(got.probs, expected.probs) and torch.equal(got.logits, expected.logits)
    assert got.edge_logits is None and got.aus == expected.aus
    assert torch.equal(got.graphs[0].neighbors, expected.graphs[0].neighbors)
    assert got.graphs[0].weights is None


def test_a_mask_is_an_input_and_a_layer_can_return_a_tuple() -> None:
    torch.manual_seed(0)
    layer = SelfAdjustingGCN(8, 8, k=2).eval()
    x, mask = torch.randn(2, 5, 8), torch.rand(2, 5) < 0.7
    step = replayed(layer, x, torch.ones_like(mask))
    with torch.no_grad():
        assert torch.equal(step(x, mask), layer(x, mask))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((torch.zeros(3, 4), None, 2.0), r"argument 0 .*shape=\(2, 4\).*as captured.*\(3, 4\)"),
        ((torch.zeros(2, 4).double(), None, 2.0), "argument 0 .*float32.*as captured.*float64"),
        ((torch.zeros(2, 4, device="meta"), None, 2.0), "argument 0 .*cpu.*as captured.*meta"),
        ((torch.zeros(2, 4), torch.ones(2, 3), 2.0), "argument 1 must be None, as captured"),
        ((torch.zeros(2, 4), None, 1.0), "argument 2 must be 2.0, as captured, got 1.0"),
        ((torch.zeros(2, 4), None), "arguments must have the structure"),
        ((None, None, 2.0), "argument 0 must be .*as captured, got None"),
    ],
)
def test_a_call_must_match_the_example(args: tuple[Any, ...], message: str) -> None:
    step = replayed(Model(), torch.randn(2, 4), None, 2.0)
    with pytest.raises(ValueError, match=message):
        step(*args)


def test_the_mode_must_stay() -> None:
    model = Model().eval()
    step = replayed(model, torch.randn(2, 4))
    model.train()
    with pytest.raises(ValueError, match="must be in evaluation mode.*got training mode"):
        step(torch.randn(2, 4))


def test_no_gradient_without_a_captured_backward_pass() -> None:
    x = torch.randn(2, 4, requires_grad=True)
    with pytest.raises(ValueError, match="no backward pass was captured"):
        replayed(Model(), torch.randn(2, 4))(x)
    assert replayed(Model(), x, trains=True)(x).logits.requires_grad


def test_modes_of_parts_and_statistics_stay() -> None:
    model = Model()
    model.norm.eval()
    replayed(model, torch.randn(2, 4))
    assert model.training and not model.norm.training
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with _restored_buffers(model):
        model(torch.randn(2, 4) + 3)
        assert not torch.equal(model.norm.running_mean, before["norm.running_mean"])
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_errors_of_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="warmup must be at least 1, got 0"):
        capture(Model(), x, warmup=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match="a CUDA device must be available for a CUDA graph, got none"
    ):
        capture(Model(), x)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="input 0 must be on a CUDA device, got cpu"):
        capture(Model(), x)
    with pytest.raises(ValueError, match=r"linear\.weight must be on a CUDA device, got cpu"):
        capture(Model())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    with pytest.raises(ValueError, match="autocast must have cache_enabled=False"):
        capture(Model(), x)

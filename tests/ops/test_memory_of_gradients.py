"""The tensors that an op saves for its gradient, and checkpointing."""

from __future__ import annotations

import pytest
import torch
from helpers.differentiable_ops import OPS, Op, every_op
from helpers.every_backend import every_backend, every_fast_backend
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aurel.layers import GatedEdgeGCN
from aurel.ops import edge_update


class Saved:
    """The tensors that a block of code saves, and the number of times that one was unpacked."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.unpacked = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack)

    def pack(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        self.unpacked += 1
        return tensor


def run(op: Op, leaves: list[Tensor], backend: str) -> Tensor:
    return sum(out.sin().sum() for out in op.call(*leaves, backend=backend))


@every_op
@every_fast_backend
def test_saved_tensors_are_unpacked_once(op: Op, backend: str) -> None:
    leaves, saved = op.leaves(), Saved()
    with saved.hooks:
        total = run(op, leaves, backend)
    total.backward()
    assert saved.unpacked == len(saved.tensors) > 0


@every_op
@every_backend
def test_checkpoint_without_reentry_gives_the_same_gradients(op: Op, backend: str) -> None:
    results = []
    for call in (
        lambda *leaves: run(op, [*leaves], backend),
        lambda *leaves: checkpoint(run, op, [*leaves], backend, use_reentrant=False),
    ):
        leaves = op.leaves()
        results.append(torch.autograd.grad(call(*leaves), leaves))
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_of_edges_can_be_checkpointed(training: bool) -> None:
    torch.manual_seed(0)
    layer = GatedEdgeGCN(6, 5).train(training)
    x, edges = torch.randn(2, 5, 6), torch.randn(2, 5, 5, 6)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    grads = []
    for checkpointed in (False, True):
        layer.load_state_dict(state)
        leaves = [x.clone().requires_grad_(), edges.clone().requires_grad_()]
        outs = checkpoint(layer, *leaves, use_reentrant=False) if checkpointed else layer(*leaves)
        outs = outs if isinstance(outs, tuple) else (outs,)
        total = sum(out.sin().sum() for out in outs)
        grads.append(torch.autograd.grad(total, [*leaves, *layer.parameters()], allow_unused=True))
    for got, want in zip(*grads, strict=True):
        assert (got is None and want is None) or torch.equal(got, want)


@every_fast_backend
@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
def test_edge_update_saves_its_inputs_and_statistics_alone(given: bool, backend: str) -> None:
    op = OPS["edge_update given" if given else "edge_update"]
    leaves, saved = op.leaves(), Saved()
    statistics = (torch.zeros(4, 4).double(), torch.ones(4, 4).double()) if given else None
    with saved.hooks:
        edge_update(*leaves, statistics, backend=backend)
    inputs = {leaf.untyped_storage().data_ptr() for leaf in leaves}
    others = [t for t in saved.tensors if t.untyped_storage().data_ptr() not in inputs]
    assert all(tensor.shape == (4, 4) for tensor in others) and len(others) <= 2


@every_fast_backend
def test_nothing_is_saved_without_a_gradient(backend: str) -> None:
    for op in OPS.values():
        tensors, saved = op.tensors(), Saved()
        with saved.hooks:
            op.call(*tensors, backend=backend)
            with torch.no_grad():
                outs = op.call(*(tensor.requires_grad_() for tensor in tensors), backend=backend)
        assert not saved.tensors and not any(out.requires_grad for out in outs)


@every_op
@every_backend
def test_an_input_changed_in_place_is_noticed(op: Op, backend: str) -> None:
    """Autograd notices it, unless the gradient does not need the input."""
    leaves = op.leaves()
    copies = [leaf.clone() for leaf in leaves]
    want = torch.autograd.grad(run(op, leaves, backend), leaves)
    total = run(op, copies, backend)
    with torch.no_grad():
        for copy in copies:
            copy += 1
    try:
        got = torch.autograd.grad(total, leaves)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:
        assert all(map(torch.allclose, got, want))

"""Eager calls skip torch's dispatcher; a program that is captured has the operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.differentiable_ops import OPS, Op, every_op
from helpers.every_backend import every_fast_backend
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from aurel.ops import knn_graph, use_backend
from aurel.ops.flop_formulas import flop_formulas
from aurel.ops.registration import OPERATORS


class Recorder(TorchDispatchMode):
    """Records the names of the operators of aurel that are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aurel":
            self.names.append(func._schema.name.removeprefix("aurel::"))
        return func(*args, **(kwargs or {}))


def step(op: Op, backend: str, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    total = sum(out.sin().sum() for out in op.call(*leaves, backend=backend))
    return torch.autograd.grad(total, leaves)


@every_op
@every_fast_backend
def test_a_dispatch_mode_intercepts_both_directions(op: Op, backend: str) -> None:
    leaves = op.leaves()
    want = step(op, backend, leaves)
    with Recorder() as recorder:
        got = step(op, backend, leaves)
    assert all(map(torch.equal, got, want))
    assert op.name in recorder.names
    assert any(name.endswith("_backward") for name in recorder.names)
    assert {*recorder.names} <= {*OPERATORS}


@every_op
@every_fast_backend
def test_an_eager_call_dispatches_no_operator_of_aurel(op: Op, backend: str) -> None:
    leaves = op.leaves()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(op, backend, leaves)
        with torch.no_grad():
            op.call(*leaves, backend=backend)
    names = {event.key for event in profiler.key_averages()}
    assert names and not [name for name in names if name.startswith("aurel::")]


@every_op
def test_fake_tensors_have_the_shapes_of_the_outputs(op: Op) -> None:
    expected = op.call(*op.tensors(), backend="torch")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        leaves = [mode.from_tensor(tensor).requires_grad_() for tensor in op.tensors()]
        outs = op.call(*leaves, backend="torch")
        grads = torch.autograd.grad([out.sum() for out in outs], leaves)
    assert [out.shape for out in outs] == [want.shape for want in expected]
    assert [grad.shape for grad in grads] == [leaf.shape for leaf in leaves]


def test_a_flop_counter_counts_the_operators() -> None:
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        knn_graph(torch.randn(2, 5, 7), 3, backend="torch")
    assert counter.get_total_flops() == 2 * 2 * 5 * 5 * 7
    assert torch.ops.aurel.knn_graph in counter.get_flop_counts()["Global"]


class Layer(nn.Module):
    def __init__(self, op: Op, backend: str) -> None:
        super().__init__()
        self.op, self.backend = op, backend

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.op.call(*tensors, backend=self.backend)


@every_op
def test_an_exported_program_holds_the_operator(op: Op) -> None:
    tensors = tuple(op.tensors())
    program = torch.export.export(Layer(op, "torch"), tensors)
    assert f"aurel.{op.name}" in str(program.graph)
    for got, want in zip(program.module()(*tensors), Layer(op, "torch")(*tensors), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", ["knn_max_relative", "edge_update", "graph_attention"])
def test_a_compiled_program_holds_the_operator(name: str) -> None:
    op, graphs = OPS[name], []

    def keep(module: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(str(module.graph))
        return module.forward

    torch._dynamo.reset()
    compiled = torch.compile(Layer(op, "torch"), backend=keep, fullgraph=True)
    tensors = op.tensors()
    assert all(map(torch.equal, compiled(*tensors), Layer(op, "torch")(*tensors)))
    assert any(f"aurel.{op.name}" in graph for graph in graphs)


def test_a_compiled_definition_holds_no_operator() -> None:
    op, graphs = OPS["graph_attention"], []

    def keep(module: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(str(module.graph))
        return module.forward

    torch._dynamo.reset()
    with use_backend("definition"):
        torch.compile(Layer(op, "auto"), backend=keep, fullgraph=True)(*op.tensors())
    assert graphs and not any("aurel." in graph for graph in graphs)


def test_a_subclass_of_tensors_is_served_by_the_operator() -> None:
    class Named(Tensor):
        pass

    x = torch.randn(2, 5, 3)
    lists = knn_graph(x.as_subclass(Named), 2, backend="torch")
    assert torch.equal(lists.as_subclass(Tensor), knn_graph(x, 2, backend="torch"))

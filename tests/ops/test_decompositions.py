"""The table of definitions, for exporters that accept only torch's own operators."""

from __future__ import annotations

import torch
from helpers.operator_calls import MASK, operator_calls
from torch import Tensor, nn

from aurel.ops import knn_max_relative
from aurel.ops.decompositions import decompositions
from aurel.ops.registration import OPERATORS


def test_every_operator_without_a_gradient_of_its_own_has_a_definition() -> None:
    named = {op._schema.name.removeprefix("aurel::") for op in decompositions()}
    assert named == {name for name in OPERATORS if not name.endswith("_backward")}
    assert named == {name for name in operator_calls() if not name.endswith("_backward")}


def test_every_registered_operator_is_declared() -> None:
    registered = {
        name.removeprefix("aurel::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aurel::")
    }
    assert registered == set(OPERATORS)


def test_an_exported_program_can_be_decomposed_into_operators_of_torch() -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return knn_max_relative(x, 3, mask=MASK, backend="torch")[0]

    x = torch.randn(2, 5, 4)
    program = torch.export.export(Layer(), (x,))
    plain = program.run_decompositions(decompositions())
    assert "aurel" in str(program.graph) and "aurel" not in str(plain.graph)
    torch.testing.assert_close(plain.module()(x), Layer()(x))

"""Properties of every declared operator: schema, shapes, definition, FLOP count, capture."""

from __future__ import annotations

import pytest
import torch
from helpers.every_backend import NUMBA, every_fast_backend
from helpers.operator_calls import OperatorCall, operator_calls
from torch import Tensor

from aurel.ops.decompositions import decompositions
from aurel.ops.flop_formulas import flop_formulas
from aurel.ops.registration import OPERATORS

CALLS = operator_calls()
every_operator = pytest.mark.parametrize("name", list(OPERATORS))


def as_tuple(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else output


@every_operator
def test_opcheck(name: str) -> None:
    for call in CALLS[name]:
        torch.library.opcheck(OPERATORS[name].op, (*call.arguments, "torch"))


@every_operator
@pytest.mark.parametrize("backend", [NUMBA])
def test_kernels_keep_the_schema(name: str, backend: str) -> None:
    """No output aliases an argument or another output; shapes and dtypes are the declared ones."""
    if backend not in OPERATORS[name].kernels:
        pytest.skip(f"{name} has no {backend} kernel")
    for call in CALLS[name]:
        given = (*call.arguments, backend)
        torch.library.opcheck(
            OPERATORS[name].op, given, test_utils=("test_schema", "test_faketensor")
        )


@every_operator
@every_fast_backend
def test_an_eager_call_equals_the_operator(name: str, backend: str) -> None:
    declared = OPERATORS[name]
    for call in CALLS[name]:
        given = (*call.arguments, backend)
        leaves = [each for each in given if isinstance(each, Tensor) and each.requires_grad]
        results = []
        for call_operator in (declared, declared.op):
            outputs = as_tuple(call_operator(*given))
            smooth = [out for out in outputs if out.requires_grad]
            grads = (
                torch.autograd.grad(smooth, leaves, [*map(torch.ones_like, smooth)], True)
                if smooth
                else ()
            )
            results.append([*outputs, *grads])
        for got, want in zip(*results, strict=True):
            assert torch.equal(got, want)


@every_operator
@every_fast_backend
def test_a_definition_equals_its_operator(name: str, backend: str) -> None:
    op, table = OPERATORS[name].op, decompositions()
    if op not in table:
        assert name.endswith("_backward"), f"{name} must have a definition"
        return
    for call in CALLS[name]:
        with torch.no_grad():
            got = as_tuple(op(*call.arguments, backend))
            expected = as_tuple(table[op](*call.arguments, backend))
        assert_same_results(call, got, expected)


def assert_same_results(
    call: OperatorCall, value: tuple[Tensor, ...], expected: tuple[Tensor, ...]
) -> None:
    assert len(value) == len(expected)
    for got, want in zip(value[: call.results], expected[: call.results], strict=True):
        torch.testing.assert_close(got, want)
    assert not any(kept.numel() for kept in expected[call.results :])


@every_operator
@every_fast_backend
def test_shapes_are_those_of_the_outputs(name: str, backend: str) -> None:
    declared = OPERATORS[name]
    for call in CALLS[name]:
        meta = [each.to("meta") if isinstance(each, Tensor) else each for each in call.arguments]
        with torch.no_grad():
            expected = as_tuple(declared(*call.arguments, backend))
        for got, want in zip(as_tuple(declared.op(*meta, backend)), expected, strict=True):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            assert want.is_contiguous()


def test_an_operator_of_a_gradient_has_no_definition_and_no_flops() -> None:
    for name, declared in OPERATORS.items():
        if name.endswith("_backward"):
            assert declared.definition is declared.flops is declared.gradient is None


def test_an_operator_with_a_gradient_has_the_operator_of_it() -> None:
    for name, declared in OPERATORS.items():
        assert (declared.gradient is not None) == (f"{name}_backward" in OPERATORS)


def test_the_tables_have_all_declared_operators() -> None:
    definitions = {each.op for each in OPERATORS.values() if each.definition is not None}
    assert decompositions().keys() == definitions
    counted = {each.op.overloadpacket for each in OPERATORS.values() if each.flops is not None}
    assert flop_formulas().keys() == counted


def test_an_unknown_argument_of_a_rule_is_named() -> None:
    call = OPERATORS["neighbor_aggregate"].arguments("x", "lists", "max", False, "torch")
    assert (call.x, call.reduce) == ("x", "max")
    with pytest.raises(AttributeError, match="metric"):
        _ = call.metric

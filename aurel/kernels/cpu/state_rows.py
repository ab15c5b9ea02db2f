"""Rows of states: a number for each state of binary nodes in each sample of a vector.

Row k, of the state with number k, is the vector at ``k * lanes`` of a flat array of float64. LLVM
does not vectorize loops over so few samples, so these functions use its vectors explicitly.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from aurel.kernels.cpu.tile_products import (
    Value,
    accumulate,
    broadcast,
    lanes_of,
    load_vector,
    place_of,
    store_vector,
    vector_of,
)


class _Rows:
    """Rows of an array, from one of them on."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, kind: Any, array: Value, first: Value
    ) -> None:
        self.builder = builder
        self.vector = vector_of(context, kind)
        self.lanes = ir.Constant(first.type, lanes_of(kind))
        self.start = place_of(context, builder, kind, array, builder.mul(first, self.lanes))

    def _place(self, row: Value) -> Value:
        return self.builder.gep(self.start, [self.builder.mul(row, self.lanes)])

    def read(self, row: Value) -> Value:
        return load_vector(self.builder, self._place(row), self.vector)

    def write(self, row: Value, value: Value) -> None:
        store_vector(self.builder, value, self._place(row))


def _adder(operation: str) -> Any:
    """Compile ``function(rows, states, active, inactive, node)``.

    Combined with row `node` of `active`, the rows of `states` states become those in which one more
    node is active, which are appended; combined with row `node` of `inactive`, the others.
    """

    @intrinsic
    def append(typing_context, rows, states, active, inactive, node):
        signature = types.void(rows, states, active, inactive, node)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            rows, states, active, inactive, node = args
            kinds = signature.args
            zero = ir.Constant(states.type, 0)
            given = _Rows(context, builder, kinds[0], rows, zero)
            target = _Rows(context, builder, kinds[0], rows, states)
            if_active = _Rows(context, builder, kinds[2], active, node).read(zero)
            if_inactive = _Rows(context, builder, kinds[3], inactive, node).read(zero)
            combine = getattr(builder, operation)

            def step(row: Value, sums: list[Value]) -> list[Value]:
                value = given.read(row)
                target.write(row, combine(value, if_active))
                given.write(row, combine(value, if_inactive))
                return sums

            accumulate(builder, [], states, step)
            return context.get_dummy_value()

        return signature, generate

    return append


multiply_by_node = _adder("fmul")
add_node = _adder("fadd")


@intrinsic
def multiply_rows(typing_context, rows, states, factors):
    """Multiply the rows of states by one factor each."""
    signature = types.void(rows, states, factors)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, states, factors = args
        kinds = signature.args
        zero = ir.Constant(states.type, 0)
        target = _Rows(context, builder, kinds[0], rows, zero)
        first = place_of(context, builder, kinds[2], factors, zero)

        def step(row: Value, sums: list[Value]) -> list[Value]:
            factor = builder.load(builder.gep(first, [row]))
            value = target.read(row)
            target.write(row, builder.fmul(value, broadcast(builder, factor, value.type)))
            return sums

        accumulate(builder, [], states, step)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def fold_node(typing_context, rows, states, active, inactive, node):
    """Sum over a node: add the rows in which it is active to the `states` rows before them.

    Writes the sums of the rows, in which it is active and is not, to row `node` of two arrays.
    """
    signature = types.void(rows, states, active, inactive, node)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, states, active, inactive, node = args
        kinds = signature.args
        zero = ir.Constant(states.type, 0)
        target = _Rows(context, builder, kinds[0], rows, zero)
        others = _Rows(context, builder, kinds[0], rows, states)

        def step(row: Value, sums: list[Value]) -> list[Value]:
            off, on = target.read(row), others.read(row)
            target.write(row, builder.fadd(off, on))
            return [builder.fadd(sums[0], on), builder.fadd(sums[1], off)]

        start = [ir.Constant(target.vector, None)] * 2
        sums = accumulate(builder, start, states, step)
        _Rows(context, builder, kinds[2], active, node).write(zero, sums[0])
        _Rows(context, builder, kinds[3], inactive, node).write(zero, sums[1])
        return context.get_dummy_value()

    return signature, generate

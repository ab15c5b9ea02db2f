"""Sums over the channels of SIDE rows with SIDE others, kept in vector registers.

Every pair takes its sums in the same order, whatever its place in a tile, so equal rows have
bit-equal sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from aurel.kernels.cpu.tile_products import (
    Value,
    accumulate,
    broadcast,
    lanes_of,
    load_vector,
    multiply_add,
    place_of,
    sum_lanes,
    vector_of,
)

# As many sums as the registers hold beside the rows of one step.
SIDE = 4 if binding.get_host_cpu_features().get("avx512f", False) else 3

Term = Callable[[ir.IRBuilder, Value, Value, Value], Value]


def _square(builder: ir.IRBuilder, a: Value, b: Value, total: Value) -> Value:
    gap = builder.fsub(b, a)
    return multiply_add(builder, gap, gap, total)


def _absolute(builder: ir.IRBuilder, a: Value, b: Value, total: Value) -> Value:
    kind = a.type
    short = f"v{kind.count}f{64 if kind.element == ir.DoubleType() else 32}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind]), f"llvm.fabs.{short}"
    )
    return builder.fadd(total, builder.call(function, [builder.fsub(b, a)]))


def _product(builder: ir.IRBuilder, a: Value, b: Value, total: Value) -> Value:
    return multiply_add(builder, a, b, total)


def _masked_load(
    builder: ir.IRBuilder, pointer: Value, vector: ir.VectorType, mask: Value
) -> Value:
    """Return a vector with zeros where `mask` is not set; there, memory is not read."""
    bits = 64 if vector.element == ir.DoubleType() else 32
    place = builder.bitcast(pointer, vector.as_pointer())
    integer = ir.IntType(32)
    kind = ir.FunctionType(vector, [place.type, integer, mask.type, vector])
    name = f"llvm.masked.load.v{vector.count}f{bits}.p0v{vector.count}f{bits}"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    arguments = [place, ir.Constant(integer, bits // 8), mask, ir.Constant(vector, None)]
    return builder.call(function, arguments)


def _rows(
    context: Any,
    builder: ir.IRBuilder,
    kind: Any,
    array: Value,
    first: Value,
    count: Value,
    width: Value,
) -> list[Value]:
    """Return pointers to SIDE rows from `first` on; past the last row, to the last."""
    last = builder.sub(count, ir.Constant(count.type, 1))
    places = []
    for step in range(SIDE):
        row = builder.add(first, ir.Constant(first.type, step))
        row = builder.select(builder.icmp_signed("<", row, last), row, last)
        places.append(place_of(context, builder, kind, array, builder.mul(row, width)))
    return places


def _write_sums(
    context: Any,
    builder: ir.IRBuilder,
    term: Term,
    left: list[Value],
    right: list[Value],
    pairs: list[tuple[int, int]],
    kinds: tuple[Any, Any],
    channels: Value,
    out: Value,
) -> None:
    """Write the sums of the terms of pairs of rows to out[SIDE * a + b]."""
    kind, out_kind = kinds
    vector, lanes = vector_of(context, kind), lanes_of(kind)
    integer, small = channels.type, ir.IntType(32)

    def add(load: Callable[[Value], Value], sums: list[Value]) -> list[Value]:
        columns = [load(row) for row in right]
        rows = [load(row) for row in left]
        return [
            term(builder, rows[a], columns[b], total)
            for (a, b), total in zip(pairs, sums, strict=True)
        ]

    def step(index: Value, sums: list[Value]) -> list[Value]:
        offset = builder.mul(index, ir.Constant(integer, lanes))
        return add(lambda row: load_vector(builder, builder.gep(row, [offset]), vector), sums)

    steps = builder.sdiv(channels, ir.Constant(integer, lanes))
    zeros = [ir.Constant(vector, None)] * len(pairs)
    sums = accumulate(builder, zeros, steps, step)
    done = builder.mul(steps, ir.Constant(integer, lanes))
    rest = builder.trunc(builder.sub(channels, done), small)
    remaining = broadcast(builder, rest, ir.VectorType(small, lanes))
    places = ir.Constant(ir.VectorType(small, lanes), list(range(lanes)))
    mask = builder.icmp_signed("<", places, remaining)
    sums = add(lambda row: _masked_load(builder, builder.gep(row, [done]), vector, mask), sums)
    start = place_of(context, builder, out_kind, out, ir.Constant(integer, 0))
    zero = ir.Constant(vector.element, 0.0)
    for (a, b), total in zip(pairs, sums, strict=True):
        place = builder.gep(start, [ir.Constant(integer, SIDE * a + b)])
        builder.store(sum_lanes(builder, total, zero), place)


def _sums_intrinsic(term: Term, pairs: list[tuple[int, int]]) -> Any:
    """Return a function for the pairs (a, b) of a tile."""

    @intrinsic
    def sums(typing_context, x, i, i_end, y, j, j_end, channels, out):
        """Write to out[SIDE * a + b] the sum of the terms of row i + a of x and row j + b of y.

        Rows are numbered in the flat arrays; i_end and j_end are the ends of their graphs.
        """
        signature = types.void(x, i, i_end, y, j, j_end, channels, out)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, i, i_end, y, j, j_end, channels, out = args
            kinds = signature.args
            left = _rows(context, builder, kinds[0], x, i, i_end, channels)
            right = _rows(context, builder, kinds[3], y, j, j_end, channels)
            arrays = kinds[0], kinds[7]
            _write_sums(context, builder, term, left, right, pairs, arrays, channels, out)
            return context.get_dummy_value()

        return signature, generate

    return sums


_TERMS = _square, _absolute, _product
_ALL = [(a, b) for a in range(SIDE) for b in range(SIDE)]
_ONCE = [(a, b) for a, b in _ALL if a <= b]  # of a tile of rows with themselves

tile_squares, tile_absolutes, tile_products = (_sums_intrinsic(term, _ALL) for term in _TERMS)
triangle_squares, triangle_absolutes, triangle_products = (
    _sums_intrinsic(term, _ONCE) for term in _TERMS
)

"""Maxima over chosen rows that stay in vector registers until they are complete."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.tile_products import (
    Value,
    accumulate,
    broadcast,
    lanes_in,
    lanes_of,
    load_vector,
    load_vectors,
    place_of,
    store_vector,
    vector_of,
)

_BLOCK = 4


def _keep_larger(
    builder: ir.IRBuilder, values: list[Value], number: Value, held: list[Value]
) -> list[Value]:
    """Return the larger ones of values and those held, and, where held, the rows' numbers."""
    maxima, winners = held[: len(values)], held[len(values) :]
    larger = [
        builder.fcmp_ordered(">", value, best) for value, best in zip(values, maxima, strict=True)
    ]
    maxima = [builder.select(*each) for each in zip(larger, values, maxima, strict=True)]
    return maxima + [
        builder.select(each, number, won) for each, won in zip(larger, winners, strict=False)
    ]


def _maximum_intrinsic(vectors: int, keep: bool) -> Any:
    """Return a function for `vectors` vectors of each row; it writes winners if `keep`."""

    @intrinsic
    def maximum(typing_context, rows, count, x, start, row, node, node_at, out, out_at, winner):
        signature = types.void(rows, count, x, start, row, node, node_at, out, out_at, winner)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            rows, count, x, start, row, node, node_at, out, out_at, winner = args
            kinds = signature.args
            vector, lanes = vector_of(context, kinds[7]), lanes_of(kinds[7])
            numbers = ir.VectorType(ir.IntType(32), lanes)
            row_place = place_of(context, builder, kinds[0], rows, ir.Constant(count.type, 0))
            x_place = place_of(context, builder, kinds[2], x, start)

            def listed(index: Value) -> tuple[list[Value], Value]:
                number = builder.load(builder.gep(row_place, [index]))
                first = builder.gep(x_place, [builder.mul(number, row)])
                values = load_vectors(builder, first, vector, vectors)
                return values, broadcast(builder, builder.trunc(number, numbers.element), numbers)

            def step(index: Value, held: list[Value]) -> list[Value]:
                values, number = listed(builder.add(index, ir.Constant(index.type, 1)))
                return _keep_larger(builder, values, number, held)

            values, number = listed(ir.Constant(count.type, 0))
            held = values + [number] * vectors if keep else values
            others = builder.sub(count, ir.Constant(count.type, 1))
            held = accumulate(builder, held, others, step)

            def place(kind: Any, array: Value, at: Value, v: int) -> Value:
                offset = builder.add(at, ir.Constant(at.type, v * lanes))
                return place_of(context, builder, kind, array, offset)

            for v, best in enumerate(held[:vectors]):
                less = load_vector(builder, place(kinds[5], node, node_at, v), vector)
                store_vector(builder, builder.fsub(best, less), place(kinds[7], out, out_at, v))
            for v, won in enumerate(held[vectors:]):
                short = ir.VectorType(context.get_value_type(kinds[9].dtype), lanes)
                written = builder.trunc(won, short) if short.element.width < 32 else won
                at = place(kinds[9], winner, out_at, v)
                builder.store(written, builder.bitcast(at, short.as_pointer()), align=1)
            return context.get_dummy_value()

        return signature, generate

    return maximum


_block, _vector = (_maximum_intrinsic(vectors, False) for vectors in (2 * _BLOCK, 1))
_block_and_winners, _vector_and_winners = (
    _maximum_intrinsic(vectors, True) for vectors in (_BLOCK, 1)
)


@uncounted
def any_maximum(rows, count, x, base, channels, first, node, node_at, keep, out, out_row, winner):
    """Write what `maximum` does, from channel `first` on; rows may hold NaN, the largest value."""
    at = out_row * channels
    for c in range(first, channels):
        won = rows[0]
        best = x[base + won * channels + c]
        for s in range(1, count):
            value = x[base + rows[s] * channels + c]
            larger = value > best or (value != value and best == best)
            won = rows[s] if larger else won
            best = value if larger else best
        out[at + c] = best - node[node_at + c]
        if keep:
            winner[at + c] = won


@uncounted
def maximum(rows, count, x, base, channels, node, node_at, keep, out, out_row, winner):
    """Write the maximum of finite rows, less a row of `node`, and the first winners if `keep`.

    Args:
        rows, count: numbers of the rows, at least one.
        x, base: the rows, flat, and the place of the first.
        node, node_at: flat, and the place of its row.
        keep: write the winners.
        out, out_row, winner: written, flat, and the number of their row.
    """
    lanes = lanes_in(x)
    at = out_row * channels
    c = 0
    if keep:
        while c + lanes * _BLOCK <= channels:
            _block_and_winners(
                rows, count, x, base + c, channels, node, node_at + c, out, at + c, winner
            )
            c += lanes * _BLOCK
        while c + lanes <= channels:
            _vector_and_winners(
                rows, count, x, base + c, channels, node, node_at + c, out, at + c, winner
            )
            c += lanes
    else:
        while c + 2 * lanes * _BLOCK <= channels:
            _block(rows, count, x, base + c, channels, node, node_at + c, out, at + c, winner)
            c += 2 * lanes * _BLOCK
        while c + lanes <= channels:
            _vector(rows, count, x, base + c, channels, node, node_at + c, out, at + c, winner)
            c += lanes
    any_maximum(rows, count, x, base, channels, c, node, node_at, keep, out, out_row, winner)

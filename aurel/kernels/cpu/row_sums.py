"""Sums over chosen rows that stay in vector registers until they are complete."""

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
    lanes_of,
    load_vector,
    load_vectors,
    multiply_add,
    place_of,
    store_vector,
    sum_lanes,
    vector_of,
)

_VECTORS = 8
_ROWS = 4


def _sum_intrinsic(vectors: int) -> Any:
    """Return a function that sums `vectors` vectors of each row."""

    @intrinsic
    def weighted_sum(  # type: ignore[no-untyped-def]
        typing_context, weights, rows, count, x, start, row, scale, out, out_at
    ):
        signature = types.void(weights, rows, count, x, start, row, scale, out, out_at)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weights, rows, count, x, start, row, scale, out, out_at = args
            kinds = signature.args
            vector, lanes = vector_of(context, kinds[7]), lanes_of(kinds[7])
            zero = ir.Constant(count.type, 0)
            weight_place = place_of(context, builder, kinds[0], weights, zero)
            row_place = place_of(context, builder, kinds[1], rows, zero)
            place = place_of(context, builder, kinds[3], x, start)

            def step(index: Value, sums: list[Value]) -> list[Value]:
                weight = builder.load(builder.gep(weight_place, [index]))
                factor = broadcast(builder, weight, vector)
                number = builder.load(builder.gep(row_place, [index]))
                first = builder.gep(place, [builder.mul(number, row)])
                values = load_vectors(builder, first, vector, vectors)
                return [
                    multiply_add(builder, factor, value, held)
                    for value, held in zip(values, sums, strict=True)
                ]

            sums = accumulate(builder, [ir.Constant(vector, None)] * vectors, count, step)
            common = broadcast(builder, scale, vector)
            for v, total in enumerate(sums):
                offset = builder.add(out_at, ir.Constant(out_at.type, v * lanes))
                place = place_of(context, builder, kinds[7], out, offset)
                store_vector(builder, builder.fmul(total, common), place)
            return context.get_dummy_value()

        return signature, generate

    return weighted_sum


_sum_block = _sum_intrinsic(_VECTORS)
_sum_vector = _sum_intrinsic(1)


@uncounted
def sum_rows(weights, rows, count, x, first, channels, lanes, scale, out, out_row):
    """Write the weighted sum of `count` rows of x, numbered from `first` on, into a row of out.

    `scale`, in the dtype of x, multiplies the sum.
    """
    start, at = first * channels, out_row * channels
    c = 0
    while c + lanes * _VECTORS <= channels:
        _sum_block(weights, rows, count, x, start + c, channels, scale, out, at + c)
        c += lanes * _VECTORS
    while c + lanes <= channels:
        _sum_vector(weights, rows, count, x, start + c, channels, scale, out, at + c)
        c += lanes
    while c < channels:
        total = out.dtype.type(0)
        for n in range(count):
            total += weights[n] * x[start + rows[n] * channels + c]
        out[at + c] = total * scale
        c += 1


@intrinsic
def _four_products(  # type: ignore[no-untyped-def]
    typing_context, x, x_at, rows, first, y, start, row, steps, out
):
    """Write to out[first : first + 4] the products of `steps` vectors of x with rows of y."""
    signature = types.void(x, x_at, rows, first, y, start, row, steps, out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, x_at, rows, first, y, start, row, steps, out = args
        kinds = signature.args
        vector, lanes = vector_of(context, kinds[8]), lanes_of(kinds[8])
        place = place_of(context, builder, kinds[0], x, x_at)
        y_place = place_of(context, builder, kinds[4], y, start)
        chosen = place_of(context, builder, kinds[2], rows, first)
        numbers = [
            builder.load(builder.gep(chosen, [ir.Constant(first.type, r)])) for r in range(_ROWS)
        ]
        others = [builder.gep(y_place, [builder.mul(number, row)]) for number in numbers]

        def step(index: Value, sums: list[Value]) -> list[Value]:
            offset = builder.mul(index, ir.Constant(index.type, lanes))
            held = load_vector(builder, builder.gep(place, [offset]), vector)
            return [
                multiply_add(
                    builder, held, load_vector(builder, builder.gep(other, [offset]), vector), total
                )
                for other, total in zip(others, sums, strict=True)
            ]

        sums = accumulate(builder, [ir.Constant(vector, None)] * _ROWS, steps, step)
        target = place_of(context, builder, kinds[8], out, first)
        for r, total in enumerate(sums):
            zero = ir.Constant(vector.element, 0.0)
            builder.store(
                sum_lanes(builder, total, zero),
                builder.gep(target, [ir.Constant(first.type, r)]),
            )
        return context.get_dummy_value()

    return signature, generate


@uncounted
def multiply_rows_of(x, row, rows, count, y, first, channels, lanes, out):
    """Write the products of a row of x with `count` chosen rows of y, numbered from `first` on.

    `rows` and `out` have a multiple of four places, all of which hold row numbers.
    """
    at, start, steps = row * channels, first * channels, channels // lanes
    for n in range(0, count, _ROWS):
        _four_products(x, at, rows, n, y, start, channels, steps, out)
    if steps * lanes < channels:
        for n in range(count):
            total = out.dtype.type(0)
            for c in range(steps * lanes, channels):
                total += x[at + c] * y[start + rows[n] * channels + c]
            out[n] += total

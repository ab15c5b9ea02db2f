"""Matrix products of small tiles whose sums stay in vector registers.

LLVM does not block loops over matrices, so these kernels use its vectors explicitly; for a CPU with
narrower vectors it splits them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from aurel.kernels.cpu.compiler import uncounted

_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))

VECTOR_BYTES = 64 if _WIDE else 32
# As many sums as the registers hold beside the operands of one step.
ROWS, VECTORS = (7, 3) if _WIDE else (4, 3)
SIDE = 5 if _WIDE else 3

Value = ir.Value


def place_of(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: Value, at: Value
) -> Value:
    """Return the pointer to an element of a flat array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [at])


def lanes_of(array_type: Any) -> int:
    return VECTOR_BYTES * 8 // int(array_type.dtype.bitwidth)


@uncounted
def lanes_in(x):
    """Return how many elements of an array a vector holds."""
    return VECTOR_BYTES // x.itemsize


def vector_of(context: Any, array_type: Any) -> ir.VectorType:
    return ir.VectorType(context.get_value_type(array_type.dtype), lanes_of(array_type))


def load_vector(builder: ir.IRBuilder, pointer: Value, vector: ir.VectorType) -> Value:
    size = 8 if vector.element == ir.DoubleType() else 4
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size)


def load_vectors(
    builder: ir.IRBuilder, pointer: Value, vector: ir.VectorType, count: int
) -> list[Value]:
    """Return `count` vectors, one after the other in memory."""
    places = [ir.Constant(ir.IntType(64), v * vector.count) for v in range(count)]
    return [load_vector(builder, builder.gep(pointer, [place]), vector) for place in places]


def store_vector(builder: ir.IRBuilder, value: Value, pointer: Value) -> None:
    size = 8 if value.type.element == ir.DoubleType() else 4
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=size)


def broadcast(builder: ir.IRBuilder, scalar: Value, vector: ir.VectorType) -> Value:
    """Return a vector that holds `scalar` in all lanes."""
    index = ir.Constant(ir.IntType(32), 0)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, index)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(single, single, zeros)


def multiply_add(builder: ir.IRBuilder, a: Value, b: Value, c: Value) -> Value:
    """Return a b + c, rounded once where the CPU can."""
    kind = a.type
    short = f"v{kind.count}f{64 if kind.element == ir.DoubleType() else 32}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.{short}"
    )
    return builder.call(function, [a, b, c])


def accumulate(
    builder: ir.IRBuilder,
    sums: list[Value],
    steps: Value,
    step: Callable[[Value, list[Value]], list[Value]],
) -> list[Value]:
    """Return the sums after `steps` calls of `step`, as a loop in which they stay in registers."""
    before = builder.block
    body, after = builder.append_basic_block("sum"), builder.append_basic_block("summed")
    zero, one = ir.Constant(steps.type, 0), ir.Constant(steps.type, 1)
    builder.cbranch(builder.icmp_signed(">", steps, zero), body, after)
    builder.position_at_end(body)
    index = builder.phi(steps.type)
    states = [builder.phi(value.type) for value in sums]
    updated = step(index, states)
    following = builder.add(index, one)
    for phi, first, value in zip(
        [index, *states], [zero, *sums], [following, *updated], strict=True
    ):
        phi.add_incoming(first, before)
        phi.add_incoming(value, builder.block)
    last = builder.block
    builder.cbranch(builder.icmp_signed("<", following, steps), body, after)
    builder.position_at_end(after)
    results = []
    for first, value in zip(sums, updated, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(first, before)
        phi.add_incoming(value, last)
        results.append(phi)
    return results


@intrinsic
def add_tile_product(  # type: ignore[no-untyped-def]
    typing_context, a, a_at, a_row, b, b_at, b_row, c, c_at, c_row, steps, clear
):
    """Add to a tile of c, or set it to, the product of ROWS rows of a and VECTORS vectors of b.

    a, b and c are flat; a tile starts at ``_at``, its next row ``_row`` places further. The product
    sums over `steps` columns of a, and rows of b.
    """
    signature = types.void(a, a_at, a_row, b, b_at, b_row, c, c_at, c_row, steps, clear)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, a_at, a_row, b, b_at, b_row, c, c_at, c_row, steps, clear = args
        kinds = signature.args
        vector, lanes = vector_of(context, kinds[6]), lanes_of(kinds[6])
        at = place_of(context, builder, kinds[0], a, a_at)
        b_place = place_of(context, builder, kinds[3], b, b_at)
        integer = steps.type
        scalars = [
            builder.gep(at, [builder.mul(a_row, ir.Constant(integer, row))]) for row in range(ROWS)
        ]
        places = []
        for row in range(ROWS):
            offset = builder.add(c_at, builder.mul(c_row, ir.Constant(integer, row)))
            start = place_of(context, builder, kinds[6], c, offset)
            places += [
                builder.gep(start, [ir.Constant(integer, v * lanes)]) for v in range(VECTORS)
            ]
        keep = builder.not_(clear)
        sums = []
        with builder.if_else(keep) as (then, otherwise):
            with then:
                held = [load_vector(builder, place, vector) for place in places]
                loaded = builder.block
            with otherwise:
                cleared = builder.block
        for value in held:
            phi = builder.phi(vector)
            phi.add_incoming(value, loaded)
            phi.add_incoming(ir.Constant(vector, None), cleared)
            sums.append(phi)

        def step(index: Value, sums: list[Value]) -> list[Value]:
            start = builder.gep(b_place, [builder.mul(b_row, index)])
            columns = [
                load_vector(builder, builder.gep(start, [ir.Constant(integer, v * lanes)]), vector)
                for v in range(VECTORS)
            ]
            updated = []
            for row, scalar in enumerate(scalars):
                factor = broadcast(builder, builder.load(builder.gep(scalar, [index])), vector)
                for v, column in enumerate(columns):
                    held = sums[row * VECTORS + v]
                    updated.append(multiply_add(builder, factor, column, held))
            return updated

        for value, place in zip(accumulate(builder, sums, steps, step), places, strict=True):
            store_vector(builder, value, place)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_row_products(  # type: ignore[no-untyped-def]
    typing_context, a, a_at, a_row, b, b_at, b_row, c, c_at, c_row, steps
):
    """Add to a tile of c the products of SIDE rows of a with SIDE rows of b.

    They sum over the `steps` vectors of a row. All arrays are flat, as for `add_tile_product`.
    """
    signature = types.void(a, a_at, a_row, b, b_at, b_row, c, c_at, c_row, steps)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, a_at, a_row, b, b_at, b_row, c, c_at, c_row, steps = args
        kinds = signature.args
        vector, lanes = vector_of(context, kinds[6]), lanes_of(kinds[6])
        integer = steps.type

        def rows(kind: Any, array: Value, at: Value, stride: Value) -> list[Value]:
            return [
                place_of(
                    context,
                    builder,
                    kind,
                    array,
                    builder.add(at, builder.mul(stride, ir.Constant(integer, row))),
                )
                for row in range(SIDE)
            ]

        left, right = rows(kinds[0], a, a_at, a_row), rows(kinds[3], b, b_at, b_row)
        starts = rows(kinds[6], c, c_at, c_row)

        def step(index: Value, sums: list[Value]) -> list[Value]:
            offset = builder.mul(index, ir.Constant(integer, lanes))
            columns = [load_vector(builder, builder.gep(row, [offset]), vector) for row in right]
            updated = []
            for i, row in enumerate(left):
                factor = load_vector(builder, builder.gep(row, [offset]), vector)
                for j, column in enumerate(columns):
                    updated.append(multiply_add(builder, factor, column, sums[i * SIDE + j]))
            return updated

        sums = accumulate(builder, [ir.Constant(vector, None)] * SIDE**2, steps, step)
        for i, start in enumerate(starts):
            for j in range(SIDE):
                place = builder.gep(start, [ir.Constant(integer, j)])
                total = sum_lanes(builder, sums[i * SIDE + j], builder.load(place))
                builder.store(total, place)
        return context.get_dummy_value()

    return signature, generate


def sum_lanes(builder: ir.IRBuilder, vector: Value, start: Value) -> Value:
    """Return the sum of all lanes, added to `start`."""
    kind = vector.type
    short = f"v{kind.count}f{64 if kind.element == ir.DoubleType() else 32}"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind.element, [kind.element, kind]),
        f"llvm.vector.reduce.fadd.{short}",
    )
    return builder.call(function, [start, vector], fastmath=("reassoc",))

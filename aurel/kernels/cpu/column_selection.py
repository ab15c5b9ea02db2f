"""Choice of the smallest scores of several rows at once, one in each lane of a vector.

The scores of one source are a column, or, since the sums of a graph with itself are symmetric, a
row of the sums. Each column is inserted into the sorted lists of all rows, without a branch that
depends on the scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.scores import COSINE, DOT, cosine_score
from aurel.kernels.cpu.tile_products import (
    Value,
    accumulate,
    broadcast,
    lanes_in,
    lanes_of,
    load_vector,
    place_of,
    vector_of,
)


class _Lists:
    """Sorted lists in two arrays: slot s of all lists is a vector of scores, and one of sources."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, kinds: list[Any], arrays: list[Value]
    ) -> None:
        self.builder = builder
        zero = ir.Constant(ir.IntType(64), 0)
        self.starts = [
            place_of(context, builder, kind, array, zero)
            for kind, array in zip(kinds, arrays, strict=True)
        ]
        self.lanes = lanes_of(kinds[0])
        self.vectors = [vector_of(context, kinds[0]), ir.VectorType(ir.IntType(32), self.lanes)]

    def _places(self, slot: Value) -> list[Value]:
        first = self.builder.mul(slot, ir.Constant(slot.type, self.lanes))
        return [
            self.builder.bitcast(self.builder.gep(start, [first]), vector.as_pointer())
            for start, vector in zip(self.starts, self.vectors, strict=True)
        ]

    def read(self, slot: Value) -> list[Value]:
        """Return scores and sources of a slot."""
        return [self.builder.load(place, align=4) for place in self._places(slot)]

    def write(self, slot: Value, smaller: Value, new: list[Value], old: list[Value]) -> None:
        """Write to a slot what is new where `smaller` holds."""
        for place, inserted, kept in zip(self._places(slot), new, old, strict=True):
            self.builder.store(self.builder.select(smaller, inserted, kept), place, align=4)


def _insert_into(builder: ir.IRBuilder, lists: _Lists, rank: Value, new: list[Value]) -> None:
    """Insert a vector of scores and sources, from the last slot to the first."""
    one, zero = ir.Constant(rank.type, 1), ir.Constant(rank.type, 0)
    last = builder.sub(rank, one)

    def step(index: Value, old: list[Value]) -> list[Value]:
        slot = builder.sub(last, index)
        nearer = lists.read(builder.sub(slot, one))
        shifted = builder.fcmp_ordered("<", new[0], nearer[0])
        inserted = [builder.select(shifted, *each) for each in zip(nearer, new, strict=True)]
        lists.write(slot, builder.fcmp_ordered("<", new[0], old[0]), inserted, old)
        return nearer

    old = accumulate(builder, lists.read(last), last, step)
    lists.write(zero, builder.fcmp_ordered("<", new[0], old[0]), new, old)


@intrinsic
def _insert(typing_context, scores, at, lane, number, rank, best, chosen):
    """Insert the scores of source `number`, a vector from scores[at] on, into sorted lists.

    A score goes before larger ones, to `best`, and the number to `chosen`. NaN, and the score in
    `lane`, are left out.
    """
    signature = types.void(scores, at, lane, number, rank, best, chosen)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scores, at, lane, number, rank, best, chosen = args
        kinds = signature.args
        vector = vector_of(context, kinds[0])
        small = ir.IntType(32)
        numbers = ir.VectorType(small, vector.count)
        score = load_vector(builder, place_of(context, builder, kinds[0], scores, at), vector)
        own = builder.icmp_signed(
            "==",
            broadcast(builder, builder.trunc(lane, small), numbers),
            ir.Constant(numbers, list(range(vector.count))),
        )
        left_out = builder.or_(own, builder.fcmp_unordered("uno", score, score))
        infinite = ir.Constant(vector, [float("inf")] * vector.count)
        score = builder.select(left_out, infinite, score)
        source = broadcast(builder, builder.trunc(number, small), numbers)
        lists = _Lists(context, builder, [kinds[5], kinds[6]], [best, chosen])
        _insert_into(builder, lists, rank, [score, source])
        return context.get_dummy_value()

    return signature, generate


@uncounted
def choose_in_columns(
    sums, row, nodes, metric, squares, valid, first, loop, rank, column, best, chosen
):
    """Write the `rank` smallest scores of the rows from `row` on, and their sources.

    Lane l of slot s, place ``s * lanes + l``, is of row ``row + l``. NaN is left out and scores of
    +inf, too: rows with too few others have +inf in their last slot.

    Args:
        sums: of all pairs of nodes of one graph; its rows are padded to a multiple of the lanes.
        row, nodes: first row, and number of nodes.
        metric, squares: of the sums; for the cosine, |s_j|^2 from index `first` on.
        valid, first: which sources exist, and the index of the first; an empty array for all.
        loop: a node may be its own neighbor.
        rank: sources to choose.
        column: scratch, for one vector.
        best, chosen: written, flat; `rank` vectors.
    """
    lanes = lanes_in(sums)
    width = sums.shape[1]
    flat = sums.reshape(-1)
    tiny = sums.dtype.type(1e-30)
    for place in range(rank * lanes):
        best[place] = np.inf
        chosen[place] = -1
    for j in range(nodes):
        if valid.size > 0 and not valid[first + j]:
            continue
        lane = -1 if loop else j - row
        if metric in (COSINE, DOT):
            q = max(squares[first + j], tiny) if metric == COSINE else tiny
            for c in range(lanes):
                s = flat[j * width + row + c]
                column[c] = cosine_score(s, q) if metric == COSINE else -s
            _insert(column, 0, lane, j, rank, best, chosen)
        else:
            _insert(flat, j * width + row, lane, j, rank, best, chosen)

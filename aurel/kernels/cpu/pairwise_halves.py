"""States of N binary nodes as pairs of a state a of N // 2 nodes and a state b of the others.

The weight of a state is l_a W_ba h_b: exponentials of the fields of either half, and of the
couplings. The table W, (2^H, 2^L) in the order of the numbers of states, serves all samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.cpu.arrays import Array, flags, flat, narrow
from aurel.kernels.cpu.chain_steps import fold
from aurel.kernels.cpu.compiler import kernel, uncounted


@kernel
def coupling_products(couplings, nodes, out):
    """Write products of exp(J_ij) over active pairs, for all states; return the sum of |J| / 2."""
    span = 0.0
    out[0] = 1.0
    for i in range(nodes):
        half = 1 << i
        given = out[:half]
        target = out[half:][:half]
        target[0] = 1.0
        for j in range(i):
            width = 1 << j
            one = np.float64(couplings[i * nodes + j]) / 2
            other = np.float64(couplings[j * nodes + i]) / 2
            span += abs(one) + abs(other)
            factor = math.exp(one + other)
            for k in range(width):
                target[width + k] = target[k] * factor
        for k in range(half):
            target[k] *= given[k]
    return span


@uncounted
def fields_of(sample, model, out):
    """Copy the fields of a sample, -inf of absent nodes; return the range of its exponents."""
    fields, valid, _, nodes, span = model
    for i in range(nodes):
        at = sample * nodes + i
        if valid.size > 0 and not valid[at]:
            out[i] = -np.inf
        else:
            out[i] = fields[at]
            span += abs(fields[at])
    return span


@uncounted
def multiply(table, low, high, low_sums, high_sums):
    """Write the sums of W h for each a, and those of W l for each b, two of them at once."""
    width = low.size
    low_sums[:] = 0.0
    for b in range(0, high.size, 2):
        row = table[b * width :][:width]
        next_row = table[(b + 1) * width :][:width]
        weight, next_weight = high[b], high[b + 1]
        total = next_total = 0.0
        for a in range(width):
            total += row[a] * low[a]
            next_total += next_row[a] * low[a]
            low_sums[a] += row[a] * weight + next_row[a] * next_weight
        high_sums[b] = total
        high_sums[b + 1] = next_total


@uncounted
def halves_of_pairs(values, nodes, sums, out):
    """Write half of the sums of `values` over the states in which two nodes are active, (N, N)."""
    for i in range(nodes - 1, -1, -1):
        half = 1 << i
        inactive = values[:half]
        active = values[half:][:half]
        for k in range(half):
            inactive[k] += active[k]
        fold(active, i, sums)
        out[i * nodes + i] = 0.0
        for j in range(i):
            out[i * nodes + j] = out[j * nodes + i] = sums[j] / 2


def model_of(fields: Tensor, couplings: Tensor, mask: Tensor | None) -> tuple[Any, ...]:
    """Return what `fields_of` takes, with the table W."""
    nodes = fields.shape[1]
    table: Array = np.empty(2**nodes)
    span = coupling_products(flat(couplings), nodes, table)
    return flat(fields), flags(mask), table, nodes, span


def wide_array(tensor: Tensor) -> Array:
    """Return the elements of a tensor as a flat array of float64."""
    return flat(tensor).astype(np.float64, copy=False)


def tensor_of(array: Array, like: Tensor) -> Tensor:
    """Return an array as a tensor in the dtype of `like`."""
    if array.dtype == np.float64 and like.dtype == torch.float32:
        array = array.astype(np.float32)  # half the host time of Tensor.to
    return narrow(torch.from_numpy(array), like)

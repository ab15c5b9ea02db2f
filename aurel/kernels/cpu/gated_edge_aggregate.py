"""Sum of all nodes' values, gated channel by channel by the edges; no gate is kept in memory."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import flags, flat, narrow, result
from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.reduce import fill
from aurel.kernels.cpu.rows import row_part
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.vector_math import exp_of_unit, prefer_wide_vectors, sigmoid

_BLOCK = 128  # channels computed together, so that the gates of one target stay in the cache
_WORK = 8  # operations for each channel of an edge


@ranged
def _aggregate(start, stop, edge, values, mask, nodes, channels, out):
    """Write the sums of some blocks of channels."""
    prefer_wide_vectors()
    total = np.empty(_BLOCK, values.dtype)
    sums = np.empty(_BLOCK, values.dtype)
    blocks = (channels + _BLOCK - 1) // _BLOCK
    for part in range(start, stop):
        target, first = part // blocks, part % blocks * _BLOCK
        width = min(_BLOCK, channels - first)
        total[:] = 0
        sums[:] = 0
        graph = target // nodes * nodes
        if mask.size == 0 or mask[target]:
            for j in range(nodes):
                if mask.size > 0 and not mask[graph + j]:
                    continue
                e = row_part(edge, target * nodes + j, channels, first, width)
                v = row_part(values, graph + j, channels, first, width)
                for c in range(width):
                    weight = exp_of_unit(sigmoid(e[c]))
                    total[c] += weight
                    sums[c] += weight * v[c]
        else:
            total[:] = 1
        o = row_part(out, target, channels, first, width)
        for c in range(width):
            o[c] = sums[c] / total[c]


@uncounted
def _gates(edge, mask, target, graph, first, width, nodes, channels, gate, weight):
    """Fill the gates and weights of the edges of one target, _BLOCK places an edge."""
    for j in range(nodes):
        if mask.size > 0 and not mask[graph + j]:
            continue
        e = edge[(target * nodes + j) * channels + first :][:width]
        g, w = gate[j * _BLOCK :][:width], weight[j * _BLOCK :][:width]
        # Loops over few arrays: LLVM vectorizes them only where it is certain that none overlap.
        for c in range(width):
            g[c] = sigmoid(e[c])
        for c in range(width):
            w[c] = exp_of_unit(g[c])


@uncounted
def _average(values, mask, graph, first, width, nodes, channels, weight, total, mean):
    """Write the sum of the weights of one target, and the mean of the values that they give."""
    fill(total, 0)
    fill(mean, 0)
    for j in range(nodes):
        if mask.size > 0 and not mask[graph + j]:
            continue
        v = values[(graph + j) * channels + first :][:width]
        w = weight[j * _BLOCK :][:width]
        for c in range(width):
            total[c] += w[c]
            mean[c] += w[c] * v[c]
    for c in range(width):
        mean[c] /= total[c]


@uncounted
def _differentiate_block(graph, first, graphs, grads, scratch):
    """Write the gradients of one block of channels of one graph."""
    grad_out, edge, values, mask, nodes, channels = graphs
    grad_edge, grad_values = grads
    gate, weight, total, mean = scratch
    width = min(_BLOCK, channels - first)
    for j in range(nodes):
        fill(grad_values[(graph + j) * channels + first :][:width], 0)
    for target in range(graph, graph + nodes):
        present = mask.size == 0 or mask[target]
        if present:
            _gates(edge, mask, target, graph, first, width, nodes, channels, gate, weight)
            _average(values, mask, graph, first, width, nodes, channels, weight, total, mean)
            o = grad_out[target * channels + first :][:width]
            for c in range(width):
                total[c] = o[c] / total[c]
        for j in range(nodes):
            e = grad_edge[(target * nodes + j) * channels + first :][:width]
            if not present or (mask.size > 0 and not mask[graph + j]):
                fill(e, 0)
                continue
            v = values[(graph + j) * channels + first :][:width]
            grad = grad_values[(graph + j) * channels + first :][:width]
            g, w = gate[j * _BLOCK :][:width], weight[j * _BLOCK :][:width]
            for c in range(width):
                w[c] *= total[c]
                grad[c] += w[c]
            for c in range(width):
                e[c] = w[c] * (v[c] - mean[c]) * (g[c] - g[c] * g[c])


@ranged
def _differentiate(start, stop, graphs, grads):
    """Write the gradients of some blocks of channels of some graphs."""
    prefer_wide_vectors()
    _, _, values, _, nodes, channels = graphs
    # Separate arrays: LLVM does not vectorize loops over parts of one array.
    gate = np.empty(nodes * _BLOCK, values.dtype)
    weight = np.empty(nodes * _BLOCK, values.dtype)
    total = np.empty(_BLOCK, values.dtype)
    mean = np.empty(_BLOCK, values.dtype)
    scratch = (gate, weight, total, mean)
    blocks = (channels + _BLOCK - 1) // _BLOCK
    for part in range(start, stop):
        graph, first = part // blocks * nodes, part % blocks * _BLOCK
        _differentiate_block(graph, first, graphs, grads, scratch)


def forward(edge: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the gated sums, (B, N, C), in the dtype of values; zeros for absent targets."""
    batch, nodes, channels = values.shape
    out = result(values, batch, nodes, channels)
    run(
        _aggregate,
        batch * nodes * -(-channels // _BLOCK),
        _WORK * edge.numel(),
        flat(edge),
        flat(values),
        flags(mask),
        nodes,
        channels,
        flat(out),
    )
    return narrow(out, values)


def backward(
    grad_out: Tensor, edge: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of edge and values; zeros where a node is absent."""
    batch, nodes, channels = values.shape
    grad_edge, grad_values = result(edge, *edge.shape), result(values, *values.shape)
    run(
        _differentiate,
        batch * -(-channels // _BLOCK),
        2 * _WORK * edge.numel(),
        (flat(grad_out), flat(edge), flat(values), flags(mask), nodes, channels),
        (flat(grad_edge), flat(grad_values)),
    )
    return narrow(grad_edge, edge), narrow(grad_values, values)

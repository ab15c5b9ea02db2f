"""Update of edges from their ends, normalized pair by pair.

The update u is computed again wherever it is needed. Statistics are means and sums of squares about
them, row by row, which are then joined in the order of the images.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import flags, flat, narrow, result
from aurel.kernels.cpu.compiler import kernel
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.rows import row_part
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.vector_math import prefer_wide_vectors

_BLOCK = 128  # channels whose gradients of targets and sources are summed together


@kernel
def _present(mask, target, source):
    return mask.size == 0 or (mask[target] and mask[source])


@kernel
def _fill_update(projected, target, source, update):
    for c in range(update.size):
        update[c] = projected[c] + target[c] + source[c]


@ranged
def _measure(start, stop, projected, target, source, mask, nodes, channels, means, squares):
    """Write mean, and sum of squares about it, of the update of each pair of some targets."""
    prefer_wide_vectors()
    update = np.empty(channels, means.dtype)
    size = means.dtype.type(max(channels, 1))
    for i in range(start, stop):
        for j in range(nodes):
            pair, from_node = i * nodes + j, i // nodes * nodes + j
            if not _present(mask, i, from_node):
                continue
            p = row_part(projected, pair, channels, 0, channels)
            t = row_part(target, i, channels, 0, channels)
            s = row_part(source, from_node, channels, 0, channels)
            _fill_update(p, t, s, update)
            total = means.dtype.type(0)
            for c in range(channels):
                total += update[c]
            mean = total / size
            total = means.dtype.type(0)
            for c in range(channels):
                total += (update[c] - mean) * (update[c] - mean)
            means[pair] = mean
            squares[pair] = total


@kernel
def _join(means, squares, mask, batch, nodes, channels, mean, var):
    """Write mean and biased variance of each pair over the images that have it; zero for none."""
    zero = means.dtype.type(0)
    for i in range(nodes):
        for j in range(nodes):
            images = 0
            center = zero
            for b in range(batch):
                if _present(mask, b * nodes + i, b * nodes + j):
                    images += 1
                    center += means[(b * nodes + i) * nodes + j]
            count = max(images, 1)
            center /= count
            total = zero
            for b in range(batch):
                if _present(mask, b * nodes + i, b * nodes + j):
                    pair = (b * nodes + i) * nodes + j
                    gap = means[pair] - center
                    total += squares[pair] + channels * gap * gap
            mean[i * nodes + j] = center
            var[i * nodes + j] = total / (count * channels)


@ranged
def _normalize(
    start, stop, edges, projected, target, source, mask, nodes, channels, mean, scale, bias, out
):
    """Write the new edges of some targets."""
    prefer_wide_vectors()
    for i in range(start, stop):
        for j in range(nodes):
            pair, from_node = i * nodes + j, i // nodes * nodes + j
            o = row_part(out, pair, channels, 0, channels)
            if not _present(mask, i, from_node):
                o[:] = 0
                continue
            e = row_part(edges, pair, channels, 0, channels)
            p = row_part(projected, pair, channels, 0, channels)
            t = row_part(target, i, channels, 0, channels)
            s = row_part(source, from_node, channels, 0, channels)
            at = i % nodes * nodes + j
            m, a, b = mean[at], scale[at], bias[at]
            for c in range(channels):
                new = (p[c] + t[c] + s[c] - m) * a + b
                o[c] = e[c] + (out.dtype.type(0) if new <= 0 else new)


@ranged
def _sum_gradients(
    start,
    stop,
    grad_out,
    projected,
    target,
    source,
    mask,
    nodes,
    channels,
    mean,
    scale,
    bias,
    sums,
    products,
):
    """Write, for each pair of some targets, the sum of the gradient and of it times u - mean."""
    prefer_wide_vectors()
    for i in range(start, stop):
        for j in range(nodes):
            pair, from_node = i * nodes + j, i // nodes * nodes + j
            total = sums.dtype.type(0)
            product = sums.dtype.type(0)
            if _present(mask, i, from_node):
                g = row_part(grad_out, pair, channels, 0, channels)
                p = row_part(projected, pair, channels, 0, channels)
                t = row_part(target, i, channels, 0, channels)
                s = row_part(source, from_node, channels, 0, channels)
                at = i % nodes * nodes + j
                m, a, b = mean[at], scale[at], bias[at]
                for c in range(channels):
                    gap = p[c] + t[c] + s[c] - m
                    grad = sums.dtype.type(0) if gap * a + b <= 0 else g[c]
                    total += grad
                    product += grad * gap
            sums[pair] = total
            products[pair] = product


@kernel
def _join_gradients(
    sums, products, mask, batch, nodes, channels, scale, deviation, given, grads, shares
):
    """Write the gradients of weight and bias, and those through mean and variance."""
    zero = sums.dtype.type(0)
    for i in range(nodes):
        for j in range(nodes):
            at = i * nodes + j
            images = 0
            total = zero
            product = zero
            for b in range(batch):
                pair = (b * nodes + i) * nodes + j
                images += _present(mask, b * nodes + i, b * nodes + j)
                total += sums[pair]
                product += products[pair]
            product *= deviation[at]
            grads[0, at] = product
            grads[1, at] = total
            shares[0, at] = zero
            shares[1, at] = zero
            if not given:
                share = scale[at] / (max(images, 1) * channels)
                shares[0, at] = share * total
                shares[1, at] = share * product * deviation[at]


@ranged
def _differentiate(
    start,
    stop,
    grad_out,
    projected,
    target,
    source,
    mask,
    nodes,
    channels,
    mean,
    scale,
    bias,
    shares,
    grad_update,
    grad_target,
    grad_source,
):
    """Write the gradients of u, targets and sources, for some blocks of channels of some graphs."""
    prefer_wide_vectors()
    blocks = (channels + _BLOCK - 1) // _BLOCK
    for part in range(start, stop):
        graph, first = part // blocks * nodes, part % blocks * _BLOCK
        width = min(_BLOCK, channels - first)
        for j in range(nodes):
            row_part(grad_target, graph + j, channels, first, width)[:] = 0
            row_part(grad_source, graph + j, channels, first, width)[:] = 0
        for pair in range(nodes * nodes):
            i, j = graph + pair // nodes, graph + pair % nodes
            u = row_part(grad_update, graph * nodes + pair, channels, first, width)
            if not _present(mask, i, j):
                u[:] = 0
                continue
            g = row_part(grad_out, graph * nodes + pair, channels, first, width)
            p = row_part(projected, graph * nodes + pair, channels, first, width)
            t = row_part(target, i, channels, first, width)
            s = row_part(source, j, channels, first, width)
            m, a, b = mean[pair], scale[pair], bias[pair]
            constant, slope = shares[0, pair], shares[1, pair]
            for c in range(width):
                gap = p[c] + t[c] + s[c] - m
                grad = mean.dtype.type(0) if gap * a + b <= 0 else g[c]
                # The slope of given statistics is 0, by which a NaN in u must not be multiplied.
                through = gap * slope if slope != 0 else mean.dtype.type(0)
                u[c] = grad * a - constant - through
            t = row_part(grad_target, i, channels, first, width)
            s = row_part(grad_source, j, channels, first, width)
            for c in range(width):
                t[c] += u[c]
                s[c] += u[c]


def forward(
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new edges, and mean and variance of the batch, (N, N), or (0,) if given."""
    batch, nodes, _, channels = edges.shape
    work = edges.numel()
    out = result(edges, *edges.shape)
    update = (flat(projected), flat(target), flat(source), flags(mask), nodes, channels)
    statistics = result(weight, 0), result(weight, 0)
    if mean is None or var is None:
        mean, var = statistics = result(weight, nodes, nodes), result(weight, nodes, nodes)
        moments = np.empty((2, batch * nodes * nodes), flat(mean).dtype)
        run(_measure, batch * nodes, 3 * work, *update, *moments)
        _join(*moments, flags(mask), batch, nodes, max(channels, 1), flat(mean), flat(var))
    scale = flat(weight) * _deviation(var, eps)
    run(
        _normalize,
        batch * nodes,
        2 * work,
        flat(edges),
        *update,
        flat(mean),
        scale,
        flat(bias),
        flat(out),
    )
    return narrow(out, edges), *statistics


def _deviation(var: Tensor, eps: float) -> np.ndarray:
    """Return 1 / sqrt(var + eps) as a flat array."""
    variance = flat(var)
    one = variance.dtype.type(1)
    return one / np.sqrt(variance + variance.dtype.type(eps))


def backward(
    grad_out: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    eps: float,
    given: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of update, target, source, weight and bias."""
    batch, nodes, _, channels = projected.shape
    work = projected.numel()
    deviation = _deviation(var, eps)
    scale = flat(weight) * deviation
    tensors = (flat(grad_out), flat(projected), flat(target), flat(source), flags(mask))
    inputs = (*tensors, nodes, channels, flat(mean), scale, flat(bias))
    sums = np.empty((2, batch * nodes * nodes), scale.dtype)
    run(_sum_gradients, batch * nodes, 2 * work, *inputs, *sums)
    pairs, shares = result(weight, 2, nodes, nodes), np.empty((2, nodes * nodes), scale.dtype)
    _join_gradients(
        *sums,
        flags(mask),
        batch,
        nodes,
        max(channels, 1),
        scale,
        deviation,
        given,
        flat(pairs).reshape(2, -1),
        shares,
    )
    grads = [result(each, *each.shape) for each in (projected, target, source)]
    parts = batch * -(-channels // _BLOCK)
    run(_differentiate, parts, 3 * work, *inputs, shares, *(flat(each) for each in grads))
    grad_update, grad_target, grad_source = grads
    return (
        narrow(grad_update, projected),
        narrow(grad_target, target),
        narrow(grad_source, source),
        pairs[0].clone(),  # outputs of an operator share no memory
        pairs[1].clone(),
    )

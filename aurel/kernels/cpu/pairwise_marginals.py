"""Sums over all states of N binary nodes, by sums over the states of two halves, in float64.

Up to `pairwise_few_nodes.MAX_NODES` nodes, the sums are those of that module.

Forward: with the sums r = W h for each a and c = W l for each b, the weights of the states of the
halves are l r and h c. Folded over the bits of a node, they are the sums over states in which it
is active, and is not.

Backward: a state has the probability p = l W h / Z and a score s_a + s_b, the gradient of its
energy divided by p. The sums of p s over the states of a half give the gradients of the fields; the
sum of p s over samples, folded twice, gives those of the couplings. Samples are summed in groups
of a fixed size, so that the number of threads changes no bit.

Samples whose exponents have a range above the limit are left out and reported.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from aurel.kernels.cpu import pairwise_few_nodes as few
from aurel.kernels.cpu.arrays import Array, flags, flat
from aurel.kernels.cpu.chain_steps import fold, products_of_halves
from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.pairwise_halves import (
    fields_of,
    halves_of_pairs,
    model_of,
    multiply,
    tensor_of,
)
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.vector_math import product_of_shares

_GROUP = 4  # samples of a group


@ranged
def sums_of_samples(start, stop, model, limit, partition, logits, marginals, far):
    """Write log Z, the marginals and their logits, or that a sample is beyond the limit."""
    table, nodes = model[2], model[3]
    lower = nodes // 2
    low, high = np.empty(1 << lower), np.empty(1 << (nodes - lower))
    low_sums, high_sums = np.empty(low.size), np.empty(high.size)
    fields, sums = np.empty(nodes), np.empty(2 * nodes)
    for sample in range(start, stop):
        out = logits[sample * nodes :][:nodes]
        shares = marginals[sample * nodes :][:nodes]
        far[sample] = not fields_of(sample, model, fields) <= limit  # nor is NaN
        if far[sample]:
            partition[sample] = 0.0
            out[:] = 0.0
            shares[:] = 0.0
            continue
        top = products_of_halves(fields, low, high)
        multiply(table, low, high, low_sums, high_sums)
        infer(low, low_sums, fields[:lower], sums, out[:lower], shares[:lower])
        total = infer(high, high_sums, fields[lower:], sums, out[lower:], shares[lower:])
        partition[sample] = top + math.log(total)


@uncounted
def infer(factors, weights, fields, sums, logits, marginals):
    """Write the marginals of the nodes of a half and their logits, 0 if absent; return Z."""
    for k in range(factors.size):
        weights[k] *= factors[k]
    fold(weights, fields.size, sums)
    for i in range(fields.size):
        active, inactive = sums[i], sums[fields.size + i]
        marginals[i] = active / (active + inactive)
        logits[i] = 0.0 if fields[i] == -np.inf else math.log(active / inactive)
    return weights[0]


@ranged
def gradients_of_groups(start, stop, model, limit, grads, grad_fields, grad_couplings, far):
    """Write the gradients of the fields, and for each group those of the couplings."""
    table, nodes = model[2], model[3]
    lower = nodes // 2
    low, high = np.empty((4, 1 << lower)), np.empty((4, 1 << (nodes - lower)))
    fields, sums = np.empty(nodes), np.empty(2 * nodes)
    moments = np.empty(table.size)
    for group in range(start, stop):
        moments[:] = 0.0
        for sample in range(group * _GROUP, min((group + 1) * _GROUP, grads[0].size)):
            out = grad_fields[sample * nodes :][:nodes]
            far[sample] = not fields_of(sample, model, fields) <= limit
            if far[sample]:
                out[:] = 0.0
                continue
            products_of_halves(fields, low[0], high[0])
            multiply(table, low[0], high[0], low[1], high[1])
            at = sample * nodes
            total = weigh_by_scores(low, fields[:lower], grads, at, grads[0][sample], sums)
            weigh_by_scores(high, fields[lower:], grads, at + lower, 0.0, sums)
            add_moments(table, low, high, 1.0 / total, moments)
            sum_of_active(low[3], lower, sums, out[:lower])
            sum_of_active(high[3], nodes - lower, sums, out[lower:])
        if model[4] <= limit:  # else all samples are left out, and the table is not finite
            for k in range(table.size):
                moments[k] *= table[k]
        halves_of_pairs(moments, nodes, sums, grad_couplings[group * nodes * nodes :])


@uncounted
def weigh_by_scores(half, fields, grads, at, score, sums):
    """Write the factors of a half times the scores of its states; return Z.

    `half` has the factors, the sums with W, the result, and scratch. Gradients of logits and
    marginals are in grads[1] and grads[2], from index `at` on. The gradient of a logit adds
    1 / p to the score of the states in which the node is active, and -1 / (1 - p) to the others.
    """
    factors, scores, weights = half[0], half[2], half[3]
    for k in range(factors.size):
        weights[k] = factors[k] * half[1][k]
    fold(weights, fields.size, sums)
    total = weights[0]
    scores[0] = score
    for i in range(fields.size):
        on, off = sums[i], sums[fields.size + i]
        present = fields[i] != -np.inf
        grad = grads[1][at + i] + grads[2][at + i] * product_of_shares(on, off)
        active = grad * (total / on) if present else 0.0
        inactive = grad * (total / off) if present else 0.0
        for k in range(1 << i):
            scores[(1 << i) + k] = scores[k] + active
            scores[k] -= inactive
    for k in range(factors.size):
        scores[k] *= factors[k]
    return total


@uncounted
def add_moments(table, low, high, scale, moments):
    """Add p s / W of all states to `moments`; write the sums of p s over the states of a half."""
    factors, scored, out = low[0], low[2], low[3]
    width = factors.size
    for a in range(width):
        factors[a] *= scale
        scored[a] *= scale
    multiply(table, scored, high[2], out, high[3])
    for a in range(width):
        out[a] = scored[a] * low[1][a] + factors[a] * out[a]
    for b in range(high[0].size):
        plain, weighted = high[0][b], high[2][b]
        high[3][b] = plain * high[3][b] + weighted * (high[1][b] * scale)
        target = moments[b * width :][:width]
        for a in range(width):
            target[a] += scored[a] * plain + factors[a] * weighted


@uncounted
def sum_of_active(values, nodes, sums, out):
    """Write the sums of `values` over the states in which each node is active."""
    fold(values, nodes, sums)
    for i in range(nodes):
        out[i] = sums[i]


def forward(
    logits: Tensor, couplings: Tensor, mask: Tensor | None, limit: float
) -> tuple[Tensor, Tensor, Tensor, Array | None]:
    """Return log Z (B,), logits of the marginals (B, N), these, and which samples are left out.

    Results of samples that are left out are 0; None if there are none.

    Args:
        logits: the fields, (B, N).
        couplings: (N, N).
        mask: (B, N) bool, True where the node exists, or None.
        limit: range of the exponents of a sample, above which it is left out.
    """
    batch, nodes = logits.shape
    if nodes <= few.MAX_NODES:
        kernel, count = few.sums_of_vectors, -(-batch // few.LANES)
        model = flat(logits), flags(mask), flat(couplings), nodes
    else:
        kernel, count = sums_of_samples, batch
        model = model_of(logits, couplings, mask)
    dtype = model[0].dtype
    outs = np.empty(batch, dtype), np.empty(batch * nodes, dtype), np.empty(batch * nodes, dtype)
    far = np.empty(batch, np.bool_)
    run(kernel, count, batch * 2**nodes // 2, model, limit, *outs, far)
    return (
        tensor_of(outs[0], logits),
        tensor_of(outs[1].reshape(batch, nodes), logits),
        tensor_of(outs[2].reshape(batch, nodes), logits),
        far if np.count_nonzero(far) else None,
    )


def backward(
    grad_partition: Tensor | None,
    grad_logits: Tensor | None,
    grad_marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    mask: Tensor | None,
    limit: float,
) -> tuple[Tensor, Tensor, Array | None]:
    """Return the gradients of fields and couplings, and which samples are left out.

    None is a gradient of 0; the other arguments are those of `forward`.
    """
    batch, nodes = logits.shape
    if nodes <= few.MAX_NODES:
        kernel, size = few.gradients_of_groups, few.GROUP
        model = flat(logits), flags(mask), flat(couplings), nodes
    else:
        kernel, size = gradients_of_groups, _GROUP
        model = model_of(logits, couplings, mask)
    dtype = model[0].dtype
    grads = (
        np.zeros(batch, dtype) if grad_partition is None else flat(grad_partition),
        np.zeros(batch * nodes, dtype) if grad_logits is None else flat(grad_logits),
        np.zeros(batch * nodes, dtype) if grad_marginals is None else flat(grad_marginals),
    )
    groups = -(-batch // size)
    grad_fields, parts = np.empty((batch, nodes), dtype), np.empty((groups, nodes, nodes))
    far = np.empty(batch, np.bool_)
    outs = grad_fields.reshape(-1), parts.reshape(-1), far
    run(kernel, groups, 2 * batch * 2**nodes, model, limit, grads, *outs)
    return (
        tensor_of(grad_fields, logits),
        tensor_of(np.add.reduce(parts), couplings),
        far if np.count_nonzero(far) else None,
    )

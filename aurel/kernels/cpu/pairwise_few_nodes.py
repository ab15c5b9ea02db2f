"""Sums over all states of a few binary nodes, a vector of samples at once, in float64.

The weights of all states are folded over the bits of each node. All lanes of a vector are computed
in the same way, so that a sample has the same results whatever samples are beside it; the last
vector is filled up with samples whose fields are 0.
"""

from __future__ import annotations

import numpy as np

from aurel.kernels.cpu.compiler import inner, uncounted
from aurel.kernels.cpu.pairwise_halves import coupling_products, fields_of, halves_of_pairs
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.state_rows import add_node, fold_node, multiply_by_node, multiply_rows
from aurel.kernels.cpu.tile_products import VECTOR_BYTES
from aurel.kernels.cpu.vector_math import (
    exp_of_nonpositive,
    log_of_normal,
    prefer_wide_vectors,
    product_of_shares,
)

MAX_NODES = 8
LANES = VECTOR_BYTES // 8
GROUP = 32  # samples of a group


@ranged
def sums_of_vectors(start, stop, given, limit, partition, logits, marginals, far):
    """Write log Z, the marginals and their logits, or that a sample is beyond the limit."""
    prefer_wide_vectors()
    model = model_in_range(given)
    nodes = model[3]
    fields, top = np.empty(nodes * LANES), np.empty(LANES)
    active, inactive = np.empty(fields.size + LANES), np.empty(fields.size + LANES)
    weights = np.empty(LANES << nodes)
    for vector in range(start, stop):
        first = vector * LANES
        near_fields(first, model, limit, fields, top, far)
        weigh(fields, model[2], active, inactive, weights)
        fold_rows(weights, nodes, active, inactive)
        for s in range(LANES):  # a last row, so that one loop computes all logarithms
            active[fields.size + s] = weights[s]
            inactive[fields.size + s] = 1.0
        for k in range(active.size):
            on, off = active[k], inactive[k]
            active[k] = on / (on + off)
            inactive[k] = log_of_normal(on / off if on > 0.0 else 1.0)  # 0 of an absent node
        for s in range(min(LANES, far.size - first)):
            near = not far[first + s]
            partition[first + s] = top[s] + inactive[fields.size + s] if near else 0.0
            for i in range(nodes):
                at = (first + s) * nodes + i
                marginals[at] = active[i * LANES + s] if near else 0.0
                logits[at] = inactive[i * LANES + s] if near else 0.0


@ranged
def gradients_of_groups(start, stop, given, limit, grads, grad_fields, grad_couplings, far):
    """Write the gradients of the fields, and for each group those of the couplings."""
    prefer_wide_vectors()
    model = model_in_range(given)
    nodes = model[3]
    fields, top = np.empty(nodes * LANES), np.empty(LANES)
    active, inactive = np.empty(fields.size), np.empty(fields.size)
    weights, moments = np.empty(LANES << nodes), np.empty(LANES << nodes)
    scores, sums = np.empty(LANES << nodes), np.empty(2 * nodes)
    for group in range(start, stop):
        moments[:] = 0.0
        for first in range(group * GROUP, min((group + 1) * GROUP, far.size), LANES):
            near_fields(first, model, limit, fields, top, far)
            weigh(fields, model[2], active, inactive, weights)
            for k in range(weights.size):
                scores[k] = weights[k]
            fold_rows(scores, nodes, active, inactive)
            score(first, grads, far, active, inactive, scores)
            if model[4] <= limit:  # else all samples are left out, and the table is not finite
                for k in range(weights.size):
                    scores[k] *= weights[k]
                    moments[k] += scores[k]
            fold_rows(scores, nodes, active, inactive)
            for s in range(min(LANES, far.size - first)):
                for i in range(nodes):
                    grad_fields[(first + s) * nodes + i] = active[i * LANES + s]
        for k in range(1 << nodes):
            weights[k] = 0.0
            for s in range(LANES):
                weights[k] += moments[k * LANES + s]
        out = grad_couplings[group * nodes * nodes :]
        halves_of_pairs(weights[: 1 << nodes], nodes, sums, out)


@inner
def model_in_range(given):
    """Return what `fields_of` takes: each range computes the small table, without another call."""
    fields, valid, couplings, nodes = given
    table = np.empty(1 << nodes)
    return fields, valid, table, nodes, coupling_products(couplings, nodes, table)


@uncounted
def near_fields(first, model, limit, fields, top, far):
    """Copy the fields of a vector of samples, 0 of those beyond the limit.

    `top` is the sum of max(u, 0).
    """
    for s in range(LANES):
        own = fields[s::LANES]
        near = first + s < far.size
        if near:
            near = fields_of(first + s, model, own) <= limit  # nor is NaN
            far[first + s] = not near
        if not near:
            own[:] = 0.0
        top[s] = 0.0
        for i in range(own.size):
            top[s] += own[i] if own[i] > 0.0 else 0.0


@uncounted
def weigh(fields, table, active, inactive, weights):
    """Write the weights of all states, divided by the exponentials of `top`."""
    for k in range(fields.size):
        small = exp_of_nonpositive(-abs(fields[k]))
        positive = fields[k] > 0.0
        active[k] = 1.0 if positive else small
        inactive[k] = small if positive else 1.0
    for s in range(LANES):
        weights[s] = 1.0
    for i in range(fields.size // LANES):
        multiply_by_node(weights, 1 << i, active, inactive, i)
    multiply_rows(weights, table.size, table)


@uncounted
def fold_rows(rows, nodes, active, inactive):
    """Write the sums of rows over the states in which each node is active, and is not.

    The first row becomes the sum of all rows, and the others are overwritten.
    """
    for i in range(nodes - 1, -1, -1):
        fold_node(rows, 1 << i, active, inactive, i)


@uncounted
def score(first, grads, far, active, inactive, scores):
    """Write the scores of all states divided by Z, from the sums of the weights; 0 of far samples.

    The gradient of a logit adds 1 / p to the score of the states in which the node is active, and
    -1 / (1 - p) to the others.
    """
    nodes = active.size // LANES
    for s in range(LANES):
        near = first + s < far.size and not far[first + s]
        scores[s] = grads[0][first + s] / scores[s] if near else 0.0
        for i in range(nodes):
            k, at = i * LANES + s, (first + s) * nodes + i
            on, off = active[k], inactive[k]
            if near and on > 0.0:
                grad = grads[1][at] + grads[2][at] * product_of_shares(on, off)
                active[k] = grad / on
                inactive[k] = -grad / off
            else:
                active[k] = inactive[k] = 0.0
    for i in range(nodes):
        add_node(scores, 1 << i, active, inactive, i)

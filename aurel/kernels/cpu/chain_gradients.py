"""Gradients of the log-partition and of marginals of chains of binary action units.

The gradient of a function F of the marginals with respect to the log-potentials of frame t is

    D_t = (a_t A_t + B_t b_t) / <a_t, b_t>,    A_t = G_t b_t + M psi_{t+1} A_{t+1},
    B_t = psi_t M C_{t-1},                     C_t = B_t + G_t a_t

with the messages a and b of `chain_marginals`, and G_t(y) the gradient of F with respect to the
probability of state y in frame t. For the log-partition alone, D_t is the probability itself, so
that its gradient comes in by the last A. A is scaled like b, and B like a.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.cpu.arrays import flat
from aurel.kernels.cpu.chain_steps import (
    MAX_LOGIT,
    MAX_STAY,
    block_length,
    chain_model,
    cross,
    evidence,
    fold,
    mix,
    move,
    step_factors,
    store,
    weigh,
)
from aurel.kernels.cpu.compiler import inner, uncounted
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.threads import run


@uncounted
def count_units(states):
    """Return the logarithm of 2^N to base 2."""
    units = 0
    while 1 << units < states:
        units += 1
    return units


@inner
def add_source(frame, sources, message, sums, target):
    """Add G_t times a message to `target`; `sources` are values of active and inactive units."""
    if sources.size == 0:
        return
    units = count_units(target.size)
    sums[0] = 0.0
    for i in range(units):
        half = 1 << i
        active = sources[(2 * frame) * units + i]
        inactive = sources[(2 * frame + 1) * units + i]
        for k in range(half):
            sums[half + k] = sums[k] + active
            sums[k] += inactive
    for k in range(target.size):
        target[k] += sums[k] * message[k]


@uncounted
def dot(x, y):
    """Return the scalar product."""
    total = 0.0
    for k in range(x.size):
        total += x[k] * y[k]
    return total


@inner
def moved(message, change, units, steps):
    """Keep what each matrix of a step is multiplied with, and the result as the last."""
    store(message, 1.0, steps[0])
    for i in range(units):
        store(steps[i], 1.0, steps[i + 1])
        mix(steps[i + 1], 1 << i, change[i])


@inner
def add_changes(message, change, units, scale, steps, out):
    """Move a message back over a step; subtract its sums over changes of each action unit."""
    for i in range(units - 1, -1, -1):
        half = 1 << i
        total = 0.0
        given = steps[i]
        for base in range(0, message.size, 2 * half):
            for k in range(base, base + half):
                total += message[k] * given[half + k] + message[half + k] * given[k]
        out[i] -= total * change[i] * scale
        mix(message, half, change[i])


@inner
def add_pairs(values, units, out):
    """Add sums of values over states in which two action units are active, pair by pair."""
    pair = 0
    for i in range(units):
        for j in range(i + 1, units):
            low, high = 1 << i, 1 << j
            total = 0.0
            for upper in range(high, values.size, 2 * high):
                for base in range(upper + low, upper + high, 2 * low):
                    for k in range(base, base + low):
                        total += values[k]
            out[pair] += total
            pair += 1


@ranged
def pairs_at_ends(start, stop, model, length, sources, first, stored):
    """Store (a, C) at the ends of blocks, of which job 2 c does those of clip c, and (b, A)."""
    frames, units = model[4][0], model[4][1]
    states = 1 << units
    scratch = np.empty((5, states))
    low, high, psi, message, linked = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    ends = (frames - 1) // length
    for job in range(start, stop):
        clip, backward = job // 2, job % 2
        message[:] = 1.0
        linked[:] = first[clip] if backward else 0.0
        factor = 1.0
        for i in range(frames - 1):
            t = frames - 1 - i if backward else i
            if backward:
                add_source(clip * frames + t, sources, message, low, linked)
            elif i > 0:
                cross(message, clip, t - 1, model)
                cross(linked, clip, t - 1, model)
            edge = t if backward else t + 1
            row = ((clip * ends + edge // length - 1) * 2 + backward) * 2 * states
            evidence(clip * frames + t, model, low, high, psi)
            weigh(linked, psi, factor)
            factor = 1.0 / weigh(message, psi, factor)
            if backward:
                cross(message, clip, t - 1, model)
                cross(linked, clip, t - 1, model)
            else:
                add_source(clip * frames + t, sources, message, low, linked)
            if edge % length == 0:
                store(message, factor, stored[row:][:states])
                store(linked, factor, stored[row + states :][:states])


@inner
def walk_forward(clip, opening, last, model, sources, scratch, rows):
    """Write a and B of the frames of a block behind (a, C) of the frame before it."""
    low, high, psi, message, linked = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    store(rows[0], 1.0, message)
    store(rows[1], 1.0, linked)
    factor = 1.0
    for t in range(opening, last + 1):
        evidence(clip * model[4][0] + t, model, low, high, psi)
        place = 2 * (t - opening + 1)
        if sources.size > 0:
            if t > 0:
                cross(linked, clip, t - 1, model)
            weigh(linked, psi, factor)
        store(linked, 1.0, rows[place + 1])
        if t > 0:
            cross(message, clip, t - 1, model)
        factor = 1.0 / weigh(message, psi, factor)
        store(message, 1.0, rows[place])
        add_source(clip * model[4][0] + t, sources, message, low, linked)


@inner
def step_back(clip, t, opening, model, sources, scratch, rows, steps, out):
    """Move b and A, times the potentials of frame t, to the frame before; write grad of costs."""
    low, message, linked, before = scratch[0], scratch[3], scratch[4], scratch[5]
    units = model[4][1]
    at = step_factors(clip, t - 1, model)
    change = model[3][at:][:units]
    place = 2 * (t - opening)
    out[:] = 0.0
    moved(rows[place], change, units, steps)
    scale = 1.0 / dot(message, steps[units])
    add_changes(linked, change, units, scale, steps, out)
    if sources.size == 0:
        move(message, change, units)
        return
    store(rows[place + 1], 1.0, before)
    if t > opening:
        add_source(clip * model[4][0] + t - 1, sources, rows[place], low, before)
    moved(before, change, units, steps)
    add_changes(message, change, units, scale, steps, out)


@inner
def gradient_of_frame(frame, model, scratch, forward, linked_forward, sums, total):
    """Write the sums of D over states, and add D to `total`."""
    message, linked, joint = scratch[3], scratch[4], scratch[5]
    scale = 1.0 / dot(forward, message)
    for k in range(joint.size):
        joint[k] = (forward[k] * linked[k] + linked_forward[k] * message[k]) * scale
    if model[1].size > 0 and not model[1][frame]:
        sums[:] = 0.0
        return
    for k in range(joint.size):
        total[k] += joint[k]
    fold(joint, model[4][1], sums)


@ranged
def gradients_of_blocks(start, stop, model, length, sources, first, stored, outs):
    """Write the gradients of blocks."""
    grad_logits, grad_pairs, grad_stay = outs
    frames, units = model[4][0], model[4][1]
    states, pairs = 1 << units, units * (units - 1) // 2
    scratch = np.empty((7, states))
    low, high, psi, message, linked = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    total = scratch[6]
    steps = np.empty((units + 1, states))
    sums = np.empty(2 * units)
    rows = np.empty((2 * min(length, frames) + 2, states))
    ends = (frames - 1) // length
    for block in range(start, stop):
        clip, opening = block // (ends + 1), block % (ends + 1) * length
        last = min(opening + length, frames) - 1
        rows[0] = 1.0
        rows[1] = 0.0
        if opening > 0:
            row = (clip * ends + opening // length - 1) * 4 * states
            store(stored[row:][:states], 1.0, rows[0])
            store(stored[row + states :][:states], 1.0, rows[1])
        walk_forward(clip, opening, last, model, sources, scratch, rows)
        message[:] = 1.0
        linked[:] = first[clip]
        total[:] = 0.0
        if last < frames - 1:
            row = ((clip * ends + opening // length) * 2 + 1) * 2 * states
            store(stored[row:][:states], 1.0, message)
            store(stored[row + states :][:states], 1.0, linked)
        factor = 1.0
        for t in range(last, opening - 1, -1):
            frame, place = clip * frames + t, 2 * (t - opening + 1)
            add_source(frame, sources, message, low, linked)
            gradient_of_frame(frame, model, scratch, rows[place], rows[place + 1], sums, total)
            store(sums[:units], 1.0, grad_logits[frame * units :][:units])
            if t > 0:
                evidence(frame, model, low, high, psi)
                weigh(linked, psi, factor)
                factor = 1.0 / weigh(message, psi, factor)
                row = (clip * (frames - 1) + t - 1) * units
                out = grad_stay[row:][:units]
                step_back(clip, t, opening, model, sources, scratch, rows, steps, out)
        out = grad_pairs[block * pairs :][:pairs]
        out[:] = 0.0
        add_pairs(total, units, out)


def gradients(
    grad_partition: Tensor | None,
    grad_marginals: Tensor | None,
    marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of logits, couplings and costs.

    Args:
        grad_partition: (B,) or None.
        grad_marginals: (B, T, N) or None.
        marginals: the marginals as logits, in float64, unless their gradient is None.
        logits: (B, T, N).
        couplings: (N (N - 1) / 2,).
        stay: (B, T - 1, N) or (1, T - 1, N).
        mask: (B, T) bool or None.
    """
    batch, frames, units = logits.shape
    grad_logits, grad_couplings, grad_stay = (
        torch.zeros_like(each, memory_format=torch.contiguous_format)
        for each in (logits, couplings, stay)
    )
    if batch == 0:
        return grad_logits, grad_couplings, grad_stay
    model, _ = chain_model(logits, couplings, stay, mask)
    first = torch.zeros(batch) if grad_partition is None else grad_partition
    sources = torch.empty(0, dtype=torch.float64)
    if grad_marginals is not None and marginals is not None:
        grad = grad_marginals.double().where(marginals.abs() < MAX_LOGIT, 0)
        active, inactive = (grad * (1 + (sign * marginals).exp()) for sign in (-1, 1))
        sources = torch.stack((active, -inactive), 2)
    length = block_length(frames)
    ends = (frames - 1) // length
    states = 2**units
    given = (model, length, flat(sources), flat(first.double()))
    stored = np.empty(batch * ends * 4 * states)
    work = batch * frames * states * units * 4
    if ends > 0:
        run(pairs_at_ends, batch * 2, work, *given, stored)
    of_logits = torch.empty(batch, frames, units, dtype=torch.float64)
    of_pairs = torch.empty(batch * (ends + 1), len(couplings), dtype=torch.float64)
    of_stay = torch.empty(batch, frames - 1, units, dtype=torch.float64)
    outs = (flat(of_logits), flat(of_pairs), flat(of_stay))
    run(gradients_of_blocks, batch * (ends + 1), work, *given, stored, outs)
    if stay.shape[0] == 1:
        of_stay = of_stay.sum(0, keepdim=True)
    of_stay = of_stay.where(stay.detach().abs() <= MAX_STAY, 0)
    grad_logits.copy_(of_logits)
    grad_couplings.copy_(of_pairs.sum(0))
    grad_stay.copy_(of_stay)
    return grad_logits, grad_couplings, grad_stay

"""Filtering and smoothing of chains of binary action units, by scaled messages in float64.

Forward messages a_t = psi_t M a_{t-1} and backward messages b_t = M psi_{t+1} b_{t+1}, each divided
by its sum, where M is the product of a matrix of 2 x 2 an action unit. The clip is cut into blocks.
First both messages are computed at the ends of blocks, in two jobs; then each block by itself
computes its messages again and joins them. So there is work for several threads even in one
clip, and memory grows with the square root of its length.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.cpu.arrays import flat
from aurel.kernels.cpu.chain_gradients import gradients
from aurel.kernels.cpu.chain_steps import (
    MAX_LOGIT,
    block_length,
    chain_model,
    cross,
    evidence,
    fold,
    store,
    weigh,
)
from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.threads import run


@ranged
def messages_at_ends(start, stop, model, length, stored):
    """Store the forward messages before blocks and the backward messages behind them.

    Job 2 c is the forward direction of clip c, job 2 c + 1 the backward one. `stored` is
    (B, blocks - 1, 2, 2^N).
    """
    frames, units = model[4][0], model[4][1]
    states = 1 << units
    scratch = np.empty((4, states))
    low, high, psi, message = scratch[0], scratch[1], scratch[2], scratch[3]
    ends = (frames - 1) // length
    for job in range(start, stop):
        clip, backward = job // 2, job % 2
        message[:] = 1.0
        factor = 1.0
        for i in range(frames - 1):
            t = frames - 1 - i if backward else i
            evidence(clip * frames + t, model, low, high, psi)
            if i > 0 and not backward:
                cross(message, clip, t - 1, model)
            factor = 1.0 / weigh(message, psi, factor)
            if backward:
                cross(message, clip, t - 1, model)
            edge = t if backward else t + 1
            if edge % length == 0:
                row = (clip * ends + edge // length - 1) * 2 + backward
                store(message, factor, stored[row * states :][:states])


@ranged
def smooth_blocks(start, stop, model, length, past, stored, marginals, logs):
    """Write the marginals of blocks, and their parts of the log-partition."""
    frames, units = model[4][0], model[4][1]
    states = 1 << units
    scratch = np.empty((5, states))
    low, high, psi, message = scratch[0], scratch[1], scratch[2], scratch[3]
    joint = scratch[4]
    sums = np.empty(2 * units)
    rows = np.empty(min(length, frames) * states)
    ends = (frames - 1) // length
    for block in range(start, stop):
        clip, first = block // (ends + 1), block % (ends + 1) * length
        last = min(first + length, frames) - 1
        message[:] = 1.0
        if first > 0:
            store(stored[(clip * ends + first // length - 1) * 2 * states :][:states], 1.0, message)
        factor, log = 1.0, 0.0
        for t in range(first, last + 1):
            if t > 0:
                cross(message, clip, t - 1, model)
            log += evidence(clip * frames + t, model, low, high, psi)
            total = weigh(message, psi, factor)
            log += math.log(total)
            factor = 1.0 / total
            store(message, 1.0, rows[(t - first) * states :][:states])
        logs[block] = log
        message[:] = 1.0
        if last < frames - 1 and not past:
            behind = ((clip * ends + first // length) * 2 + 1) * states
            store(stored[behind:][:states], 1.0, message)
        factor = 1.0
        for t in range(last, first - 1, -1):
            forward = rows[(t - first) * states :][:states]
            for k in range(states):
                joint[k] = forward[k] * message[k]
            fold(joint, units, sums)
            write_logits(sums, units, marginals[(clip * frames + t) * units :][:units])
            if t > first and not past:
                evidence(clip * frames + t, model, low, high, psi)
                factor = 1.0 / weigh(message, psi, factor)
                cross(message, clip, t - 1, model)


@uncounted
def write_logits(sums, units, out):
    """Write logarithms of ratios, at most MAX_LOGIT from 0."""
    least = 1e-300
    for i in range(units):
        ones, zeros = sums[i], sums[units + i]
        # Comparisons that are false for NaN keep it.
        ones = least if ones < least else ones
        zeros = least if zeros < least else zeros
        value = math.log(ones) - math.log(zeros)
        value = MAX_LOGIT if value > MAX_LOGIT else value
        out[i] = -MAX_LOGIT if value < -MAX_LOGIT else value


def forward(
    logits: Tensor, couplings: Tensor, stay: Tensor, mask: Tensor | None, past: bool
) -> tuple[Tensor, Tensor]:
    """Return the log-partition (B,) and the logits of marginals (B, T, N)."""
    log_partition, marginals = inferred(logits, couplings, stay, mask, past)
    return log_partition.to(logits.dtype), marginals.to(logits.dtype)


def inferred(
    logits: Tensor, couplings: Tensor, stay: Tensor, mask: Tensor | None, past: bool
) -> tuple[Tensor, Tensor]:
    """Return the same in float64."""
    batch, frames, units = logits.shape
    log_partition = torch.zeros(batch, dtype=torch.float64)
    marginals = torch.empty(batch, frames, units, dtype=torch.float64)
    if batch == 0:
        return log_partition, marginals
    model, top = chain_model(logits, couplings, stay, mask)
    length = block_length(frames)
    ends = (frames - 1) // length
    work = batch * frames * 2**units * (units + 4)
    stored = np.empty(batch * ends * 2 * 2**units)
    if ends > 0:
        run(messages_at_ends, batch * 2, work, model, length, stored)
    logs = torch.empty(batch, ends + 1, dtype=torch.float64)
    outs = (stored, flat(marginals), flat(logs))
    run(smooth_blocks, batch * (ends + 1), work, model, length, past, *outs)
    valid = frames if mask is None else mask.sum(1).double()
    return logs.sum(1) + top * valid, marginals


def backward(
    grad_partition: Tensor | None,
    grad_marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    mask: Tensor | None,
    past: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of logits, couplings and costs, of smoothing."""
    assert not past
    marginals = None
    if grad_marginals is not None:
        marginals = inferred(logits, couplings, stay, mask, past)[1]
    return gradients(grad_partition, grad_marginals, marginals, logits, couplings, stay, mask)

"""The most likely path of chains of binary action units.

The best score that ends in each state goes forward; back from the best last state, the state before
is the best by its score and the costs of the changes. Scores at the ends of blocks are stored and
those inside of a block computed again, so that memory grows with the square root of the length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.cpu.arrays import flags, flat
from aurel.kernels.cpu.chain_steps import (
    MAX_STAY,
    add_energies,
    block_length,
    coupling_energies,
    outer_sums,
    step_factors,
    store,
)
from aurel.kernels.cpu.compiler import inner, uncounted
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.threads import run


@uncounted
def best_changes(score, cost, units):
    """Replace the scores of states by the best of those that lead to them."""
    for i in range(units):
        half = 1 << i
        for base in range(0, score.size, 2 * half):
            inactive = score[base:][:half]
            active = score[base + half :][:half]
            for k in range(half):
                a = inactive[k]
                b = active[k]
                inactive[k] = max(a, b - cost[i])
                active[k] = max(b, a - cost[i])


@inner
def advance(clip, t, model, scratch, score):
    """Take the scores of the frame before to frame t of a clip."""
    logits, valid, coupled, costs, sizes = model
    frames, units = sizes[0], sizes[1]
    if t > 0:
        at = step_factors(clip, t - 1, model)
        best_changes(score, costs[at:][:units], units)
    frame = clip * frames + t
    if valid.size > 0 and not valid[frame]:
        return
    add_energies(
        logits[frame * units :][:units], coupled, units, scratch[0], scratch[1], scratch[2]
    )
    for k in range(score.size):
        score[k] += scratch[2][k]


@uncounted
def best_state(score):
    """Return the first state of the highest score."""
    best = 0
    for k in range(1, score.size):
        if score[k] > score[best]:
            best = k
    return best


@inner
def best_before(score, state, costs):
    """Return the first of the best states before `state`; costs are of sets of changes."""
    best = 0
    highest = score[0] - costs[state]
    for k in range(1, score.size):
        value = score[k] - costs[k ^ state]
        if value > highest:
            highest = value
            best = k
    return best


@uncounted
def write_state(state, units, out):
    """Write the bits of a state."""
    for i in range(units):
        out[i] = (state >> i) & 1


@ranged
def best_paths(start, stop, model, length, path):
    """Write the best paths of some clips."""
    frames, units = model[4][0], model[4][1]
    states = 1 << units
    scratch = np.empty((5, states))
    score, changed = scratch[3], scratch[4]
    rows = np.empty((min(length, frames), states))
    blocks = (frames - 1) // length + 1
    stored = np.empty((blocks, states))
    for clip in range(start, stop):
        score[:] = 0.0
        for t in range(frames):
            if t % length == 0:
                store(score, 1.0, stored[t // length])
            advance(clip, t, model, scratch, score)
        state = best_state(score)
        for block in range(blocks - 1, -1, -1):
            opening = block * length
            last = min(opening + length, frames) - 1
            store(stored[block], 1.0, score)
            for t in range(opening, last):
                advance(clip, t, model, scratch, score)
                store(score, 1.0, rows[t - opening])
            for t in range(last, opening - 1, -1):
                write_state(state, units, path[(clip * frames + t) * units :][:units])
                if t > 0:
                    at = step_factors(clip, t - 1, model)
                    outer_sums(model[3][at:][:units], units, changed)
                    # The scores of the frame before a block are those stored for its beginning.
                    before = rows[t - 1 - opening] if t > opening else stored[block]
                    state = best_before(before, state, changed)


def forward(logits: Tensor, couplings: Tensor, stay: Tensor, mask: Tensor | None) -> Tensor:
    """Return the most likely path, (B, T, N)."""
    batch, frames, units = logits.shape
    path = torch.empty(batch, frames, units, dtype=torch.int64)
    if batch == 0:
        return path
    costs = stay.detach().double().clamp(-MAX_STAY, MAX_STAY)
    sizes = (frames, units, int(stay.shape[0] == 1), 0)
    evidence = flat(logits.detach().double()), flags(mask)
    model = (*evidence, coupling_energies(couplings, units), flat(costs), sizes)
    work = batch * frames * 2**units * (units + 4)
    run(best_paths, batch, work, model, block_length(frames), flat(path))
    return path

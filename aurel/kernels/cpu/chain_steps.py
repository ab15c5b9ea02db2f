"""Steps of messages over the 2^N states of a chain of binary action units, in float64.

A vector of states in the order of their numbers is a tensor of N dimensions of size 2, the last
action unit first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import Array, flags, flat
from aurel.kernels.cpu.compiler import inner, uncounted
from aurel.kernels.cpu.vector_math import exp_of_nonpositive

_BLOCK = 64  # frames at least between two stored messages
_WIDE = 150.0  # couplings whose potentials could leave the range of float64
MAX_STAY = 30.0
MAX_LOGIT = 200.0


@uncounted
def outer_sums(values, units, out):
    """Write the sums of the values of active action units, for 2^units states."""
    out[0] = 0.0
    for i in range(units):
        half = 1 << i
        for k in range(half):
            out[half + k] = out[k] + values[i]


@uncounted
def outer_products(logits, units, out):
    """Write products of exp(u y - max(u, 0)), for 2^units states; return the sum of max(u, 0)."""
    top = 0.0
    out[0] = 1.0
    for i in range(units):
        half = 1 << i
        positive = logits[i] > 0.0  # of NaN false: it comes into `active`
        active = 1.0 if positive else math.exp(logits[i])
        inactive = math.exp(-logits[i]) if positive else 1.0
        top += logits[i] if positive else 0.0
        for k in range(half):
            out[half + k] = out[k] * active
            out[k] *= inactive
    return top


@uncounted
def sums_of_halves(values, low, high):
    """Write `outer_sums` of the first N // 2 values to `low`, and of the others to `high`."""
    lower = values.size // 2
    outer_sums(values[:lower], lower, low)
    outer_sums(values[lower:], values.size - lower, high)


@uncounted
def products_of_halves(logits, low, high):
    """Write `outer_products` as `sums_of_halves` does its sums; return the sum of all max(u, 0)."""
    lower = logits.size // 2
    top = outer_products(logits[:lower], lower, low)
    return top + outer_products(logits[lower:], logits.size - lower, high)


@uncounted
def add_energies(logits, coupled, units, low, high, out):
    """Write the energies of all states."""
    sums_of_halves(logits, low, high)
    lower = units // 2
    width = 1 << lower
    for h in range(1 << (units - lower)):
        target = out[h * width :][:width]
        given = coupled[h * width :][:width]
        for k in range(width):
            target[k] = given[k] + (low[k] + high[h])


@uncounted
def potential(logits, table, units, wide, low, high, psi):
    """Write exp(energy - c) of all states, at most 1; return c.

    `table` is exp(coupling energy) or, if `wide`, the coupling energy, 0 at most.
    """
    if wide:
        add_energies(logits, table, units, low, high, psi)
        top = psi[0]
        for k in range(psi.size):
            top = psi[k] if psi[k] > top else top
        for k in range(psi.size):
            psi[k] = exp_of_nonpositive(psi[k] - top)
        return top
    top = products_of_halves(logits, low, high)
    lower = units // 2
    width = 1 << lower
    for h in range(1 << (units - lower)):
        target = psi[h * width :][:width]
        given = table[h * width :][:width]
        for k in range(width):
            target[k] = given[k] * (low[k] * high[h])
    return top


@uncounted
def mix(message, half, change):
    """Multiply by the matrix of one action unit, whose bit is `half`."""
    for base in range(0, message.size, 2 * half):
        inactive = message[base:][:half]
        active = message[base + half :][:half]
        for k in range(half):
            a = inactive[k]
            b = active[k]
            inactive[k] = a + change * b
            active[k] = b + change * a


@uncounted
def mix_two(message, half, first, second):
    """Multiply by the matrices of two action units, whose bits are `half` and its double."""
    for base in range(0, message.size, 4 * half):
        x0 = message[base:][:half]
        x1 = message[base + half :][:half]
        x2 = message[base + 2 * half :][:half]
        x3 = message[base + 3 * half :][:half]
        for k in range(half):
            a = x0[k] + first * x1[k]
            b = x1[k] + first * x0[k]
            c = x2[k] + first * x3[k]
            d = x3[k] + first * x2[k]
            x0[k] = a + second * c
            x1[k] = b + second * d
            x2[k] = c + second * a
            x3[k] = d + second * b


@uncounted
def mix_first_three(message, change):
    """Multiply by the matrices of the first three action units."""
    f, g, h = change[0], change[1], change[2]
    for base in range(0, message.size, 8):
        x = message[base:][:8]
        a0, a1, a2, a3 = x[0] + f * x[1], x[1] + f * x[0], x[2] + f * x[3], x[3] + f * x[2]
        a4, a5, a6, a7 = x[4] + f * x[5], x[5] + f * x[4], x[6] + f * x[7], x[7] + f * x[6]
        b0, b2, b1, b3 = a0 + g * a2, a2 + g * a0, a1 + g * a3, a3 + g * a1
        b4, b6, b5, b7 = a4 + g * a6, a6 + g * a4, a5 + g * a7, a7 + g * a5
        x[0], x[4], x[1], x[5] = b0 + h * b4, b4 + h * b0, b1 + h * b5, b5 + h * b1
        x[2], x[6], x[3], x[7] = b2 + h * b6, b6 + h * b2, b3 + h * b7, b7 + h * b3


@inner
def move(message, change, units):
    """Multiply by the matrices of all action units: a step to the next frame, or the last."""
    i = 0
    if units >= 3:
        mix_first_three(message, change)
        i = 3
    while i + 1 < units:
        mix_two(message, 1 << i, change[i], change[i + 1])
        i += 2
    if i < units:
        mix(message, 1 << i, change[i])


@uncounted
def weigh(message, psi, factor):
    """Multiply by potentials and a factor; return the sum."""
    total = 0.0
    for k in range(message.size):
        message[k] = message[k] * psi[k] * factor
        total += message[k]
    return total


@uncounted
def fold(values, units, out):
    """Write into `out` the sums of `values` over the states of each action unit.

    (2 N,): those in which it is active, then those in which it is not. Overwrites `values`.
    """
    for i in range(units - 1, -1, -1):
        half = 1 << i
        inactive = values[:half]
        active = values[half:][:half]
        ones = 0.0
        zeros = 0.0
        for k in range(half):
            ones += active[k]
            zeros += inactive[k]
            inactive[k] += active[k]
        out[i] = ones
        out[units + i] = zeros


@inner
def evidence(frame, model, low, high, psi):
    """Write the potentials of a frame of all clips, 1 without evidence; return their scale."""
    logits, valid, table, _, sizes = model
    units, wide = sizes[1], sizes[3] > 0
    if valid.size > 0 and not valid[frame]:
        for k in range(psi.size):
            psi[k] = 1.0
        return 0.0
    return potential(logits[frame * units :][:units], table, units, wide, low, high, psi)


@uncounted
def step_factors(clip, step, model):
    """Return where exp(-s) of a step of a clip begins."""
    frames, units, shared = model[4][0], model[4][1], model[4][2]
    return (step if shared > 0 else clip * (frames - 1) + step) * units


@inner
def cross(message, clip, step, model):
    """Move a message over a step of a clip."""
    at = step_factors(clip, step, model)
    move(message, model[3][at:][: model[4][1]], model[4][1])


@uncounted
def store(message, factor, out):
    """Write a message times a factor."""
    for k in range(message.size):
        out[k] = message[k] * factor


def block_length(frames: int) -> int:
    """Return the number of frames of a block, at whose ends messages are stored."""
    return max(_BLOCK, math.isqrt(frames))


def chain_model(
    logits: Tensor, couplings: Tensor, stay: Tensor, mask: Tensor | None
) -> tuple[tuple[Any, ...], float]:
    """Return what `evidence` and `cross` take, and the greatest coupling energy."""
    frames, units = logits.shape[1:]
    table, top, wide = coupling_table(couplings, units)
    sizes = (frames, units, int(stay.shape[0] == 1), int(wide))
    evidence = flat(logits.detach().double()), flags(mask)
    return (*evidence, table, flat(change_factors(stay)), sizes), top


def coupling_table(couplings: Tensor, units: int) -> tuple[Array, float, bool]:
    """Return coupling energies of all states less their maximum, that, and whether they are wide.

    If they are not, their exponentials are returned.
    """
    energies = coupling_energies(couplings, units)
    top = float(energies.max())
    energies -= top
    wide = bool(energies.min() < -_WIDE)
    return (energies if wide else np.exp(energies)), top, wide


def coupling_energies(couplings: Tensor, units: int) -> Array:
    """Return the sums of J over pairs of active action units, of all states."""
    matrix = np.zeros((units, units))
    matrix[np.triu_indices(units, 1)] = couplings.detach().double().numpy()
    energies = np.zeros(1)
    for i in range(units):
        with_unit = np.zeros(1)
        for j in range(i):
            with_unit = np.concatenate((with_unit, with_unit + matrix[j, i]))
        energies = np.concatenate((energies, energies + with_unit))
    return energies


def change_factors(stay: Tensor) -> Tensor:
    """Return exp(-s) of costs, in float64."""
    return stay.detach().double().clamp(-MAX_STAY, MAX_STAY).neg().exp()

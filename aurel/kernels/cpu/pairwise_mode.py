"""The most likely state of N binary nodes: the best energy of all states, in float64.

The energy of a state is l_a + E_ba + h_b, of the fields of both halves and of the couplings. The
best E + h for each a needs no number of a state, so that the loop is vectorized; then the lowest
number is found among those of the states that have it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.cpu.arrays import flags, flat
from aurel.kernels.cpu.chain_steps import outer_sums, sums_of_halves
from aurel.kernels.cpu.compiler import kernel, uncounted
from aurel.kernels.cpu.pairwise_halves import fields_of, wide_array
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.threads import run


@kernel
def coupling_sums(couplings, nodes, out):
    """Write sums of J_ij over active pairs, for all states."""
    out[0] = 0.0
    both = np.empty(nodes)
    for i in range(nodes):
        for j in range(i):
            both[j] = couplings[i * nodes + j] / 2 + couplings[j * nodes + i] / 2
        half = 1 << i
        given = out[:half]
        target = out[half:][:half]
        outer_sums(both, i, target)
        for k in range(half):
            target[k] += given[k]


@ranged
def best_states(start, stop, model, modes):
    """Write for each node whether it is active in the best state."""
    table, nodes = model[2], model[3]
    lower = nodes // 2
    low, high = np.empty(1 << lower), np.empty(1 << (nodes - lower))
    best, fields = np.empty(low.size), np.empty(nodes)
    for sample in range(start, stop):
        fields_of(sample, model, fields)
        sums_of_halves(fields, low, high)
        best[:] = -np.inf
        for b in range(high.size):
            row = table[b * low.size :][: low.size]
            for a in range(low.size):
                energy = row[a] + high[b]
                best[a] = energy if energy > best[a] else best[a]
        state = lowest_state(table, low, high, best)
        for i in range(nodes):
            modes[sample * nodes + i] = (state >> i) & 1


@uncounted
def lowest_state(table, low, high, best):
    """Return the lowest number of a state that has the greatest energy."""
    top = -np.inf
    for a in range(low.size):
        energy = best[a] + low[a]
        top = energy if energy > top else top
    found, stop = 0, high.size
    for a in range(low.size):
        if best[a] + low[a] == top:
            for b in range(stop):
                if table[b * low.size + a] + high[b] == best[a]:
                    found, stop = b * low.size + a, b
                    break
    return found


def forward(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> Tensor:
    """Return the most likely states, (B, N) bool."""
    batch, nodes = logits.shape
    table, modes = np.empty(2**nodes), np.empty((batch, nodes), np.bool_)
    coupling_sums(wide_array(couplings), nodes, table)
    model = (flat(logits), flags(mask), table, nodes, 0.0)
    run(best_states, batch, batch * 2**nodes // 2, model, modes.reshape(-1))
    return torch.from_numpy(modes)

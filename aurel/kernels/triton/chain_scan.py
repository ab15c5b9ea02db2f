"""Recurrences along a chain of N binary units, whose messages are vectors of all 2^N states.

    y_t = w_t * x_t,      x_{t+1} = M_t (y_t + s_t)                   forward
    y_t = x_t + s_t,      x_{t-1} = M_{t-1} (w_t * y_t)               in reverse

where M_t is the Kronecker product of [[1, c_ti], [c_ti, 1]] over the units i: N steps, each of
which adds to a state c_ti times the one that differs in unit i. A step exchanges halves of the
vector in registers; a program owns a clip and goes along its frames.

Without s the products are messages. They are divided by their sums, whose logarithms are stored.
All in float64: products of N factors exp(-30) are in its range, and not in that of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import launch

WARP_STATES = 512  # states of a warp, at most, so that their registers hold them


@triton.jit
def mix(b_x, change, HALF: tl.constexpr, STATES: tl.constexpr):
    """Multiply by the matrix of the unit whose bit is HALF."""
    b_pairs = tl.reshape(b_x, (STATES // (2 * HALF), 2, HALF))
    b_inactive, b_active = tl.split(tl.permute(b_pairs, (0, 2, 1)))
    b_pairs = tl.join(b_inactive + change * b_active, b_active + change * b_inactive)
    return tl.reshape(tl.permute(b_pairs, (0, 2, 1)), (STATES,))


@triton.jit
def scan_kernel(
    weight_ptr,
    source_ptr,
    first_ptr,
    change_ptr,
    out_ptr,
    log_ptr,
    T,
    change_stride,
    N: tl.constexpr,
    STATES: tl.constexpr,
    SOURCES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Own a clip."""
    i_clip = tl.program_id(0).to(tl.int64)
    o_state = tl.arange(0, STATES)
    change_ptr += i_clip * change_stride
    b_x = tl.zeros((STATES,), tl.float64) + tl.load(first_ptr + i_clip)
    for i in range(T):
        t = T - 1 - i if REVERSE else i
        i_frame = i_clip * T + t
        p_state = i_frame * STATES + o_state
        if SOURCES and REVERSE:
            b_x += tl.load(source_ptr + p_state)
        if REVERSE:
            tl.store(out_ptr + p_state, b_x)
        b_x *= tl.load(weight_ptr + p_state)
        if not SOURCES:
            total = tl.sum(b_x, 0)
            b_x /= total
            tl.store(log_ptr + i_frame, tl.log(total))
        if not REVERSE:
            tl.store(out_ptr + p_state, b_x)
        if SOURCES and not REVERSE:
            b_x += tl.load(source_ptr + p_state)
        step = t - 1 if REVERSE else t
        for unit in tl.static_range(N):
            change = tl.load(change_ptr + step * N + unit, mask=i < T - 1, other=0.0)
            b_x = mix(b_x, change, 1 << unit, STATES)


def forward(
    weights: Tensor, sources: Tensor | None, first: Tensor, change: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return y (B, T, 2^N) and the logarithms of sums (B, T), which are zeros with sources.

    Args:
        weights: w, (B, T, 2^N) float64.
        sources: s, (B, T, 2^N) float64, or None.
        first: every state of the first x, (B,) float64.
        change: c, (B, T - 1, N) or (1, T - 1, N) float64.
        reverse: go from the last frame to the first.
    """
    weights = weights.contiguous()
    batch, frames, states = weights.shape
    out, logs = torch.empty_like(weights), weights.new_zeros(batch, frames)
    change = change.contiguous()
    stride = 0 if len(change) == 1 else change.shape[1] * change.shape[2]
    launch(
        scan_kernel,
        (batch,),
        weights,
        weights if sources is None else sources.contiguous(),
        first.contiguous(),
        change if change.numel() else first,
        out,
        logs,
        frames,
        stride,
        N=states.bit_length() - 1,
        STATES=states,
        SOURCES=sources is not None,
        REVERSE=reverse,
        num_warps=max(1, min(16, states // WARP_STATES)),
    )
    return out, logs


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the plans, on CPU tensors, to be compiled."""
    for units in (1, 8, 12):
        weights = torch.empty(2, 3, 2**units, dtype=torch.float64)
        first, change = weights[:, 0, 0], weights.new_empty(1, 2, units)
        for reverse in (False, True):
            for sources in (None, weights):
                yield partial(forward, weights, sources, first, change, reverse)

"""Forward kernels of `edge_update`, whose docstring has the equations."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.edge_update_tiles import (
    pair_values,
    present_images,
    present_sources,
    update_tile,
)


@triton.jit
def moments_kernel(
    projected_ptr,
    target_ptr,
    source_ptr,
    mask_ptr,
    mean_ptr,
    scatter_ptr,
    N,
    target_stride,
    source_stride,
    C: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own one target of one image: mean of u over channels, and sum of squares about it."""
    i_batch = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1)
    i_target = i_batch * N + i
    o_j = tl.arange(0, BLOCK_N)
    m_j = present_sources(mask_ptr + i_batch * N, i, o_j, N, HAS_MASK)
    projected_ptr += i_target * N * C
    target_ptr += i_target * target_stride
    source_ptr += i_batch * N * source_stride
    b_mean = tl.zeros((BLOCK_N,), tl.float32)
    b_scatter = tl.zeros((BLOCK_N,), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        # [BLOCK_N, BLOCK_C]
        b_update = update_tile(
            projected_ptr, target_ptr, source_ptr, m_j, o_j, o_c, C, source_stride
        )
        width = tl.minimum(C - c0, BLOCK_C).to(tl.float32)
        b_strip = tl.sum(b_update, axis=1) / width
        b_deviation = tl.where((o_c < C)[None, :], b_update - b_strip[:, None], 0.0)
        # Join the moments of the first c0 values and of the next `width`.
        b_gap = b_strip - b_mean
        share = width / (c0 + width)
        b_mean += b_gap * share
        b_scatter += tl.sum(b_deviation * b_deviation, axis=1) + b_gap * b_gap * (c0 * share)
    p_pair = i_target * N + o_j
    tl.store(mean_ptr + p_pair, b_mean, mask=o_j < N)
    tl.store(scatter_ptr + p_pair, b_scatter, mask=o_j < N)


@triton.jit
def join_moments_kernel(
    image_mean_ptr,
    scatter_ptr,
    mask_ptr,
    mean_ptr,
    var_ptr,
    B,
    N,
    C,
    HAS_MASK: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Own BLOCK_R pairs: mean and variance over images and channels."""
    o_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    b_count = tl.zeros((BLOCK_B, BLOCK_R), tl.float32)
    b_sum = tl.zeros((BLOCK_B, BLOCK_R), tl.float32)
    for b0 in range(0, B, BLOCK_B):
        o_b = b0 + tl.arange(0, BLOCK_B)
        m_pair = present_images(mask_ptr, o_b, o_r, B, N, HAS_MASK)
        p_pair = o_b[:, None].to(tl.int64) * N * N + o_r[None, :]
        b_count += m_pair.to(tl.float32)
        b_sum += tl.load(image_mean_ptr + p_pair, mask=m_pair, other=0.0)
    b_images = tl.maximum(tl.sum(b_count, axis=0), 1.0)
    b_mean = tl.sum(b_sum, axis=0) / b_images
    b_scatter = tl.zeros((BLOCK_B, BLOCK_R), tl.float32)
    for b0 in range(0, B, BLOCK_B):
        o_b = b0 + tl.arange(0, BLOCK_B)
        m_pair = present_images(mask_ptr, o_b, o_r, B, N, HAS_MASK)
        p_pair = o_b[:, None].to(tl.int64) * N * N + o_r[None, :]
        b_gap = tl.load(image_mean_ptr + p_pair, mask=m_pair, other=0.0) - b_mean[None, :]
        b_within = tl.load(scatter_ptr + p_pair, mask=m_pair, other=0.0)
        b_scatter += tl.where(m_pair, b_within + b_gap * b_gap * C, 0.0)
    m_r = o_r < N * N
    tl.store(mean_ptr + o_r, b_mean, mask=m_r)
    b_var = tl.sum(b_scatter, axis=0) / tl.maximum(b_images * C, 1.0)
    tl.store(var_ptr + o_r, b_var, mask=m_r)


@triton.jit
def apply_kernel(
    edge_ptr,
    projected_ptr,
    target_ptr,
    source_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    mask_ptr,
    out_ptr,
    N,
    target_stride,
    source_stride,
    eps,
    C: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own one target and a strip of channels."""
    i_batch = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1)
    i_target = i_batch * N + i
    o_j = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = (o_c < C)[None, :]
    m_j = present_sources(mask_ptr + i_batch * N, i, o_j, N, HAS_MASK)
    # [BLOCK_N, BLOCK_C]
    b_update = update_tile(
        projected_ptr + i_target * N * C,
        target_ptr + i_target * target_stride,
        source_ptr + i_batch * N * source_stride,
        m_j,
        o_j,
        o_c,
        C,
        source_stride,
    )
    b_weight, b_bias, b_mean, b_rstd = pair_values(
        weight_ptr, bias_ptr, mean_ptr, var_ptr, m_j, i * N + o_j, eps
    )
    b_normal = (b_update - b_mean[:, None]) * b_rstd[:, None]
    b_new = b_normal * b_weight[:, None] + b_bias[:, None]
    b_new = tl.where(b_new <= 0.0, 0.0, b_new)  # NaN stays NaN
    p_edge = i_target * N * C + o_j[:, None] * C + o_c[None, :]
    b_new += tl.load(edge_ptr + p_edge, mask=m_j[:, None] & m_c, other=0.0).to(tl.float32)
    b_new = tl.where(m_j[:, None], b_new, 0.0)
    tl.store(out_ptr + p_edge, b_new.to(out_ptr.dtype.element_ty), mask=(o_j < N)[:, None] & m_c)

"""Backward kernels of `edge_update`, whose docstring has the equations."""

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
def relu_gradients(grad_ptr, projected_ptr, ends, values, m_j, o_j, o_c, C: tl.constexpr):
    """Return z and h of one target, [BLOCK_N, BLOCK_C]; h is zero where absent, and kept at NaN.

    Args:
        grad_ptr: at the target's row of g.
        projected_ptr: at the target's row of p.
        ends: pointers to t of the target and to s of its graph, and the stride of s.
        values: a, b, mu and r of the target's pairs.
    """
    target_ptr, source_ptr, source_stride = ends
    b_weight, b_bias, b_mean, b_rstd = values
    b_update = update_tile(projected_ptr, target_ptr, source_ptr, m_j, o_j, o_c, C, source_stride)
    b_normal = (b_update - b_mean[:, None]) * b_rstd[:, None]
    m_tile = m_j[:, None] & (o_c < C)[None, :]
    p_grad = grad_ptr + o_j[:, None] * C + o_c[None, :]
    b_grad = tl.load(p_grad, mask=m_tile, other=0.0).to(tl.float32)
    b_new = b_normal * b_weight[:, None] + b_bias[:, None]
    return b_normal, tl.where(b_new <= 0.0, 0.0, b_grad)


@triton.jit
def gradient_moments_kernel(
    grad_ptr,
    projected_ptr,
    target_ptr,
    source_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    mask_ptr,
    sum_ptr,
    product_ptr,
    N,
    target_stride,
    source_stride,
    eps,
    C: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own one target of one image: sums of h and of h z over channels."""
    i_batch = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1)
    i_target = i_batch * N + i
    o_j = tl.arange(0, BLOCK_N)
    m_j = present_sources(mask_ptr + i_batch * N, i, o_j, N, HAS_MASK)
    grad_ptr += i_target * N * C
    projected_ptr += i_target * N * C
    target_ptr += i_target * target_stride
    source_ptr += i_batch * N * source_stride
    values = pair_values(weight_ptr, bias_ptr, mean_ptr, var_ptr, m_j, i * N + o_j, eps)
    ends = (target_ptr, source_ptr, source_stride)
    b_sum = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    b_product = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        # [BLOCK_N, BLOCK_C]
        b_normal, b_grad = relu_gradients(grad_ptr, projected_ptr, ends, values, m_j, o_j, o_c, C)
        b_sum += b_grad
        b_product += b_grad * b_normal
    p_pair = i_target * N + o_j
    tl.store(sum_ptr + p_pair, tl.sum(b_sum, axis=1), mask=o_j < N)
    tl.store(product_ptr + p_pair, tl.sum(b_product, axis=1), mask=o_j < N)


@triton.jit
def join_gradients_kernel(
    sum_ptr,
    product_ptr,
    mask_ptr,
    grad_weight_ptr,
    grad_bias_ptr,
    slope_ptr,
    share_ptr,
    B,
    N,
    C,
    HAS_MASK: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Own BLOCK_R pairs: da and db, and the same divided by n."""
    o_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    b_count = tl.zeros((BLOCK_B, BLOCK_R), tl.float32)
    b_sum = tl.zeros((BLOCK_B, BLOCK_R), tl.float32)
    b_product = tl.zeros((BLOCK_B, BLOCK_R), tl.float32)
    for b0 in range(0, B, BLOCK_B):
        o_b = b0 + tl.arange(0, BLOCK_B)
        m_pair = present_images(mask_ptr, o_b, o_r, B, N, HAS_MASK)
        p_pair = o_b[:, None].to(tl.int64) * N * N + o_r[None, :]
        b_count += m_pair.to(tl.float32)
        b_sum += tl.load(sum_ptr + p_pair, mask=m_pair, other=0.0)
        b_product += tl.load(product_ptr + p_pair, mask=m_pair, other=0.0)
    m_r = o_r < N * N
    b_scale = 1.0 / tl.maximum(tl.sum(b_count, axis=0) * C, 1.0)
    b_grad_weight, b_grad_bias = tl.sum(b_product, axis=0), tl.sum(b_sum, axis=0)
    tl.store(grad_weight_ptr + o_r, b_grad_weight, mask=m_r)
    tl.store(grad_bias_ptr + o_r, b_grad_bias, mask=m_r)
    tl.store(slope_ptr + o_r, b_grad_weight * b_scale, mask=m_r)
    tl.store(share_ptr + o_r, b_grad_bias * b_scale, mask=m_r)


@triton.jit
def gradient_kernel(
    grad_ptr,
    projected_ptr,
    target_ptr,
    source_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    mask_ptr,
    slope_ptr,
    share_ptr,
    grad_projected_ptr,
    grad_target_ptr,
    grad_source_ptr,
    N,
    target_stride,
    source_stride,
    eps,
    C: tl.constexpr,
    GIVEN: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a strip of channels of one graph; GIVEN: mu and var do not depend on u."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_j = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    mask_ptr += i_batch * N
    target_ptr += i_batch * N * target_stride
    source_ptr += i_batch * N * source_stride
    grad_target_ptr += i_batch * N * C
    p_node = o_j[:, None] * C + o_c[None, :]
    m_node = (o_j < N)[:, None] & m_c[None, :]
    b_grad_source = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for i in range(N):
        p_edge = (i_batch * N + i) * N * C
        m_j = present_sources(mask_ptr, i, o_j, N, HAS_MASK)
        p_pair = i * N + o_j
        values = pair_values(weight_ptr, bias_ptr, mean_ptr, var_ptr, m_j, p_pair, eps)
        ends = (target_ptr + i * target_stride, source_ptr, source_stride)
        # [BLOCK_N, BLOCK_C]
        b_normal, b_grad = relu_gradients(
            grad_ptr + p_edge, projected_ptr + p_edge, ends, values, m_j, o_j, o_c, C
        )
        if not GIVEN:
            b_share = tl.load(share_ptr + p_pair, mask=m_j, other=0.0)
            b_slope = tl.load(slope_ptr + p_pair, mask=m_j, other=0.0)
            b_grad = b_grad - b_share[:, None] - b_normal * b_slope[:, None]
        b_grad = tl.where(m_j[:, None], b_grad * (values[0] * values[3])[:, None], 0.0)
        b_grad_source += b_grad
        b_grad_target = tl.sum(b_grad, axis=0).to(grad_target_ptr.dtype.element_ty)
        tl.store(grad_target_ptr + i * C + o_c, b_grad_target, mask=m_c)
        b_grad = b_grad.to(grad_projected_ptr.dtype.element_ty)
        tl.store(grad_projected_ptr + p_edge + p_node, b_grad, mask=m_node)
    b_grad_source = b_grad_source.to(grad_source_ptr.dtype.element_ty)
    tl.store(grad_source_ptr + i_batch * N * C + p_node, b_grad_source, mask=m_node)

"""Device functions of `edge_update`, whose docstring has the equations."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def present_sources(mask_ptr, i, o_j, N, HAS_MASK: tl.constexpr):
    """Return which pairs (i, j) of one image exist, [BLOCK_N]."""
    m_j = o_j < N
    if HAS_MASK:
        m_j = m_j & (tl.load(mask_ptr + i) != 0)
        m_j = m_j & (tl.load(mask_ptr + o_j, mask=m_j, other=0) != 0)
    return m_j


@triton.jit
def present_images(mask_ptr, o_b, o_r, B, N, HAS_MASK: tl.constexpr):
    """Return which images have the pairs o_r = i N + j, [BLOCK_B, BLOCK_R]."""
    m_pair = (o_b < B)[:, None] & (o_r < N * N)[None, :]
    if HAS_MASK:
        p_image = mask_ptr + o_b[:, None].to(tl.int64) * N
        m_target = tl.load(p_image + (o_r // N)[None, :], mask=m_pair, other=0) != 0
        m_source = tl.load(p_image + (o_r % N)[None, :], mask=m_pair, other=0) != 0
        m_pair = m_pair & m_target & m_source
    return m_pair


@triton.jit
def update_tile(
    projected_ptr, target_ptr, source_ptr, m_j, o_j, o_c, C: tl.constexpr, source_stride
):
    """Return u of one target, [BLOCK_N, BLOCK_C], zero where absent."""
    m_tile = m_j[:, None] & (o_c < C)[None, :]
    p_projected = projected_ptr + o_j[:, None] * C + o_c[None, :]
    p_source = source_ptr + o_j[:, None] * source_stride + o_c[None, :]
    b_update = tl.load(p_projected, mask=m_tile, other=0.0).to(tl.float32)
    b_update += tl.load(p_source, mask=m_tile, other=0.0).to(tl.float32)
    b_update += tl.load(target_ptr + o_c, mask=o_c < C, other=0.0).to(tl.float32)[None, :]
    return tl.where(m_tile, b_update, 0.0)


@triton.jit
def pair_values(weight_ptr, bias_ptr, mean_ptr, var_ptr, m_j, o_j, eps):
    """Return a, b, mu and r of one target's pairs, [BLOCK_N] each."""
    b_var = tl.load(var_ptr + o_j, mask=m_j, other=1.0)
    return (
        tl.load(weight_ptr + o_j, mask=m_j, other=0.0),
        tl.load(bias_ptr + o_j, mask=m_j, other=0.0),
        tl.load(mean_ptr + o_j, mask=m_j, other=0.0),
        tl.rsqrt(b_var + eps),
    )

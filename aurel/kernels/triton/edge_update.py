"""Update of edges from their ends: broadcast sums, batch normalization, ReLU, residual.

Forward, for edges e, their projection p (B, N, N, C) and that of their ends t, s (B, N, C):
    u_ij = p_ij + t_i + s_j, z_ij = (u_ij - mu_ij) r_ij, y_ij = a_ij z_ij + b_ij,
    e'_ij = e_ij + max(y_ij, 0),
with mu, var (N, N) given, or those of u over images and channels, and r = (var + eps)^-1/2.
A statistics pass finds the mean and the sum of squares about it of each image's pair, strip of
channels by strip, and a small kernel joins the images: no square is taken before the mean is gone.
An apply pass computes u again.

Backward, from g = dL/de', with h = g where y > 0, and n values behind each pair's statistics:
    db = sum h, da = sum h z, over images and channels,
    dp = a r (h - db / n - z da / n), or a r h where mu and var were given,
    dt_i = sum_j dp_ij, ds_j = sum_i dp_ij, de = g.
Again a statistics pass, a small kernel that joins the images, and an apply pass, in which a program
owns a strip of channels of a whole graph and goes from target to target: ds adds up in registers.
No atomics, so every run gives the same bits. Of the forward pass mu and var alone are kept.

Absent pairs are not read and give zeros. Everything is float32 inside. C is a compile-time
constant: addresses of ragged rows then cost no registers. Up to `sizes.MAX_GATED_NODES` nodes, so
that all sources of a target fit into one tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import launch
from aurel.kernels.triton.sizes import power_of_two


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


@triton.jit
def relu_gradient(grad_ptr, b_normal, b_weight, b_bias, m_j, o_j, o_c, C: tl.constexpr):
    """Return h of one target, [BLOCK_N, BLOCK_C], zero where absent; NaN is no reason for zero."""
    m_tile = m_j[:, None] & (o_c < C)[None, :]
    p_grad = grad_ptr + o_j[:, None] * C + o_c[None, :]
    b_grad = tl.load(p_grad, mask=m_tile, other=0.0).to(tl.float32)
    return tl.where(b_normal * b_weight[:, None] + b_bias[:, None] <= 0.0, 0.0, b_grad)


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
        # What two means of c0 and of `width` values say of all of them.
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
    b_weight, b_bias, b_mean, b_rstd = pair_values(
        weight_ptr, bias_ptr, mean_ptr, var_ptr, m_j, i * N + o_j, eps
    )
    b_sum = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    b_product = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        # [BLOCK_N, BLOCK_C]
        b_update = update_tile(
            projected_ptr, target_ptr, source_ptr, m_j, o_j, o_c, C, source_stride
        )
        b_normal = (b_update - b_mean[:, None]) * b_rstd[:, None]
        b_grad = relu_gradient(grad_ptr, b_normal, b_weight, b_bias, m_j, o_j, o_c, C)
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
        p_pair = i * N + o_j
        m_j = present_sources(mask_ptr, i, o_j, N, HAS_MASK)
        b_weight, b_bias, b_mean, b_rstd = pair_values(
            weight_ptr, bias_ptr, mean_ptr, var_ptr, m_j, p_pair, eps
        )
        # [BLOCK_N, BLOCK_C]
        b_normal = update_tile(
            projected_ptr + p_edge,
            target_ptr + i * target_stride,
            source_ptr,
            m_j,
            o_j,
            o_c,
            C,
            source_stride,
        )
        b_normal = (b_normal - b_mean[:, None]) * b_rstd[:, None]
        b_grad = relu_gradient(grad_ptr + p_edge, b_normal, b_weight, b_bias, m_j, o_j, o_c, C)
        if not GIVEN:
            b_share = tl.load(share_ptr + p_pair, mask=m_j, other=0.0)
            b_slope = tl.load(slope_ptr + p_pair, mask=m_j, other=0.0)
            b_grad = b_grad - b_share[:, None] - b_normal * b_slope[:, None]
        b_grad = tl.where(m_j[:, None], b_grad * (b_weight * b_rstd)[:, None], 0.0)
        b_grad_source += b_grad
        tl.store(
            grad_target_ptr + i * C + o_c,
            tl.sum(b_grad, axis=0).to(grad_target_ptr.dtype.element_ty),
            mask=m_c,
        )
        tl.store(
            grad_projected_ptr + p_edge + p_node,
            b_grad.to(grad_projected_ptr.dtype.element_ty),
            mask=m_node,
        )
    tl.store(
        grad_source_ptr + i_batch * N * C + p_node,
        b_grad_source.to(grad_source_ptr.dtype.element_ty),
        mask=m_node,
    )


# Many images, and few pairs, to a program: or small graphs would keep a few programs busy for long.
JOIN: dict[str, Any] = {"BLOCK_B": 256, "BLOCK_R": 8, "num_warps": 8}


def strips(nodes: int) -> dict[str, Any]:
    """Return the launch options of kernels that own a strip of channels: eight values a thread."""
    block_n = power_of_two(nodes)
    block_c = 32 if block_n <= 64 else 16 if block_n <= 128 else 8
    return {"BLOCK_N": block_n, "BLOCK_C": block_c, "num_warps": block_n * block_c // 256}


def whole_rows(nodes: int) -> dict[str, Any]:
    """Return the launch options of kernels that go through all channels: wider strips."""
    block_n = power_of_two(nodes)
    warps = 8 if block_n <= 32 else 16
    return {"BLOCK_N": block_n, "BLOCK_C": 2048 // block_n, "num_warps": warps}


def rows(x: Tensor) -> Tensor:
    """Return x (B, N, C) as rows one stride apart, copied only if it is not laid out so."""
    as_rows = x.stride(2) == 1 and x.stride(0) == x.shape[1] * x.stride(1)
    return x if as_rows else x.contiguous()


def forward(
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new edges, and mean and variance of the batch, (N, N), empty if they were given.

    Args:
        edges: (B, N, N, C), target before source; float32, float16 or bfloat16.
        projected: (B, N, N, C), of such a dtype.
        target: (B, N, C), like `projected`.
        source: (B, N, C), like `projected`.
        weight: (N, N) float32.
        bias: (N, N) float32.
        mean: (N, N) float32, or None for that of the batch.
        var: (N, N) float32, or None.
        mask: (B, N) bool, True where the node exists, or None.
        eps: added to the variance.
    """
    edges, projected, target, source = (
        edges.contiguous(),
        projected.contiguous(),
        rows(target),
        rows(source),
    )
    batch, nodes, _, channels = edges.shape
    m = projected if mask is None else mask.contiguous()
    sizes = (nodes, target.stride(1), source.stride(1))
    statistics = (nodes, nodes) if mean is None or var is None else (0,)
    batch_mean, batch_var = weight.new_empty(statistics), weight.new_empty(statistics)
    if mean is None or var is None:
        moments = weight.new_empty((2, batch, nodes, nodes))
        launch(
            moments_kernel,
            (batch, nodes),
            projected,
            target,
            source,
            m,
            *moments,
            *sizes,
            C=channels,
            HAS_MASK=mask is not None,
            **whole_rows(nodes),
        )
        launch(
            join_moments_kernel,
            (triton.cdiv(nodes * nodes, JOIN["BLOCK_R"]),),
            *moments,
            m,
            batch_mean,
            batch_var,
            batch,
            nodes,
            channels,
            HAS_MASK=mask is not None,
            **JOIN,
        )
        mean, var = batch_mean, batch_var
    out = edges.new_empty(edges.shape)
    options = strips(nodes)
    launch(
        apply_kernel,
        (batch, nodes, triton.cdiv(channels, options["BLOCK_C"])),
        edges,
        projected,
        target,
        source,
        weight.contiguous(),
        bias.contiguous(),
        mean.contiguous(),
        var.contiguous(),
        m,
        out,
        *sizes,
        eps,
        C=channels,
        HAS_MASK=mask is not None,
        **options,
    )
    return out, batch_mean, batch_var


def backward(
    grad_out: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    eps: float,
    given: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of `projected`, `target`, `source`, `weight` and `bias`.

    Args:
        grad_out: (B, N, N, C), of the new edges.
        projected: (B, N, N, C).
        target: (B, N, C).
        source: (B, N, C).
        weight: (N, N).
        bias: (N, N).
        mean: (N, N), what was normalized by.
        var: (N, N).
        mask: (B, N) bool, or None.
        eps: added to the variance.
        given: mean and variance were not of the batch.
    """
    batch, nodes, _, channels = projected.shape
    inputs = (
        grad_out.contiguous(),
        projected.contiguous(),
        rows(target),
        rows(source),
        weight.contiguous(),
        bias.contiguous(),
        mean.contiguous(),
        var.contiguous(),
        projected if mask is None else mask.contiguous(),
    )
    sizes = (nodes, inputs[2].stride(1), inputs[3].stride(1), eps)
    moments = weight.new_empty((2, batch, nodes, nodes))
    launch(
        gradient_moments_kernel,
        (batch, nodes),
        *inputs,
        *moments,
        *sizes,
        C=channels,
        HAS_MASK=mask is not None,
        **whole_rows(nodes),
    )
    grad_weight, grad_bias, slope, share = (weight.new_empty(weight.shape) for _ in range(4))
    launch(
        join_gradients_kernel,
        (triton.cdiv(nodes * nodes, JOIN["BLOCK_R"]),),
        *moments,
        inputs[-1],
        grad_weight,
        grad_bias,
        slope,
        share,
        batch,
        nodes,
        channels,
        HAS_MASK=mask is not None,
        **JOIN,
    )
    grad_projected = projected.new_empty(projected.shape)
    grad_target, grad_source = target.new_empty(target.shape), source.new_empty(source.shape)
    options = strips(nodes)
    launch(
        gradient_kernel,
        (batch, triton.cdiv(channels, options["BLOCK_C"])),
        *inputs,
        slope,
        share,
        grad_projected,
        grad_target,
        grad_source,
        *sizes,
        C=channels,
        GIVEN=given,
        HAS_MASK=mask is not None,
        **options,
    )
    return grad_projected, grad_target, grad_source, grad_weight, grad_bias


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the tables of the options, on CPU tensors, to be compiled."""
    for nodes, channels, dtype, masked, given in (
        (12, 512, torch.float32, False, False),
        (12, 512, torch.bfloat16, False, True),
        (17, 65, torch.float32, True, False),
        (27, 512, torch.float16, False, False),
        (41, 40, torch.float32, True, False),
        (68, 65, torch.float32, True, False),
        (196, 65, torch.float32, True, False),
    ):
        edges = torch.empty(2, nodes, nodes, channels, dtype=dtype)
        ends = edges.new_empty(2, nodes, channels)
        pairs = torch.empty(nodes, nodes)
        mask = edges.new_empty((2, nodes), dtype=torch.bool) if masked else None
        known = pairs if given else None
        yield partial(forward, edges, edges, ends, ends, pairs, pairs, known, known, mask, 1e-5)
        yield partial(
            backward, edges, edges, ends, ends, pairs, pairs, pairs, pairs, mask, 1e-5, given
        )

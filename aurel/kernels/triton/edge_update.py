"""Update of edges from their ends: broadcast sums, batch normalization, ReLU, residual.

Forward, for edges e, their projection p (B, N, N, C) and that of their ends t, s (B, N, C):
    u_ij = p_ij + t_i + s_j, z_ij = (u_ij - mu_ij) r_ij, y_ij = a_ij z_ij + b_ij,
    e'_ij = e_ij + max(y_ij, 0),
with mu, var (N, N) given, or those of u over images and channels, and r = (var + eps)^-1/2.
A statistics pass finds the mean and the sum of squares about it of each image's pair, strip of
channels by strip, and a small kernel joins the images: squares are those of deviations from means.
An apply pass computes u again.

Backward, from g = dL/de', with h = g where y > 0, and n values behind each pair's statistics:
    db = sum h, da = sum h z, over images and channels,
    dp = a r (h - db / n - z da / n), or a r h where mu and var were given,
    dt_i = sum_j dp_ij, ds_j = sum_i dp_ij, de = g.
Again a statistics pass, a small kernel that joins the images, and an apply pass, in which a program
owns a strip of channels of a whole graph and goes from target to target: ds is summed in registers.
No atomics, so every run gives the same bits. The forward pass saves mu and var alone.

Absent pairs are not read and give zeros. Everything is float32 inside. C is a compile-time
constant: addresses of ragged rows then cost no registers. Up to `sizes.MAX_GATED_NODES` nodes, so
that all sources of a target fit into one tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.edge_update_backward import (
    gradient_kernel,
    gradient_moments_kernel,
    join_gradients_kernel,
)
from aurel.kernels.triton.edge_update_forward import (
    apply_kernel,
    join_moments_kernel,
    moments_kernel,
)
from aurel.kernels.triton.launch import PLANS, Launch, cdiv, empty_for
from aurel.kernels.triton.sizes import power_of_two

# Many images and few pairs a program: otherwise small graphs would keep only few programs busy.
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
    edges, projected = edges.contiguous(), projected.contiguous()
    target, source = rows(target), rows(source)
    batch, nodes, _, channels = edges.shape
    # Without a mask, any tensor takes its place: kernels do not read it.
    update = (projected, target, source, projected if mask is None else mask.contiguous())
    sizes = (nodes, target.stride(1), source.stride(1))
    masked = mask is not None
    batch_mean, batch_var = weight.new_empty(0), weight.new_empty(0)
    if mean is None or var is None:
        mean, var = batch_mean, batch_var = batch_statistics(
            update, sizes, mask is not None, weight
        )
    out = torch.empty_like(edges)
    values = (weight.contiguous(), bias.contiguous(), mean.contiguous(), var.contiguous())
    launch = apply_plan(batch, sizes, eps, channels, masked)
    launch(edges, *update[:3], *values, update[3], out)
    return out, batch_mean, batch_var


@lru_cache(PLANS)
def apply_plan(
    batch: int, sizes: tuple[int, int, int], eps: float, channels: int, masked: bool
) -> Launch:
    """Return the launch of `apply_kernel`."""
    nodes, options = sizes[0], strips(sizes[0])
    grid = (batch, nodes, cdiv(channels, options["BLOCK_C"]))
    return Launch(apply_kernel, grid, (*sizes, eps), C=channels, HAS_MASK=masked, **options)


@lru_cache(PLANS)
def moment_plan(
    kernel: Any, batch: int, sizes: tuple[Any, ...], channels: int, masked: bool
) -> Launch:
    """Return the launch of a kernel that sums over the channels of each image's pairs."""
    nodes = sizes[0]
    options = whole_rows(nodes)
    return Launch(kernel, (batch, nodes), sizes, C=channels, HAS_MASK=masked, **options)


@lru_cache(PLANS)
def join_plan(kernel: Any, batch: int, nodes: int, channels: int, masked: bool) -> Launch:
    """Return the launch of a kernel that joins the images."""
    grid = (cdiv(nodes * nodes, JOIN["BLOCK_R"]),)
    return Launch(kernel, grid, (batch, nodes, channels), HAS_MASK=masked, **JOIN)


def batch_statistics(
    update: tuple[Tensor, ...], sizes: tuple[int, int, int], masked: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of u over images and channels, (N, N) each.

    Args:
        update: projected edges, targets, sources and mask, as the kernels read them.
        sizes: N, and the strides of targets and sources.
        masked: the mask is one.
        like: a tensor of the dtype and device of the result.
    """
    batch, nodes, _, channels = update[0].shape
    image_mean = like.new_empty((batch, nodes, nodes))
    image_scatter = torch.empty_like(image_mean)
    mean = like.new_empty((nodes, nodes))
    var = torch.empty_like(mean)
    moments = moment_plan(moments_kernel, batch, sizes, channels, masked)
    moments(*update, image_mean, image_scatter)
    join = join_plan(join_moments_kernel, batch, nodes, channels, masked)
    join(image_mean, image_scatter, update[3], mean, var)
    return mean, var


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
        mean: (N, N), by which the update was normalized.
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
    pairs = pair_gradients(inputs, sizes, mask is not None)
    grads = (empty_for(projected), empty_for(target), empty_for(source))
    launch = gradient_plan(batch, sizes, channels, given, mask is not None)
    launch(*inputs, *pairs[2:], *grads)
    return *grads, pairs[0], pairs[1]


@lru_cache(PLANS)
def gradient_plan(
    batch: int, sizes: tuple[int, int, int, float], channels: int, given: bool, masked: bool
) -> Launch:
    """Return the launch of `gradient_kernel`."""
    options = strips(sizes[0])
    grid = (batch, cdiv(channels, options["BLOCK_C"]))
    constants = {"C": channels, "GIVEN": given, "HAS_MASK": masked}
    return Launch(gradient_kernel, grid, sizes, **constants, **options)


def pair_gradients(
    inputs: tuple[Tensor, ...], sizes: tuple[int, int, int, float], masked: bool
) -> list[Tensor]:
    """Return da, db, da / n and db / n, (N, N) each.

    Args:
        inputs: the tensors that all backward kernels read, the mask last.
        sizes: N, the strides of targets and sources, and eps.
        masked: the mask is one.
    """
    weight = inputs[4]
    batch, nodes, _, channels = inputs[1].shape
    image_sum = weight.new_empty((batch, nodes, nodes))
    image_product = torch.empty_like(image_sum)
    moments = moment_plan(gradient_moments_kernel, batch, sizes, channels, masked)
    moments(*inputs, image_sum, image_product)
    grads = [torch.empty_like(weight) for _ in range(4)]
    join = join_plan(join_gradients_kernel, batch, nodes, channels, masked)
    join(image_sum, image_product, inputs[-1], *grads)
    return grads


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
        statistics = (pairs if given else None,) * 2
        yield partial(forward, edges, edges, ends, ends, pairs, pairs, *statistics, mask, 1e-5)
        yield partial(
            backward, edges, edges, ends, ends, pairs, pairs, pairs, pairs, mask, 1e-5, given
        )

"""Update of edges from their ends, normalized pair by pair."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import gate_obstacle
from aurel.ops.arguments import (
    check_device,
    check_floating,
    check_mask,
    check_number,
    check_shape,
    check_tensor,
    promote,
)
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.edge_update_blocks import (
    absent_pairs,
    batch_statistics,
    blocks_of,
    images_of_pairs,
    normalized,
    updates,
    zero_absent,
)
from aurel.ops.masks import pair_mask
from aurel.ops.precision import wide_dtype
from aurel.ops.registration import Gradient, gradients_of_definition, operator


def edge_update_reference(
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Tensor, Tensor] | None = None,
    *,
    eps: float = 1e-5,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `edge_update` by its definition in plain torch, for tensors of one dtype."""
    dtype = wide_dtype(edges)
    update = projected.to(dtype) + target.to(dtype).unsqueeze(2) + source.to(dtype).unsqueeze(1)
    present = torch.ones_like(update, dtype=torch.bool)
    if mask is not None:
        present = present & pair_mask(mask).unsqueeze(3)
    update = update.where(present, 0.0)
    if statistics is None:
        count = present.sum((0, 3)).clamp_min(1)
        mean = update.sum((0, 3)) / count
        deviation = (update - mean.unsqueeze(2)).where(present, 0.0)
        var = deviation.square().sum((0, 3)) / count
    else:
        mean, var = statistics
    normal = (update - mean.unsqueeze(2)) * torch.rsqrt(var + eps).unsqueeze(2)
    new = edges + (normal * weight.unsqueeze(2) + bias.unsqueeze(2)).relu()
    return new.where(present, 0.0).to(edges.dtype), mean.detach(), var.detach()


def edge_update(
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Tensor, Tensor] | None = None,
    *,
    eps: float = 1e-5,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Add to each edge an update from itself and its ends, normalized over images and channels.

    .. math::
        e'_{ij} = e_{ij} + \mathrm{ReLU}\Big(\gamma_{ij}
            \frac{u_{ij} - \mu_{ij}}{\sqrt{\sigma^2_{ij} + \epsilon}} + \beta_{ij}\Big), \qquad
        u_{ij} = p_{ij} + t_i + s_j

    with given statistics, or the mean and the (biased) variance of :math:`u_{ij}` over images and
    channels, through which gradients then flow. Float32 at least inside.

    Args:
        edges: :math:`e`, (B, N, N, C), the target i before the source j.
        projected: :math:`p`, (B, N, N, C), such as a linear map of the edges.
        target: :math:`t`, (B, N, C).
        source: :math:`s`, (B, N, C).
        weight: :math:`\gamma`, (N, N).
        bias: :math:`\beta`, (N, N).
        statistics: :math:`\mu` and :math:`\sigma^2`, (N, N) each, constants; None for those of
            this batch.
        eps: :math:`\epsilon`, 0 or more.
        mask: (B, N) bool, True where the node exists; absent pairs get zeros and count in no sum.
        backend: see `aurel.use_backend`.

    Returns:
        :math:`e'`, (B, N, N, C), in the common dtype of the tensors (B, ...), and :math:`\mu` and
        :math:`\sigma^2`, (N, N), without a gradient; zero for a pair that no image has.

    Raises:
        ValueError, TypeError: an argument has the wrong shape, dtype, value or type.

    Source: Luo et al., IJCAI 2022 (ME-GraphAU), section 3.2; the N^2 channels are in their code.
    """
    _check_arguments(edges, projected, target, source, weight, bias, statistics)
    _check_options(target, mask, eps)
    mean, var = (None, None) if statistics is None else statistics
    projected, target, source = promote(projected, target, source)
    edges = edges.to(torch.promote_types(edges.dtype, projected.dtype))
    wide = wide_dtype(edges)
    weight, bias = weight.to(wide), bias.to(wide)
    if mean is not None and var is not None:
        mean, var = mean.detach().to(wide), var.detach().to(wide)
    nodes = edges.shape[1]
    impl = resolve_backend("edge_update", backend, (edges, projected), lambda: gate_obstacle(nodes))
    out, batch_mean, batch_var = _edge_update(
        edges, projected, target, source, weight, bias, mean, var, mask, float(eps), impl
    )
    return (out, batch_mean, batch_var) if mean is None or var is None else (out, mean, var)


def _check_options(target: Tensor, mask: Tensor | None, eps: float) -> None:
    check_mask(mask, target)
    check_number("eps", eps)
    if not eps >= 0:
        raise ValueError(f"eps must be 0 or more, got {eps}")


def _check_arguments(
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
) -> None:
    """Raise ValueError or TypeError unless these tensors fit together."""
    check_tensor("edges", edges)
    check_shape("edges", edges, "B N N C", N=edges.shape[1] if edges.ndim > 1 else 0)
    batch, nodes, _, channels = edges.shape
    check_shape("projected", projected, "B N N C", B=batch, N=nodes, C=channels)
    for name, ends in (("target", target), ("source", source)):
        check_shape(name, ends, "B N C", B=batch, N=nodes, C=channels)
    pairs = {"weight": weight, "bias": bias}
    if statistics is not None:
        if not isinstance(statistics, tuple) or len(statistics) != 2:
            raise TypeError(f"statistics must be a pair of tensors or None, got {statistics!r}")
        pairs |= {"mean": statistics[0], "var": statistics[1]}
    for name, tensor in pairs.items():
        check_shape(name, tensor, "N N", N=nodes)
    rest = {"edges": edges, "projected": projected, "target": target, "source": source}
    for name, tensor in (rest | pairs).items():
        check_floating(name, tensor)
        check_device(name, tensor, edges)


def _shapes(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    pairs = call.weight.shape if call.mean is None else (0,)
    new = call.edges.new_empty(call.edges.shape)
    return new, call.weight.new_empty(pairs), call.weight.new_empty(pairs)


def _define(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs = (call.edges, call.projected, call.target, call.source, call.weight, call.bias)
    statistics = None if call.mean is None else (call.mean, call.var)
    new, mean, var = edge_update_reference(*inputs, statistics, eps=call.eps, mask=call.mask)
    if statistics is None:
        return new, mean, var
    return new, mean.new_empty(0), mean.new_empty(0)


def _backward_shapes(call: Any) -> tuple[Tensor, ...]:
    inputs = (call.projected, call.target, call.source, call.weight, call.bias)
    return tuple(each.new_empty(each.shape) for each in inputs)


@operator(shapes=_backward_shapes, definition=None, flops=None, gradient=None)
def _edge_update_backward(
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
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = (projected, target, source)
    if projected.numel() == 0:  # torch's batch normalization would divide by it
        zeros = [torch.zeros_like(each) for each in (*inputs, weight, bias)]
        return zeros[0], zeros[1], zeros[2], zeros[3], zeros[4]
    absent = absent_pairs(mask)
    compute = updates(*inputs, weight.dtype, absent)
    update, grad_new = weight.new_empty((2, *projected.shape))
    for block in blocks_of(projected):
        update[block] = compute(block)
        new = normalized(update[block], weight, bias, mean, var, eps)
        grad = grad_out[block].to(weight.dtype)
        zero_absent(grad_new[block].copy_(grad.where(new > 0, 0.0)), absent, block)
    # torch computes the gradient through the statistics where every image has every pair.
    rstd = (var + eps).rsqrt_()
    grad, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
        grad_new.flatten(1, 2),
        update.flatten(1, 2),
        *(each.flatten() for each in (weight, mean, var, mean, rstd)),
        not given and absent is None,
        eps,
        [True, True, True],
    )
    del grad_new
    grad = grad.view(update.shape)
    grad_weight, grad_bias = grad_weight.view(weight.shape), grad_bias.view(weight.shape)
    if not given and absent is not None:
        share = weight * rstd / (images_of_pairs(len(update), absent) * update.shape[3])
        through = share * grad_weight, share * grad_bias, mean, var, eps
        for block in blocks_of(update):
            grad[block].sub_(normalized(update[block], *through))
            zero_absent(grad[block], absent, block)
    grads = (grad, grad.sum(2), grad.sum(1))
    narrow = [each.to(like.dtype) for each, like in zip(grads, inputs, strict=True)]
    return narrow[0], narrow[1], narrow[2], grad_weight, grad_bias


def _save(ctx: Any, call: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.given, ctx.eps = call.mean is not None, call.eps
    statistics = (call.mean, call.var) if ctx.given else output[1:]
    inputs = (call.projected, call.target, call.source, call.weight, call.bias)
    ctx.save_for_backward(*inputs, *statistics, call.mask)


def _backward(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grads = _edge_update_backward(grad_out, *saved, ctx.eps, ctx.given, ctx.impl)
    return _gradient_of_edges(grad_out, saved[-1]), *grads, *(None,) * 5


def _backward_in_torch(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    *inputs, mean, var, mask = ctx.saved_tensors
    statistics = (mean, var) if ctx.given else None

    def update(p: Tensor, t: Tensor, s: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
        inputs = (torch.zeros_like(p), p, t, s, weight, bias)
        return edge_update_reference(*inputs, statistics, eps=ctx.eps, mask=mask)[:1]

    grads = gradients_of_definition(update, inputs, (grad_out,))
    return _gradient_of_edges(grad_out, mask), *grads, *(None,) * 5


def _gradient_of_edges(grad_out: Tensor, mask: Tensor | None) -> Tensor:
    """Return the gradient of the edges: that of the new edges, zero where a pair is absent."""
    if mask is None:
        return grad_out
    return grad_out.where(pair_mask(mask).unsqueeze(3), 0.0)


@operator(
    shapes=_shapes,
    definition=_define,
    flops=None,
    gradient=Gradient(_save, _backward, _backward_in_torch),
)
def _edge_update(
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
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if edges.numel() == 0:
        pairs = weight.shape if mean is None else (0,)
        return edges.clone(), weight.new_zeros(pairs), weight.new_zeros(pairs)
    absent = absent_pairs(mask)
    update = updates(projected, target, source, weight.dtype, absent)
    statistics = weight.new_empty(0), weight.new_empty(0)
    if mean is None or var is None:
        mean, var = statistics = batch_statistics(edges, update, weight, absent)
    out = edges.new_empty(edges.shape)
    for block in blocks_of(edges):
        new = normalized(update(block), weight, bias, mean, var, eps).relu_()
        zero_absent(torch.add(new, edges[block], out=out[block]), absent, block)
    return out, *statistics

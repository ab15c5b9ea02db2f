"""Update of edges from their ends, normalised pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from aurel_kernels.sizes import gate_obstacle
from torch import Tensor

from aurel.ops.arguments import check_device, check_floating, check_mask, check_shape, promote
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.image_blocks import image_blocks
from aurel.ops.triton_support import triton_obstacle

# Values computed at a time: on a CPU what stays in cache, elsewhere what keeps the device busy.
_CPU_BLOCK = 2**18
_DEVICE_BLOCK = 2**26


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
    """Define `edge_update` in plain torch, for edges of one dtype without NaN."""
    dtype = torch.promote_types(edges.dtype, torch.float32)
    update = projected.to(dtype) + target.to(dtype).unsqueeze(2) + source.to(dtype).unsqueeze(1)
    present = torch.ones_like(update)
    if mask is not None:
        present *= (mask.unsqueeze(2) & mask.unsqueeze(1)).unsqueeze(3)
    if statistics is None:
        count = present.sum((0, 3)).clamp_min(1)
        mean = (update * present).sum((0, 3)) / count
        deviation = (update - mean.unsqueeze(2)) * present
        var = deviation.square().sum((0, 3)) / count
    else:
        mean, var = statistics
    normal = (update - mean.unsqueeze(2)) * torch.rsqrt(var + eps).unsqueeze(2)
    new = edges + (normal * weight.unsqueeze(2) + bias.unsqueeze(2)).relu()
    return (new * present).to(edges.dtype), mean.detach(), var.detach()


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
    r"""Add to each edge what it and its ends say, normalised over images and channels.

    .. math::
        e'_{ij} = e_{ij} + \mathrm{ReLU}\Big(\gamma_{ij}
            \frac{u_{ij} - \mu_{ij}}{\sqrt{\sigma^2_{ij} + \epsilon}} + \beta_{ij}\Big), \qquad
        u_{ij} = p_{ij} + t_i + s_j

    with given statistics, or the mean and the (biased) variance of :math:`u_{ij}` over images and
    channels, through which gradients then flow. Float32 at least inside. For the backward pass the
    kernels keep nothing but the inputs; torch keeps u, and so need not keep p.

    Args:
        edges: :math:`e`, (B, N, N, C), the target i before the source j.
        projected: :math:`p`, (B, N, N, C), such as a linear map of the edges.
        target: :math:`t`, (B, N, C).
        source: :math:`s`, (B, N, C).
        weight: :math:`\gamma`, (N, N).
        bias: :math:`\beta`, (N, N).
        statistics: :math:`\mu` and :math:`\sigma^2`, (N, N) each, constants; None for those of
            this batch.
        eps: :math:`\epsilon`.
        mask: (B, N) bool, True where the node exists; absent pairs enter no statistic and get
            zeros, whatever lies there.
        backend: see `aurel.ops.backend`.

    Returns:
        :math:`e'`, (B, N, N, C), in the common dtype of edges and rest, and :math:`\mu` and
        :math:`\sigma^2`, (N, N), without a gradient; zero for a pair that no image has.

    Raises:
        ValueError: a shape or dtype does not fit.

    Source: section 3.2 of Luo et al., IJCAI 2022 (ME-GraphAU), with the normalisation over
    :math:`N^2` channels of their code.
    """
    check_shape("edges", edges, "B N N C", N=edges.shape[1] if edges.ndim > 1 else 0)
    batch, nodes, _, channels = edges.shape
    check_shape("projected", projected, "B N N C", B=batch, N=nodes, C=channels)
    for name, ends in (("target", target), ("source", source)):
        check_shape(name, ends, "B N C", B=batch, N=nodes, C=channels)
    told = statistics or ()
    pairs = dict(zip(("weight", "bias", "mean", "var"), (weight, bias, *told), strict=False))
    for name, tensor in pairs.items():
        check_shape(name, tensor, "N N", N=nodes)
    rest = {"edges": edges, "projected": projected, "target": target, "source": source}
    for name, tensor in (rest | pairs).items():
        check_floating(name, tensor)
        check_device(name, tensor, edges)
    check_mask(mask, target)
    projected, target, source = promote(projected, target, source)
    edges = edges.to(torch.promote_types(edges.dtype, projected.dtype))
    wide = torch.promote_types(edges.dtype, torch.float32)
    weight, bias = weight.to(wide), bias.to(wide)
    mean, var = (None, None) if statistics is None else (each.to(wide) for each in told)
    obstacle = triton_obstacle(edges, gate_obstacle(nodes))
    impl = resolve_backend("edge_update", backend, edges, obstacle)
    given = (edges, projected, target, source, weight, bias)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    out, batch_mean, batch_var, _ = _edge_update(*given, mean, var, mask, eps, keep, impl)
    if mean is None or var is None:
        return out, batch_mean, batch_var
    return out, mean, var


def _blocks(edges: Tensor) -> Iterator[slice]:
    """Yield the images of one block."""
    budget = _CPU_BLOCK if edges.device.type == "cpu" else _DEVICE_BLOCK
    return image_blocks(edges, budget)


def _absent(mask: Tensor | None) -> Tensor | None:
    """Return which pairs do not exist, (B, N, N, 1)."""
    return None if mask is None else ~(mask.unsqueeze(2) & mask.unsqueeze(1)).unsqueeze(3)


def _silence(x: Tensor, absent: Tensor | None, block: slice) -> Tensor:
    """Fill x, of a block, with zeros where a pair is absent."""
    return x if absent is None else x.masked_fill_(absent[block], 0.0)


def _images(batch: int, absent: Tensor | None) -> Tensor | int:
    """Return how many images have each pair, (N, N) or one number; 1 where none has."""
    return max(1, batch) if absent is None else (~absent.squeeze(3)).sum(0).clamp_min_(1)


def _joined(
    means: Tensor, norms: Tensor, channels: int, absent: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return mean and variance from means, and norms of deviations from them, of the images."""
    images = _images(len(means), absent)
    mean = means.sum(0) / images
    gaps = means - mean
    if absent is not None:
        gaps.masked_fill_(absent.squeeze(3), 0.0)
    var = torch.add(norms.square(), gaps.square_(), alpha=channels).sum(0)
    return mean, var / (images * channels)


def _normalised(
    update: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """Return what the ReLU takes, in one pass."""
    mean, var, weight, bias = (each.flatten() for each in (mean, var, weight, bias))
    new = F.batch_norm(update.flatten(1, 2), mean, var, weight, bias, eps=eps)
    return new.view(update.shape)


def _forward(
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
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    absent = _absent(mask)
    kept = weight.new_empty(projected.shape if keep else (0,))

    def update(block: slice) -> Tensor:
        """Return u, zero where absent."""
        room = kept[block] if keep else None
        out = torch.add(projected[block].to(weight.dtype), target[block].unsqueeze(2), out=room)
        return _silence(out.add_(source[block].unsqueeze(1)), absent, block)

    learned = mean is None or var is None
    statistics = weight.new_empty(0), weight.new_empty(0)
    if mean is None or var is None:
        means, norms = weight.new_empty((2, *projected.shape[:3]))
        for block in _blocks(edges):
            values = update(block)
            torch.mean(values, 3, out=means[block])
            deviations = values - means[block].unsqueeze(3)
            torch.linalg.vector_norm(deviations, dim=3, out=norms[block])
        mean, var = statistics = _joined(means, norms, edges.shape[3], absent)
    out = edges.new_empty(edges.shape)
    for block in _blocks(edges):
        values = kept[block] if keep and learned else update(block)
        new = _normalised(values, weight, bias, mean, var, eps).relu_()
        _silence(torch.add(new, edges[block], out=out[block]), absent, block)
    return out, *statistics, kept


def _backward_of_update(
    grad_out: Tensor,
    update: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    eps: float,
    given: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if update.numel() == 0:  # torch's batch normalisation would divide by it
        nothing = torch.zeros_like(weight), torch.zeros_like(bias)
        return torch.zeros_like(update), update.sum(2), update.sum(1), *nothing
    absent = _absent(mask)
    grad_new = update.new_empty(update.shape)
    threshold_backward = torch.ops.aten.threshold_backward.grad_input
    for block in _blocks(update):
        new = _normalised(update[block], weight, bias, mean, var, eps)
        grad = grad_out[block].to(update.dtype)
        _silence(threshold_backward(grad, new, 0.0, grad_input=grad_new[block]), absent, block)
    # Where all images have all pairs, torch knows what flows through the statistics.
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
        share = weight * rstd / (_images(len(update), absent) * update.shape[3])
        through = share * grad_weight, share * grad_bias, mean, var, eps
        for block in _blocks(update):
            grad[block].sub_(_normalised(update[block], *through))
            _silence(grad[block], absent, block)
    return grad, grad.sum(2), grad.sum(1), grad_weight, grad_bias


@torch.library.custom_op("aurel::edge_update", mutates_args=())
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
    keep: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = (edges, projected, target, source, weight, bias, mean, var, mask, eps)
    if impl == "triton":
        kernels = import_module("aurel_kernels.edge_update")
        return *kernels.forward(*given), weight.new_empty(0)
    return _forward(*given, keep)


@_edge_update.register_fake
def _(
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
    keep: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pairs = weight.shape if mean is None or var is None else (0,)
    kept = projected.shape if keep and impl == "torch" else (0,)
    new = edges.new_empty(edges.shape)
    return new, weight.new_empty(pairs), weight.new_empty(pairs), weight.new_empty(kept)


@torch.library.custom_op("aurel::edge_update_backward", mutates_args=())
def _edge_update_backward(
    grad_out: Tensor,
    update: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    eps: float,
    given: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`update`: u, or for Triton the three parts of it."""
    if impl == "triton":
        kernels = import_module("aurel_kernels.edge_update")
        return kernels.backward(grad_out, *update, weight, bias, mean, var, mask, eps, given)
    return _backward_of_update(grad_out, update[0], weight, bias, mean, var, mask, eps, given)


@_edge_update_backward.register_fake
def _(
    grad_out: Tensor,
    update: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    eps: float,
    given: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, nodes, _, channels = update[0].shape
    target, source = (update[0].new_empty((batch, nodes, channels)) for _ in range(2))
    grad_weight, grad_bias = (weight.new_empty(weight.shape) for _ in range(2))
    return update[0].new_empty(update[0].shape), target, source, grad_weight, grad_bias


def _setup_context(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    _, *update, weight, bias, mean, var, mask, ctx.eps, _, ctx.impl = inputs
    ctx.set_materialize_grads(False)  # or backward would fill zeros as large as u for it
    ctx.mark_non_differentiable(*output[1:])
    ctx.given, ctx.dtype = mean is not None, update[0].dtype
    statistics = (mean, var) if ctx.given else output[1:3]
    kept = update if ctx.impl == "triton" else output[3:]
    ctx.save_for_backward(weight, bias, *statistics, mask, *kept)


def _backward(ctx: Any, grad_out: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        return (None,) * 12
    *pairs, mask = ctx.saved_tensors[:5]
    kept = list(ctx.saved_tensors[5:])
    grads = _edge_update_backward(grad_out, kept, *pairs, mask, ctx.eps, ctx.given, ctx.impl)
    if mask is not None:
        grad_out = grad_out.where((mask.unsqueeze(2) & mask.unsqueeze(1)).unsqueeze(3), 0.0)
    update = (grad.to(ctx.dtype) for grad in grads[:3])
    return grad_out, *update, *grads[3:], None, None, None, None, None, None


_edge_update.register_autograd(_backward, setup_context=_setup_context)

"""Two moments of the attention between the tokens of every pair of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import pair_obstacle
from aurel.ops.arguments import check_input
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.precision import wide_dtype
from aurel.ops.registration import Gradient, gradients_of_definition, operator

# Attention weights computed at a time: on a CPU as many as fit in the cache, elsewhere enough to
# keep the device busy.
_CPU_BLOCK = 2**18
_DEVICE_BLOCK = 2**26


def pair_pool_reference(
    query: Tensor, key: Tensor, gram: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Compute `pair_pool` by its definition in plain torch; holds (B, N, N, D, D)."""
    dtype = wide_dtype(query)
    scores = torch.einsum("bjde,bipe->bijdp", query.to(dtype), key.to(dtype))
    attention = scores.softmax(-1)
    mean = attention.mean(3)
    if gram is None:
        return mean, None
    deviation = attention - mean.unsqueeze(3)
    return mean, torch.einsum("bijdp,bipq,bijdq->bij", deviation, gram.to(dtype), deviation)


def pair_pool(
    query: Tensor, key: Tensor, gram: Tensor | None = None, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor | None]:
    r"""Attend from each node's tokens to each other node's, and pool over the querying tokens.

    .. math::
        A_{ij} = \mathrm{softmax}(L_j R_i^\top), \qquad
        w_{ij} = \tfrac1D \textstyle\sum_d a_d, \qquad
        s_{ij} = \textstyle\sum_d (a_d - w_{ij})\, G_i\, (a_d - w_{ij})^\top

    with :math:`a_d` the rows of :math:`A_{ij}`. For values :math:`V_i` with
    :math:`G_i = V_i V_i^\top`, the mean over tokens of :math:`A_{ij} V_i` is
    :math:`w_{ij} V_i`, and :math:`s_{ij}` is its sum of squares about that mean. The backward pass
    computes the attention again, so memory grows with :math:`B N^2 D`, not with
    :math:`B N^2 D^2`. Float32 at least, also under autocast.

    Args:
        query: :math:`L`, (B, N, D, E), of the source nodes j, scaled already.
        key: :math:`R`, (B, N, D, E), of the target nodes i.
        gram: :math:`G`, (B, N, D, D), or None if the scatter is not needed. Values centered over
            tokens give the same scatter with less rounding.
        backend: see `aurel.use_backend`.

    Returns:
        :math:`w`, (B, N, N, D), and :math:`s`, (B, N, N) or None, both with the target i before the
        source j.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_input("query", query, "B N D E")
    batch, nodes, tokens, width = query.shape
    check_input("key", key, "B N D E", query, B=batch, N=nodes, D=tokens, E=width)
    if gram is not None:
        check_input("gram", gram, "B N D D", query, B=batch, N=nodes, D=tokens)
    dtype = wide_dtype(query, key, *(() if gram is None else (gram,)))
    query, key = query.to(dtype), key.to(dtype)
    gram = None if gram is None else gram.to(dtype)
    impl = resolve_backend("pair_pool", backend, (query,), lambda: pair_obstacle(tokens))
    mean, scatter = _pair_pool(query, key, gram, impl)
    return mean, None if gram is None else scatter


def _blocks(query: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of images and of target nodes: whole images, or part of one."""
    batch, nodes, tokens, _ = query.shape
    budget = _CPU_BLOCK if query.device.type == "cpu" else _DEVICE_BLOCK
    image = max(1, nodes * nodes * tokens * tokens)
    images = max(1, budget // image)
    # An image larger than the budget is cut into parts of about the same size.
    targets = max(1, -(-nodes // -(-image // budget)))
    for first in range(0, batch, images):
        for target in range(0, nodes, targets):
            yield slice(first, first + images), slice(target, target + targets)


def _attention(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention (b, i, j, d, p) of queries (b, j, d, e) over keys (b, i, p, e)."""
    images, nodes, tokens, width = query.shape
    targets = key.shape[1]
    query = query.reshape(images, 1, nodes * tokens, width).expand(-1, targets, -1, -1)
    # The product is twice as fast when the transpose lies in memory.
    scores = query @ key.mT.contiguous()
    return scores.softmax(-1).view(images, targets, nodes, tokens, tokens)


def _moments(query: Tensor, key: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, nodes, tokens, _ = query.shape
    mean = query.new_empty(batch, nodes, nodes, tokens)
    scatter = query.new_empty((0,) if gram is None else (batch, nodes, nodes))
    for images, targets in _blocks(query):
        attention = _attention(query[images], key[images, targets])
        mean[images, targets] = attention.mean(3)
        if gram is not None:
            deviation = attention.sub_(mean[images, targets].unsqueeze(3)).flatten(2, 3)
            squares = (deviation @ gram[images, targets]).mul_(deviation)
            scatter[images, targets] = squares.view(*attention.shape[:3], -1).sum(3)
    return mean, scatter


def _moments_backward(
    grad_mean: Tensor,
    grad_scatter: Tensor,
    mean: Tensor,
    query: Tensor,
    key: Tensor,
    gram: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    tokens = query.shape[2]
    grad_query, grad_key = query.new_zeros(query.shape), key.new_empty(key.shape)
    grad_gram = query.new_empty((0,) if gram is None else gram.shape)
    # Every querying token has the same share in the mean.
    grad_mean = (grad_mean / tokens).unsqueeze(3)
    for images, targets in _blocks(query):
        attention = _attention(query[images], key[images, targets])
        grad = grad_mean[images, targets]
        if gram is None:
            grad = grad.expand_as(attention)
        else:
            deviation = attention - mean[images, targets].unsqueeze(3)
            weighted = deviation * grad_scatter[images, targets, :, None, None]
            weighted, deviation = weighted.flatten(2, 3), deviation.flatten(2, 3)
            grad_gram[images, targets] = weighted.mT @ deviation
            symmetric = gram[images, targets] + gram[images, targets].mT
            grad = (weighted @ symmetric).view_as(attention).add_(grad)
        grad = torch.ops.aten._softmax_backward_data(grad, attention, -1, attention.dtype)
        grad = grad.flatten(2, 3)
        rows = query[images].flatten(1, 2)
        grad_key[images, targets] = grad.mT @ rows.unsqueeze(1)
        grad_rows = grad_query[images].view_as(rows)
        for target in range(grad.shape[1]):
            grad_rows.baddbmm_(grad[:, target], key[images, targets][:, target])
    return grad_query, grad_key, grad_gram


def _shapes(call: Any) -> tuple[Tensor, Tensor]:
    batch, nodes, tokens, _ = call.query.shape
    mean = call.query.new_empty((batch, nodes, nodes, tokens))
    return mean, call.query.new_empty((0,) if call.gram is None else (batch, nodes, nodes))


def _define(call: Any) -> tuple[Tensor, Tensor]:
    mean, scatter = pair_pool_reference(call.query, call.key, call.gram)
    return mean, mean.new_empty(0) if scatter is None else scatter


def _count_flops(call: Any) -> int:
    """Count scores, and products with the Gram matrices; `call` holds shapes."""
    batch, nodes, tokens, width = call.query
    inner = width if call.gram is None else width + tokens
    return int(2 * batch * nodes * nodes * tokens * tokens * inner)


def _backward_shapes(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    gram = (0,) if call.gram is None else call.gram.shape
    return (
        call.query.new_empty(call.query.shape),
        call.key.new_empty(call.key.shape),
        call.query.new_empty(gram),
    )


@operator(shapes=_backward_shapes, definition=None, flops=None, gradient=None)
def _pair_pool_backward(
    grad_mean: Tensor,
    grad_scatter: Tensor,
    mean: Tensor,
    query: Tensor,
    key: Tensor,
    gram: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return _moments_backward(grad_mean, grad_scatter, mean, query, key, gram)


def _save(ctx: Any, call: Any, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[0], call.query, call.key, call.gram)


def _backward(
    ctx: Any, grad_mean: Tensor | None, grad_scatter: Tensor | None
) -> tuple[Tensor | None, ...]:
    mean, query, key, gram = ctx.saved_tensors
    if grad_mean is None:
        grad_mean = torch.zeros_like(mean)
    used = gram  # only the scatter depends on it
    if grad_scatter is None:
        grad_scatter, used = mean.new_empty(0), None
    grad_query, grad_key, grad_gram = _pair_pool_backward(
        grad_mean, grad_scatter, mean, query, key, used, ctx.impl
    )
    if gram is not None and used is None:
        grad_gram = torch.zeros_like(gram)
    return grad_query, grad_key, None if gram is None else grad_gram, None


def _backward_in_torch(
    ctx: Any, grad_mean: Tensor | None, grad_scatter: Tensor | None
) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors[1:]
    grad_scatter = None if inputs[2] is None else grad_scatter
    grads = gradients_of_definition(pair_pool_reference, inputs, (grad_mean, grad_scatter))
    return *grads, None


@operator(
    shapes=_shapes,
    definition=_define,
    flops=_count_flops,
    gradient=Gradient(_save, _backward, _backward_in_torch),
)
def _pair_pool(query: Tensor, key: Tensor, gram: Tensor | None, impl: str) -> tuple[Tensor, Tensor]:
    return _moments(query, key, gram)

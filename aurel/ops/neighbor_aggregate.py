"""Maximum, mean or sum over a given list of neighbors."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.kernels.triton.sizes import graph_obstacle
from aurel.kernels.winners import winner_dtype
from aurel.ops.arguments import check_choice, check_device, check_input, check_shape
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import at_least_float32
from aurel.ops.gather_reduce import (
    add_to_winner,
    max_over_neighbors,
    sum_over_neighbors,
    sum_over_neighbors_backward,
)
from aurel.ops.pyg_support import check_finite, pyg_obstacle, reduce_segments
from aurel.ops.registration import Gradient, operator

Reduce = Literal["max", "mean", "sum"]
REDUCTIONS = ("max", "mean", "sum")


def neighbor_aggregate_reference(x: Tensor, neighbors: Tensor, reduce: Reduce = "max") -> Tensor:
    """Compute `neighbor_aggregate` by its definition: gather (B, N, K, C), reduce over K."""
    samples = torch.arange(x.shape[0], device=x.device)[:, None, None]
    empty = (neighbors < 0)[..., None]
    # Empty slots get an additional last row, of zeros.
    gathered = F.pad(x, (0, 0, 0, 1))[samples, neighbors.where(neighbors >= 0, x.shape[1])]
    if reduce == "max":
        slot = gathered.detach().masked_fill(empty, -torch.inf).argmax(2, keepdim=True)
        # A neighbor of -inf wins over an empty slot before it.
        first = (~empty).to(torch.uint8).argmax(2, keepdim=True)
        slot = torch.where(empty.expand_as(gathered).gather(2, slot), first, slot)
        return gathered.gather(2, slot).squeeze(2).masked_fill(empty.all(2), 0)
    total = at_least_float32(gathered).masked_fill(empty, 0).sum(2)
    return (total / (~empty).sum(2).clamp_min(1) if reduce == "mean" else total).to(x.dtype)


def neighbor_aggregate(
    x: Tensor, neighbors: Tensor, reduce: Reduce = "max", *, backend: Backend = "auto"
) -> Tensor:
    r"""Reduce the features of every node's neighbors.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} x_j \quad\text{(or the mean, or the sum)}

    The gradient of a maximum goes to the first (nearest) neighbor that attains it.

    Args:
        x: features of the sources, (B, M, C), floating point.
        neighbors: (B, N, K) int64, K >= 1, rows of x, as `knn_graph` gives; -1 is an empty slot.
        reduce: "max", "mean" or "sum".
        backend: see `aurel.use_backend`. "pyg" is torch-scatter: finite float32 and float64.

    Returns:
        (B, N, C), 0 where a node has no neighbor.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value. (That indices are in range
            is checked on a CPU; elsewhere an index out of range counts as an empty slot.)
        TypeError: an argument has the wrong type.
    """
    check_input("x", x, "B N C")
    check_shape("neighbors", neighbors, "B N K", B=x.shape[0])
    if neighbors.dtype != torch.int64 or neighbors.shape[2] == 0:
        raise ValueError(
            f"neighbors must be int64 with K >= 1, got {neighbors.dtype} with "
            f"K = {neighbors.shape[2]}"
        )
    check_device("neighbors", neighbors, x)
    check_choice("reduce", reduce, REDUCTIONS)
    impl = resolve_backend(
        "neighbor_aggregate",
        backend,
        (x,),
        lambda: graph_obstacle(max(x.shape[1], neighbors.shape[1]), x.shape[2], neighbors.shape[2]),
        lambda: pyg_obstacle(x, "torch_scatter"),
    )
    keep_winner = reduce == "max" and torch.is_grad_enabled() and x.requires_grad
    out: Tensor = _neighbor_aggregate(x, neighbors, reduce, keep_winner, impl)[0]
    return out


def check_indices(neighbors: Tensor, nodes: int) -> None:
    """Raise ValueError if neighbors on a CPU are out of range.

    On other devices they are not checked: reading values would wait for the device.
    """
    if neighbors.device.type == "cpu" and neighbors.numel() > 0:
        least, most = (int(bound) for bound in neighbors.aminmax())
        if least < -1 or most >= nodes:
            raise ValueError(f"neighbors must be in -1..{nodes - 1}, got {least}..{most}")


def _shapes(call: Any) -> tuple[Tensor, Tensor]:
    shape = (*call.neighbors.shape[:2], call.x.shape[2])
    winner_shape = shape if call.keep_winner and call.reduce == "max" else (0,)
    winner = call.x.new_empty(winner_shape, dtype=winner_dtype(call.x.shape[1]))
    return call.x.new_empty(shape), winner


def _define(call: Any) -> tuple[Tensor, Tensor]:
    out = neighbor_aggregate_reference(call.x, call.neighbors, call.reduce)
    return out, call.neighbors.new_empty(0, dtype=torch.uint8)


@operator(
    shapes=lambda call: call.grad.new_empty((call.grad.shape[0], call.nodes, call.grad.shape[2])),
    definition=None,
    flops=None,
    gradient=None,
)
def _neighbor_aggregate_backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, nodes: int, reduce: str, impl: str
) -> Tensor:
    if reduce != "max":
        return sum_over_neighbors_backward(grad, neighbors, nodes, reduce == "mean")
    wide = at_least_float32(grad)
    total = wide.new_zeros(wide.shape[0], nodes, wide.shape[2])
    return add_to_winner(total, wide, neighbors, winner).to(grad.dtype)


def _save(ctx: Any, call: Any, output: tuple[Tensor, Tensor]) -> None:
    ctx.reduce, ctx.nodes = call.reduce, call.x.shape[1]
    ctx.save_for_backward(call.neighbors, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    impl = "torch" if ctx.impl == "pyg" else ctx.impl
    grad_x = _neighbor_aggregate_backward(grad, *ctx.saved_tensors, ctx.nodes, ctx.reduce, impl)
    return grad_x, None, None, None, None


def _backward_in_torch(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    neighbors, winner = ctx.saved_tensors
    if ctx.reduce == "max":
        total = grad.new_zeros(grad.shape[0], ctx.nodes, grad.shape[2])
        grad_x = add_to_winner(total, grad, neighbors, winner)
    else:
        grad_x = sum_over_neighbors_backward(grad, neighbors, ctx.nodes, ctx.reduce == "mean")
    return grad_x, None, None, None, None


@operator(
    shapes=_shapes,
    definition=_define,
    flops=None,
    gradient=Gradient(_save, _backward, _backward_in_torch),
    check=lambda call: check_indices(call.neighbors, call.x.shape[1]),
)
def _neighbor_aggregate(
    x: Tensor, neighbors: Tensor, reduce: str, keep_winner: bool, impl: str
) -> tuple[Tensor, Tensor]:
    winner = x.new_empty(0, dtype=winner_dtype(x.shape[1]))
    if impl == "pyg":
        check_finite("neighbor_aggregate", x)
        out, slot = reduce_segments(x, neighbors, reduce)
        if keep_winner:
            winner = neighbors.gather(2, slot).clamp_min(0).to(winner.dtype)
        return out, winner
    if reduce == "max":
        return max_over_neighbors(x, neighbors, keep_winner)
    return sum_over_neighbors(x, neighbors, reduce == "mean"), winner

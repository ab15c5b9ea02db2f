"""Maximum, mean or sum over a given list of neighbours."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import torch
from aurel_kernels.sizes import graph_obstacle
from torch import Tensor

from aurel.ops.arguments import check_choice, check_device, check_nodes, check_shape
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import at_least_float32
from aurel.ops.gather_reduce import (
    add_to_winner,
    max_over_neighbors,
    sum_over_neighbors,
    sum_over_neighbors_backward,
    winner_dtype,
)
from aurel.ops.pyg_support import check_finite, pyg_obstacle, reduce_segments
from aurel.ops.triton_support import triton_obstacle

Reduce = Literal["max", "mean", "sum"]
REDUCTIONS = ("max", "mean", "sum")


def neighbor_aggregate_reference(x: Tensor, neighbors: Tensor, reduce: Reduce = "max") -> Tensor:
    """Return what `neighbor_aggregate` does: gather (B, N, K, C), then reduce over K."""
    samples = torch.arange(x.shape[0], device=x.device)[:, None, None]
    gathered = x[samples, neighbors.clamp_min(0)]
    empty = (neighbors < 0)[..., None]
    if reduce == "max":
        slot = gathered.detach().masked_fill(empty, -torch.inf).argmax(2, keepdim=True)
        return gathered.gather(2, slot).squeeze(2).masked_fill(empty.all(2), 0)
    total = gathered.masked_fill(empty, 0).sum(2)
    return total / (~empty).sum(2).clamp_min(1) if reduce == "mean" else total


@torch.library.custom_op("aurel::neighbor_aggregate", mutates_args=())
def _neighbor_aggregate(
    x: Tensor, neighbors: Tensor, reduce: str, keep_winner: bool, impl: str
) -> tuple[Tensor, Tensor]:
    padded = _inspect(neighbors)
    if impl == "triton":
        kernels = import_module("aurel_kernels.neighbor_aggregate")
        return kernels.forward(x, neighbors, reduce, keep_winner)
    if impl == "pyg":
        check_finite("neighbor_aggregate", x)
        out, winner = reduce_segments(x, neighbors, reduce)
        winner = winner if keep_winner else winner.new_empty(0)
        return out, winner.to(winner_dtype(neighbors.shape[2]))
    x = x.contiguous()
    if reduce != "max":
        out = sum_over_neighbors(x, neighbors, padded, reduce == "mean")
        return out, neighbors.new_empty(0, dtype=winner_dtype(neighbors.shape[2]))
    out, winner = max_over_neighbors(x, neighbors, padded, keep_winner)
    if padded:
        out.masked_fill_((neighbors < 0).all(2, keepdim=True), 0)
    return out, winner


@_neighbor_aggregate.register_fake
def _(
    x: Tensor, neighbors: Tensor, reduce: str, keep_winner: bool, impl: str
) -> tuple[Tensor, Tensor]:
    shape = x.shape if keep_winner and reduce == "max" else (0,)
    return x.new_empty(x.shape), x.new_empty(shape, dtype=winner_dtype(neighbors.shape[2]))


@torch.library.custom_op("aurel::neighbor_aggregate_backward", mutates_args=())
def _neighbor_aggregate_backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, reduce: str, impl: str
) -> Tensor:
    if impl == "triton":
        kernels = import_module("aurel_kernels.neighbor_aggregate")
        return kernels.backward(grad, neighbors, winner, reduce)
    padded = _inspect(neighbors)
    if reduce != "max":
        return sum_over_neighbors_backward(grad, neighbors, padded, reduce == "mean")
    wide = at_least_float32(grad)
    total = wide.new_zeros(wide.shape)
    return add_to_winner(total, wide, neighbors, winner, padded).to(grad.dtype)


@_neighbor_aggregate_backward.register_fake
def _(grad: Tensor, neighbors: Tensor, winner: Tensor, reduce: str, impl: str) -> Tensor:
    return grad.new_empty(grad.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, neighbors, ctx.reduce, _, ctx.impl = inputs
    ctx.save_for_backward(neighbors, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = _neighbor_aggregate_backward(grad, *ctx.saved_tensors, ctx.reduce, ctx.impl)
    return grad_x, None, None, None, None


_neighbor_aggregate.register_autograd(_backward, setup_context=_setup_context)


def _inspect(neighbors: Tensor) -> bool:
    """Return whether there may be -1 among the neighbours, and check their range on a CPU.

    Elsewhere looking at values would stall the device.
    """
    if neighbors.device.type != "cpu" or neighbors.numel() == 0:
        return True
    least, most = (int(bound) for bound in neighbors.aminmax())
    nodes = neighbors.shape[1]
    if least < -1 or most >= nodes:
        raise ValueError(f"neighbors must lie in -1..{nodes - 1}, got {least}..{most}")
    return least < 0


def neighbor_aggregate(
    x: Tensor, neighbors: Tensor, reduce: Reduce = "max", *, backend: Backend = "auto"
) -> Tensor:
    r"""Reduce the features of every node's neighbours.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} x_j \quad\text{(or the mean, or the sum)}

    The gradient of a maximum goes to the first (nearest) neighbour that attains it.

    Args:
        x: node features, (B, N, C), floating point.
        neighbors: (B, N, K) int64, K >= 1, as `knn_graph` gives; -1 marks an empty slot.
        reduce: "max", "mean" or "sum".
        backend: see `aurel.use_backend`. "pyg" is torch-scatter: finite float32 and float64.

    Returns:
        (B, N, C), 0 where a node has no neighbour.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value. (That indices are in range
            is checked on a CPU only.)
    """
    check_nodes("x", x)
    check_shape("neighbors", neighbors, "B N K", B=x.shape[0], N=x.shape[1])
    if neighbors.dtype != torch.int64 or neighbors.shape[2] == 0:
        raise ValueError(
            f"neighbors must be int64 with K >= 1, got {neighbors.dtype} with "
            f"K = {neighbors.shape[2]}"
        )
    check_device("neighbors", neighbors, x)
    check_choice("reduce", reduce, REDUCTIONS)
    sizes = graph_obstacle(x.shape[1], x.shape[2], neighbors.shape[2])
    impl = resolve_backend(
        "neighbor_aggregate",
        backend,
        x,
        triton_obstacle(x, sizes),
        pyg_obstacle(backend, x, "torch_scatter"),
    )
    keep_winner = torch.is_grad_enabled() and x.requires_grad
    return _neighbor_aggregate(x, neighbors, reduce, keep_winner, impl)[0]

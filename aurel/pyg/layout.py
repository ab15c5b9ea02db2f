"""Slots of the nodes of graphs of any size in a dense batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aurel.ops.arguments import check_device, check_shape
from aurel.pyg.edges import complete_graph, positions

Form = Literal["graph", "node", "pair"]


@dataclass(frozen=True)
class Layout:
    """Slots of M nodes in a dense batch of B graphs with N slots each.

    Args:
        batch: (M,) int64, the graph of each node, sorted.
        slot: (M,) int64, its slot in that graph.
        mask: (B, N) bool, True where there is a node.
    """

    batch: Tensor
    slot: Tensor
    mask: Tensor

    def pad(self, x: Tensor, form: Form = "node") -> Tensor:
        """Return the dense form of `x`, zero in empty slots.

        Args:
            x: (M, ...) for nodes; (E, ...) for pairs, in the order of `complete_graph`; (B, ...)
                for graphs, which is returned unchanged.
            form: what the rows of x belong to.

        Returns:
            (B, N, ...) for nodes, (B, N, N, ...) for pairs, a row for each target.

        Raises:
            ValueError: the number of rows is not that of the pairs.
        """
        if form == "graph":
            return x
        indices = self._indices(form)
        if len(x) != len(indices[0]):
            raise ValueError(
                f"edges must be all {len(indices[0])} pairs of nodes of a graph, in the order of "
                f"complete_graph, got {len(x)}"
            )
        sizes = (*self.mask.shape, *self.mask.shape[1:]) if form == "pair" else self.mask.shape
        return x.new_zeros(*sizes, *x.shape[1:]).index_put(indices, x)

    def unpad(self, dense: Tensor, form: Form = "node") -> Tensor:
        """Return the rows of a dense form: undo `pad`."""
        return dense if form == "graph" else dense[self._indices(form)]

    def _indices(self, form: Form) -> tuple[Tensor, ...]:
        if form == "node":
            return self.batch, self.slot
        source, target = complete_graph(self.batch)
        return self.batch[target], self.slot[target], self.slot[source]


def lay_out(
    batch: Tensor,
    slot: Tensor | None = None,
    *,
    num_graphs: int | None = None,
    num_slots: int | None = None,
    least_slots: int = 0,
) -> Layout:
    """Return the slots of nodes in a dense batch.

    Args:
        batch: (M,) int64, the graph of each node, sorted.
        slot: (M,) int64, which of the `num_slots` each node is, different within a graph. None for
            its position in its graph.
        num_graphs: number B of graphs; None for those in `batch`.
        num_slots: number N of slots, each of which has a meaning, such as an action unit; None
            for the number of nodes of the largest graph.
        least_slots: the fewest slots where `num_slots` is None.

    Raises:
        ValueError: a node has no slot, or two have the same; or `slot` is None, and a graph does
            not have `num_slots` nodes.
    """
    graphs = int(batch[-1]) + 1 if len(batch) else 0
    if num_graphs is None:
        num_graphs = graphs
    if graphs > num_graphs:
        raise ValueError(f"batch must number {num_graphs} graphs, got {graphs}")
    sizes = batch.bincount(minlength=num_graphs)
    if slot is None:
        slot = positions(sizes, len(batch))
        if num_slots is not None and bool(((sizes != num_slots) & (sizes > 0)).any()):
            raise ValueError(
                f"slot must be a tensor where graphs have fewer than {num_slots} nodes, got None "
                f"for graphs of {sizes.unique().tolist()} nodes"
            )
    check_shape("slot", slot, "M", M=len(batch))
    if slot.dtype != torch.int64:
        raise ValueError(f"slot must be int64 (which node each is), got {slot.dtype}")
    check_device("slot", slot, batch)
    if num_slots is None:
        num_slots = max(least_slots, int(slot.max()) + 1 if len(slot) else 0)
    if len(slot) and not 0 <= int(slot.min()) <= int(slot.max()) < num_slots:
        raise ValueError(
            f"slot must lie in 0..{num_slots - 1}, got {int(slot.min())}..{int(slot.max())}"
        )
    mask = torch.zeros(num_graphs, num_slots, dtype=torch.bool, device=batch.device)
    mask[batch, slot] = True
    if int(mask.sum()) != len(batch):
        raise ValueError("slot must differ between nodes of a graph, got the same for two")
    return Layout(batch, slot, mask)

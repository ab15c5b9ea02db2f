"""Where the nodes of graphs of any size lie in a dense batch."""

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
    """Places of M nodes in a dense batch of B graphs with N slots each.

    Args:
        batch: (M,) int64, the graph of each node, sorted.
        slot: (M,) int64, its place in that graph.
        mask: (B, N) bool, True where there is a node.
    """

    batch: Tensor
    slot: Tensor
    mask: Tensor

    def pad(self, x: Tensor, form: Form = "node") -> Tensor:
        """Return the dense form of `x`, zeros where there is nothing.

        Args:
            x: (M, ...) for nodes; (E, ...) for pairs, in the order of `complete_graph`; (B, ...)
                for graphs, which stays as it is.
            form: what the rows of x are.

        Returns:
            (B, N, ...) for nodes, (B, N, N, ...) for pairs, a row for each target.

        Raises:
            ValueError: there are not as many rows as pairs.
        """
        if form == "graph":
            return x
        places = self._places(form)
        if len(x) != len(places[0]):
            raise ValueError(
                f"edges must be all {len(places[0])} pairs of nodes of a graph, as complete_graph "
                f"lists them, got {len(x)}"
            )
        sizes = (*self.mask.shape, *self.mask.shape[1:]) if form == "pair" else self.mask.shape
        return x.new_zeros(*sizes, *x.shape[1:]).index_put(places, x)

    def unpad(self, dense: Tensor, form: Form = "node") -> Tensor:
        """Return the rows of what `pad` gives."""
        return dense if form == "graph" else dense[self._places(form)]

    def _places(self, form: Form) -> tuple[Tensor, ...]:
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
    """Place nodes in a dense batch.

    Args:
        batch: (M,) int64, the graph of each node, sorted.
        slot: (M,) int64, which of the `num_slots` each node is, no two of a graph alike. None for
            its position in its graph.
        num_graphs: number B of graphs; None for those that `batch` names.
        num_slots: number N of slots, each with a meaning of its own, such as an action unit; None
            for as many as the largest graph has nodes.
        least_slots: the fewest slots where `num_slots` is None.

    Raises:
        ValueError: a node has no place, or two have one; or `slot` is None, and a graph has not
            `num_slots` nodes.
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
                f"slot must say which of the {num_slots} nodes there are, where graphs lack "
                f"some, got None for graphs of {sizes.unique().tolist()} nodes"
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
        raise ValueError("slot must differ among the nodes of a graph")
    return Layout(batch, slot, mask)

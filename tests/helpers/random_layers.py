"""Layers with random parameters and buffers, at a fraction of the cost of building them.

A layer is built once for its options, and is then a function of the tensors in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from helpers import graph_forms as forms

# A prime that divides no other size: a dimension that it divides has a block for every node.
NODES = 5

Build = Callable[[int], nn.Module]  # for a number of nodes; the same module every time


@dataclass(frozen=True)
class RandomLayer:
    """A layer with the tensors `state` as parameters and buffers."""

    build: Build
    state: Mapping[str, Tensor]
    nodes: int = NODES

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        layer, state = self.build(self.nodes), dict(self.state)
        return functional_call(layer, state, inputs, options, tie_weights=False)

    def of_nodes(self, nodes: Tensor) -> RandomLayer:
        """Return the layer for these nodes, in this order, with their rows of its tensors."""
        state = {key: of_nodes(tensor, nodes) for key, tensor in self.state.items()}
        return RandomLayer(self.build, state, len(nodes))


def seed(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 2**32 - 1)))


def random_layer(build: Build) -> RandomLayer:
    """Return a layer of random tensors: positive for statistics and norms, else of any sign."""
    state = {}
    for key, tensor in tensors_of(build(NODES)).items():
        state[key] = tensor.clone()
        if tensor.is_floating_point():
            positive = "norm" in key or key.endswith("running_var")
            low, high = (0.5, 1.5) if positive else (-1, 1)
            state[key].uniform_(low, high)
    return RandomLayer(build, state)


@cache
def tensors_of(layer: nn.Module) -> dict[str, Tensor]:
    named = (*layer.named_parameters(), *layer.named_buffers())
    return {key: tensor.detach() for key, tensor in named}


def of_nodes(tensor: Tensor, nodes: Tensor) -> Tensor:
    """Return a copy of the rows of these nodes."""
    if tensor.dtype == torch.int64 and tensor.ndim == 2:  # the sources of each node
        return forms.pick((tensor[None], "list"), nodes)[0]
    tensor = tensor.clone()
    for dim, size in enumerate(tensor.shape):
        if size and size % NODES == 0:
            blocks = tensor.unflatten(dim, (NODES, size // NODES))
            tensor = blocks.index_select(dim, nodes).flatten(dim, dim + 1)
    return tensor

"""Every layer with each choice of its options, and inputs: small modules for other tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from helpers import map_layers, node_layers
from helpers.random_layers import NODES

CHOICE = {"k": 2, "metric": "l2"}
CONVOLUTION = {**CHOICE, "loop": True}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "TopKGraphConv": [{**CHOICE, "ties": ties} for ties in ("exact", "all")],
    "MaxRelativeGraphConv": [CONVOLUTION],
    "EdgeGraphConv": [CONVOLUTION],
    "GINGraphConv": [CONVOLUTION],
    "SAGEGraphConv": [CONVOLUTION],
    "SelfAdjustingGCN": [
        *({**CHOICE, "conv": c, "graph": "knn"} for c in ("max_relative", "edge", "gin", "sage")),
        *({**CHOICE, "conv": "edge", "graph": graph} for graph in ("self", "fixed")),
    ],
    "CrossRegionGAT": [
        {"heads": 2, "edges": edges} for edges in ("same_region", "active", "active_cross_region")
    ],
    "GatedEdgeGCN": [{"residual": residual} for residual in ("inside", "outside")],
    "NodeTransformer": [{"heads": 2}],
    "TokenFusion": [{"weight": None}, {"weight": 0.3}],
    "AUMaskedFeatures": [{"masked": masked} for masked in (True, False)],
    "ChannelTopology": [{"shared": False}],
    "FacialDynamics": [
        {"fusion": fusion, "padding": "zeros"} for fusion in ("adaptive", "sum", "cat")
    ],
    "Grapher": [{"conv": conv, "dilation": 1} for conv in ("mr", "edge", "sage", "gin")],
    "MapDecoder": [{"residual": residual} for residual in (True, False)],
    "RegionalAUFeatures": [{"group_projections": given} for given in (True, False)],
}


@dataclass(frozen=True)
class Case:
    """A layer: how to build it, its inputs for a number of images, and how to call it."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], list[Tensor]]
    call: Callable[..., Any]
    takes_mask: bool

    def __call__(
        self, layer: nn.Module, inputs: Sequence[Tensor], mask: Tensor | None = None
    ) -> list[Tensor]:
        """Return the tensors that the layer returns."""
        options = {} if mask is None else {"mask": mask}
        parts = tree_leaves(self.call(layer, *inputs, **options))
        return [part for part in parts if isinstance(part, Tensor)]

    def masks(self, batch: int) -> list[Tensor | None]:
        """Return None and, where the layer takes it, a mask with all nodes in the first image."""
        if not self.takes_mask:
            return [None]
        mask = torch.rand(batch, NODES) < 0.7
        mask[0] = True
        return [None, mask]


def _call(layer: nn.Module, *inputs: Tensor, **options: Tensor) -> Any:
    return layer(*inputs, **options)


def _of_nodes(name: str, options: dict[str, Any]) -> Case:
    def inputs(batch: int) -> list[Tensor]:
        return [tensor for tensor, _ in node_layers.inputs_of(name, batch)]

    make = partial(node_layers.KINDS[name].make, NODES, **options)
    return Case(make, inputs, _call, takes_mask=True)


def _of_maps(name: str, options: dict[str, Any]) -> Case:
    kind = map_layers.KINDS[name]

    def inputs(batch: int) -> list[Tensor]:
        return [torch.randn(batch, *s, dtype=torch.float64) for s in kind.inputs.values()]

    return Case(partial(kind.make, **options), inputs, kind.call, takes_mask=False)


def _name(layer: str, options: dict[str, Any]) -> str:
    chosen = [str(value) for key, value in options.items() if key not in CONVOLUTION]
    return "-".join([layer, *chosen])


CASES = {
    _name(layer, options): build(layer, options)
    for kinds, build in ((node_layers.KINDS, _of_nodes), (map_layers.KINDS, _of_maps))
    for layer in kinds
    for options in OPTIONS.get(layer, [{}])
}


def made(name: str) -> nn.Module:
    """Return a layer in double precision, the same for every call."""
    torch.manual_seed(0)
    layer = CASES[name].make().double()
    with torch.no_grad():
        for key, tensor in layer.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif key.endswith("running_mean"):
                tensor.normal_()
    return layer


def learned(outs: Sequence[Tensor], layer: nn.Module) -> dict[str, Tensor | None]:
    """Return the gradients of a fixed function of the results."""
    smooth = [(out * out.detach().cos()).sum() for out in outs if out.requires_grad]
    named = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    if not smooth or not named:
        return dict.fromkeys(named)
    grads = torch.autograd.grad(sum(smooth), list(named.values()), allow_unused=True)
    return dict(zip(named, grads, strict=True))

"""What holds of every relation layer: order of nodes, company and absence do not matter."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import graph_forms as forms
import pytest
import torch
from graph_forms import Part
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aurel import layers

# Sizes by which the shape of a parameter tells what it has an entry for.
NODES, WIDTH, OUT, TOKENS = 5, 8, 7, 3
REGIONS = (0, 0, 1, 1, 2)
METRICS = ("l2", "l1", "cosine", "dot")


@dataclass
class Options:
    k: int
    metric: str
    loop: bool
    ties: str
    edges: str
    residual: str
    training: bool


@st.composite
def options(draw: st.DrawFn) -> Options:
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    loop = draw(st.booleans())
    return Options(
        draw(st.integers(1, NODES if loop else NODES - 1)),
        draw(st.sampled_from(METRICS)),
        loop,
        draw(st.sampled_from(["exact", "all"])),
        draw(st.sampled_from(["cross_region", "active", "active_cross_region"])),
        draw(st.sampled_from(["inside", "outside"])),
        draw(st.booleans()),
    )


Make = Callable[[Options, list[int]], nn.Module]


def neighbours(given: Options, nodes: list[int], loop: bool = True) -> int:
    return min(given.k, len(nodes) if loop else len(nodes) - 1)


def convolution(conv: type[nn.Module]) -> Make:
    def make(given: Options, nodes: list[int]) -> nn.Module:
        k = max(1, neighbours(given, nodes, given.loop))
        return conv(WIDTH, 12, k, given.metric, loop=given.loop)

    return make


def self_adjusting(conv: str) -> Make:
    return lambda given, nodes: layers.SelfAdjustingGCN(
        WIDTH, 6, (8,), (1,), neighbours(given, nodes), given.metric, conv
    )


MAKE: dict[str, Make] = {
    "TopKGraphConv": lambda given, nodes: layers.TopKGraphConv(
        WIDTH, len(nodes), neighbours(given, nodes), given.metric, given.ties
    ),
    "MaxRelativeGraphConv": convolution(layers.MaxRelativeGraphConv),
    "EdgeGraphConv": convolution(layers.EdgeGraphConv),
    "GINGraphConv": convolution(layers.GINGraphConv),
    "SAGEGraphConv": convolution(layers.SAGEGraphConv),
    "SelfAdjustingGCN max_relative": self_adjusting("max_relative"),
    "SelfAdjustingGCN sage": self_adjusting("sage"),
    "CrossRegionGAT": lambda given, nodes: layers.CrossRegionGAT(
        WIDTH, [REGIONS[node] for node in nodes], heads=2, edges=given.edges
    ),
    "MultiDimensionalEdges": lambda given, nodes: layers.MultiDimensionalEdges(WIDTH, len(nodes)),
    "GatedEdgeGCN": lambda given, nodes: layers.GatedEdgeGCN(
        WIDTH, len(nodes), residual=given.residual
    ),
    "CosineClassifier": lambda given, nodes: layers.CosineClassifier(WIDTH, len(nodes)),
    "AUSpecificFeatures": lambda given, nodes: layers.AUSpecificFeatures(6, OUT, len(nodes)),
}
every_layer = pytest.mark.parametrize("name", MAKE)
examples = settings(max_examples=25)
ALL = list(range(NODES))


def random_layer(name: str, given: Options, training: bool) -> nn.Module:
    layer = MAKE[name](given, ALL).double().train(training)
    with torch.no_grad():
        for key, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if tensor.is_floating_point() and "norm" in key:
                tensor.uniform_(0.5, 1.5)
    return layer


def for_nodes(name: str, given: Options, layer: nn.Module, nodes: Tensor) -> nn.Module:
    """The layer for these nodes, in this order, with what it knows of each of them."""
    new = MAKE[name](given, nodes.tolist()).double().train(layer.training)
    new.load_state_dict({key: of_nodes(value, nodes) for key, value in layer.state_dict().items()})
    return new


def of_nodes(tensor: Tensor, nodes: Tensor) -> Tensor:
    for dim, size in enumerate(tensor.shape):
        if size == NODES:
            tensor = tensor.index_select(dim, nodes)
        elif size == NODES * OUT:
            each = tensor.unflatten(dim, (NODES, OUT)).index_select(dim, nodes)
            tensor = each.flatten(dim, dim + 1)
    return tensor


def inputs_of(name: str, batch: int) -> list[Part]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, dtype=torch.float64)

    if name == "AUSpecificFeatures":
        return [(normal(TOKENS, 6), "graph")]
    if name == "MultiDimensionalEdges":
        return [(normal(NODES, TOKENS, WIDTH), "node"), (normal(TOKENS, WIDTH), "graph")]
    nodes = (normal(NODES, WIDTH), "node")
    if name == "GatedEdgeGCN":
        return [nodes, (normal(NODES, NODES, WIDTH), "pair")]
    if name == "CrossRegionGAT":
        return [nodes, (normal(NODES) > 0, "node")]
    return [nodes]


OUTPUTS = {"MultiDimensionalEdges": ("pair",), "GatedEdgeGCN": ("node", "pair")}


def function(name: str, layer: nn.Module) -> Callable[..., list[Part]]:
    def call(*tensors: Tensor, mask: Tensor | None = None) -> list[Part]:
        result: Sequence[Tensor] | Tensor = layer(*tensors, mask=mask)
        parts = result if isinstance(result, tuple) else (result,)
        return list(zip(parts, OUTPUTS.get(name, ("node",)), strict=True))

    return call


@every_layer
@examples
@given(given=options(), batch=st.integers(2, 3))
def test_permuted_nodes_have_permuted_results(name: str, given: Options, batch: int) -> None:
    layer = random_layer(name, given, given.training)
    order = torch.randperm(NODES)
    inputs = inputs_of(name, batch)
    want = function(name, deepcopy(layer))(*(tensor for tensor, _ in inputs))
    moved = function(name, for_nodes(name, given, layer, order))
    got = moved(*(forms.pick(part, order) for part in inputs))
    forms.assert_equal(got, forms.picked(want, order))


@every_layer
@examples
@given(given=options(), batch=st.integers(1, 3))
def test_graphs_of_a_batch_do_not_meet_in_evaluation(name: str, given: Options, batch: int) -> None:
    layer = random_layer(name, given, training=False)
    forms.assert_independent(function(name, layer), inputs_of(name, batch))


@every_layer
@examples
@given(given=options(), batch=st.integers(1, 3))
def test_absent_nodes_might_as_well_not_be_there(name: str, given: Options, batch: int) -> None:
    layer = random_layer(name, given, training=False)
    mask = torch.rand(batch, NODES) < 0.6
    if name.endswith("GraphConv") and name != "TopKGraphConv" and not given.loop:
        mask[mask.sum(1) == 1] = False  # alone, nobody to choose
    packed = partial(packed_function, name, given, layer)
    forms.assert_absent(function(name, layer), packed, inputs_of(name, batch), mask)


def test_layers_without_a_mask_are_those_that_the_package_names() -> None:
    named = set(re.findall(r"`([A-Z]\w+)`", layers.__doc__ or ""))
    forwards = {name: getattr(layers, name).forward for name in layers.__all__}
    takers = {name for name, f in forwards.items() if "mask" in inspect.signature(f).parameters}
    assert named == set(layers.__all__) - takers


def packed_function(
    name: str, given: Options, layer: nn.Module, nodes: Tensor
) -> Callable[..., list[Part]]:
    return function(name, for_nodes(name, given, layer, nodes))


@every_layer
@examples
@given(given=options(), batch=st.integers(2, 4))
def test_one_set_of_absent_nodes_leaves_no_trace_in_training(
    name: str, given: Options, batch: int
) -> None:
    """Packed, the same nodes give the same statistics."""
    layer = random_layer(name, given, training=True)
    kept = torch.randperm(NODES)[: 2 + int(torch.randint(0, NODES - 1, ()))].sort().values
    mask = torch.zeros(batch, NODES, dtype=torch.bool)
    mask[:, kept] = True
    packed = for_nodes(name, given, layer, kept)
    inputs = inputs_of(name, batch)
    want = function(name, packed)(*(forms.pick(part, kept) for part in inputs))
    pairs = mask[:, :, None] & mask[:, None]
    exists = {"node": mask, "pair": pairs, "graph": mask.any(1)}
    spoiled = [forms.spoil(part, exists[part[1]]) for part in inputs]
    forms.assert_equal(forms.picked(function(name, layer)(*spoiled, mask=mask), kept), want)
    for key, buffer in packed.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(of_nodes(layer.state_dict()[key], kept), buffer)

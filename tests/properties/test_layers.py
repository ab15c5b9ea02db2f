"""Invariances of every relation layer of nodes: to permutations, other graphs and absent nodes.

Layers that choose neighbors are also invariant to what does not change their metric.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from helpers import graph_forms as forms
from helpers.graph_forms import Part
from helpers.node_layers import KINDS, METRICS, WIDTH, built, inputs_of, sample
from helpers.random_layers import NODES, RandomLayer, of_nodes, random_layer, seed
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aurel import layers

every_layer = pytest.mark.parametrize("name", KINDS)


def function(name: str, layer: RandomLayer) -> Callable[..., list[Part]]:
    def call(*tensors: Tensor, mask: Tensor | None = None) -> list[Part]:
        result: Sequence[Tensor] | Tensor = layer(*tensors, mask=mask)
        parts = result if isinstance(result, tuple) else (result,)
        return list(zip(parts, KINDS[name].outputs, strict=True))

    return call


@every_layer
@given(data=st.data())
def test_permuted_nodes_have_permuted_results(name: str, data: st.DataObject) -> None:
    layer, _ = sample(name, data, training=data.draw(st.booleans()))
    order = torch.randperm(NODES)
    moved = function(name, layer.of_nodes(order))
    inputs = inputs_of(name, 2)
    expected = function(name, layer)(*(tensor for tensor, _ in inputs))
    got = moved(*(forms.pick(part, order) for part in inputs))
    forms.assert_equal(got, forms.picked(expected, order))


@every_layer
@given(data=st.data())
def test_graphs_of_a_batch_are_independent_in_evaluation(name: str, data: st.DataObject) -> None:
    layer, _ = sample(name, data, training=False)
    forms.assert_independent(function(name, layer), inputs_of(name, batch=3))


@every_layer
@given(data=st.data())
def test_absent_nodes_have_no_effect(name: str, data: st.DataObject) -> None:
    layer, options = sample(name, data, training=False)
    mask = torch.rand(2, NODES) < 0.6
    if not options.get("loop", True):
        mask[mask.sum(1) == 1] = False  # a single node has no candidate
    packed = partial(packed_function, name, layer)
    forms.assert_absent(function(name, layer), packed, inputs_of(name, 2), mask)


def packed_function(name: str, layer: RandomLayer, nodes: Tensor) -> Callable[..., list[Part]]:
    return function(name, layer.of_nodes(nodes))


@every_layer
@given(data=st.data())
def test_one_set_of_absent_nodes_has_no_effect_in_training(name: str, data: st.DataObject) -> None:
    """Packed, the same nodes give the same results, gradients of parameters and statistics."""
    layer, _ = sample(name, data, training=True)
    kept = torch.randperm(NODES)[: data.draw(st.integers(2, NODES))].sort().values
    mask = torch.zeros(2, NODES, dtype=torch.bool)
    mask[:, kept] = True
    packed = layer.of_nodes(kept)
    learned = [key for key, _ in layer.build(NODES).named_parameters()]
    for each in (layer, packed):
        for key in learned:
            each.state[key].requires_grad_()
    inputs = inputs_of(name, 2)
    expected_parts = function(name, packed)(*(forms.pick(part, kept) for part in inputs))
    exists = forms.existing(mask)
    spoiled = [forms.spoil(part, exists[part[1]]) for part in inputs]
    outs = function(name, layer)(*spoiled, mask=mask)
    forms.assert_equal(forms.picked(outs, kept), expected_parts)
    grads, expected_grads = (
        forms.gradients(parts, [each.state[key] for key in learned])
        for parts, each in ((outs, layer), (expected_parts, packed))
    )
    for key, grad, expected in zip(learned, grads, expected_grads, strict=True):
        assert (grad is None) == (expected is None), key
        if grad is not None:
            forms.assert_close(of_nodes(grad, kept), expected)
    for key, buffer in packed.state.items():
        if "running" in key:
            forms.assert_close(of_nodes(layer.state[key], kept), buffer)


def test_layers_without_a_mask_are_those_that_the_package_names() -> None:
    named = set(re.findall(r"`([A-Z]\w+)`", layers.__doc__ or ""))
    forwards = {name: getattr(layers, name).forward for name in layers.__all__}
    takers = {name for name, f in forwards.items() if "mask" in inspect.signature(f).parameters}
    assert named == set(layers.__all__) - takers
    assert takers == set(KINDS)


CHOOSERS = [name for name, kind in KINDS.items() if "k" in kind.options]


def choice(data: st.DataObject, name: str, metric: str) -> dict[str, Any]:
    """Return options of a layer that chooses neighbors by this metric and lists them in order."""
    fixed = {"metric": metric, "ties": "exact", "graph": "knn", "embed": False}
    free = {key: how for key, how in KINDS[name].options.items() if key not in fixed}
    return {key: fixed[key] for key in KINDS[name].options if key in fixed} | data.draw(
        st.fixed_dictionaries(free)
    )


def neighbors(layer: RandomLayer, x: Tensor) -> Tensor:
    _, graph = layer(x, return_graph=True)
    found: Tensor = (graph[0] if isinstance(graph, tuple) else graph).neighbors
    return found


def integers(batch: int = 2) -> Tensor:
    """Return nodes whose distances are exact, so that equal ones tie."""
    return torch.randint(-4, 5, (batch, NODES, WIDTH)).double()


@pytest.mark.parametrize("name", CHOOSERS)
@given(data=st.data(), metric=st.sampled_from(METRICS))
def test_neighbors_have_the_invariances_of_the_metric(
    name: str, data: st.DataObject, metric: str
) -> None:
    """Scale, a common shift of distances, and by cosine the length of a node."""
    seed(data)
    options = choice(data, name, metric)
    layer = random_layer(lambda nodes: built(name, False, nodes, **options))
    x = integers()
    moved = x * 2.0 ** data.draw(st.integers(-8, 8))
    if metric in ("l1", "l2"):
        moved = moved + torch.randint(-3000, 3000, (2, 1, WIDTH)) * moved.abs().max()
    if metric == "cosine":
        moved = moved * 2.0 ** torch.randint(-5, 6, (2, NODES, 1))
    assert torch.equal(neighbors(layer, moved), neighbors(layer, x))


@pytest.mark.parametrize("name", CHOOSERS)
@given(data=st.data())
def test_more_neighbors_extend_the_list(name: str, data: st.DataObject) -> None:
    """The first K of K + 1 are the K."""
    seed(data)
    options = choice(data, name, data.draw(st.sampled_from(METRICS)))
    most = NODES - (not options.get("loop", True))
    options["k"] = data.draw(st.integers(1, most - 1))
    layer = random_layer(lambda nodes: built(name, False, nodes, **options))
    more = {**options, "k": options["k"] + 1}
    wider = RandomLayer(lambda nodes: built(name, False, nodes, **more), layer.state)
    x = integers()
    assert torch.equal(neighbors(wider, x)[..., :-1], neighbors(layer, x))

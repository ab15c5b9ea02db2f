"""Invariances of every layer without a mask: layers of maps, and of separate AUs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from helpers import graph_forms as forms
from helpers.map_layers import KINDS
from helpers.random_layers import NODES, RandomLayer, random_layer, seed
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aurel import layers

OF_NODES = [name for name, kind in KINDS.items() if any("N" in axes for axes in kind.outputs)]
WIDE = [name for name, kind in KINDS.items() if any("W" in axes for axes in kind.inputs)]


def of(names: Sequence[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names)


@cache
def built(name: str, **options: Any) -> nn.Module:
    return KINDS[name].make(**options).double().eval()


def sample(name: str, data: st.DataObject, batch: int) -> tuple[RandomLayer, list[Tensor]]:
    """Return a layer and inputs for it; seed torch."""
    seed(data)
    options = data.draw(st.fixed_dictionaries(KINDS[name].options))
    shapes = KINDS[name].inputs.values()
    inputs = [torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]
    return random_layer(lambda nodes: built(name, **options)), inputs


def results(name: str, layer: RandomLayer, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        found = KINDS[name].call(layer, *inputs)
    parts = torch.utils._pytree.tree_leaves(found)
    return [part for part in parts if part is not None]


def along(letter: str, axes: str, tensor: Tensor, order: Tensor) -> Tensor:
    """Return the tensor with its blocks along this axis, if it has it, in this order."""
    if letter not in axes:
        return tensor
    dim = axes.index(letter)
    blocks = tensor.unflatten(dim, (len(order), -1))
    return blocks.index_select(dim, order).flatten(dim, dim + 1)


def assert_all_close(actual: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
    for got, expected in zip(actual, reference, strict=True):
        forms.assert_close(got, expected, 1e-9, 1e-9)


@of(list(KINDS))
@given(data=st.data())
def test_images_of_a_batch_are_independent_in_evaluation(name: str, data: st.DataObject) -> None:
    """The other images may hold NaN."""
    layer, inputs = sample(name, data, 3)
    image = data.draw(st.integers(0, 2))
    alone = [tensor[image : image + 1].clone() for tensor in inputs]
    for tensor in inputs:
        tensor[image - 1] = torch.nan
    outs = [out[image : image + 1] for out in results(name, layer, inputs)]
    assert_all_close(outs, results(name, layer, alone))


@of(OF_NODES)
@given(data=st.data())
def test_permuted_nodes_have_permuted_results(name: str, data: st.DataObject) -> None:
    layer, inputs = sample(name, data, 2)
    order = torch.randperm(NODES)
    axes = list(KINDS[name].inputs)
    moved = [along("N", a, x, order) for a, x in zip(axes, inputs, strict=True)]
    expected_parts = results(name, layer, inputs)
    expected_parts = [
        along("N", a, y, order) for a, y in zip(KINDS[name].outputs, expected_parts, strict=False)
    ]
    assert_all_close(results(name, layer.of_nodes(order), moved), expected_parts)


@of(WIDE)
@given(data=st.data())
def test_a_mirrored_map_has_a_mirrored_result(name: str, data: st.DataObject) -> None:
    """With mirrored kernels; without kernels, columns may come in any order."""
    layer, inputs = sample(name, data, 2)
    sizes = [x.shape[a.index("W")] for a, x in zip(KINDS[name].inputs, inputs, strict=True)]
    orders = {size: torch.arange(size).flip(0) for size in sizes}
    if KINDS[name].anywhere:
        orders = {size: torch.randperm(size) for size in sizes}

    def turned(axes: str, tensor: Tensor) -> Tensor:
        if "W" not in axes:
            return tensor
        size = tensor.shape[axes.index("W")]
        return along("W", axes, tensor, orders.get(size, torch.arange(size).flip(0)))

    state = {key: x.flip(-1) if x.ndim > 2 else x for key, x in layer.state.items()}
    mirrored = RandomLayer(layer.build, state)
    moved = [turned(axes, x) for axes, x in zip(KINDS[name].inputs, inputs, strict=True)]
    outs = results(name, layer, inputs)
    expected_parts = [turned(axes, y) for axes, y in zip(KINDS[name].outputs, outs, strict=False)]
    assert_all_close(results(name, mirrored, moved), expected_parts)


@given(data=st.data())
def test_facial_dynamics_do_not_depend_on_constant_maps(data: st.DataObject) -> None:
    layer, maps = sample("FacialDynamics", data, 2)
    still = [moving + torch.randn_like(moving[:, :1]) for moving in maps]
    assert_all_close(
        results("FacialDynamics", layer, still), results("FacialDynamics", layer, maps)
    )


@given(data=st.data())
def test_fusion_is_linear(data: st.DataObject) -> None:
    layer, maps = sample("MultiScaleFusion", data, 2)
    others = [torch.randn_like(each) for each in maps]
    mixed = [2 * each - other for each, other in zip(maps, others, strict=True)]
    (out,), (other_out,) = (results("MultiScaleFusion", layer, each) for each in (maps, others))
    assert_all_close(results("MultiScaleFusion", layer, mixed), [2 * out - other_out])


def test_every_layer_without_a_mask_is_tested() -> None:
    assert set(KINDS) == set(re.findall(r"`([A-Z]\w+)`", layers.__doc__ or ""))

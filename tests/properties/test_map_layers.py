"""What holds of every layer without a mask: of maps, whose cells all exist, and of each AU alone.

Axes of inputs and results are letters: B images, N blocks for nodes, W what a mirror turns round.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import graph_forms as forms
import pytest
import torch
from drawn_layers import NODES, DrawnLayer, draw_layer, seed
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aurel import layers
from aurel.facs import region_plan

Options = dict[str, st.SearchStrategy[Any]]


@dataclass(frozen=True)
class Kind:
    """How to build a layer from which options, and the axes of what it maps to what.

    Inputs have the sizes behind the batch, too. A layer that looks `anywhere` may have its columns
    in any order.
    """

    make: Callable[..., nn.Module]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    options: Options = field(default_factory=dict)
    call: Callable[..., Any] = lambda layer, *inputs: layer(*inputs)
    anywhere: bool = False


def fused(layer: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """Of tokens the map that they came from."""
    return layer(maps).unflatten(1, maps[0].shape[2:])


MAP = {"BCHW": (8, 3, 4)}
SQUARE = (64, 48)
KINDS = {
    "AUMaskedFeatures": Kind(
        lambda masked: layers.AUMaskedFeatures(8, NODES, 2, (4, 6), 1, masked),
        MAP,
        ("BNCHW", "BNHW"),
        {"masked": st.booleans()},
    ),
    "ChannelTopology": Kind(
        lambda: layers.ChannelTopology(8, NODES, shared=False), MAP, ("BNC",), anywhere=True
    ),
    "FacialDynamics": Kind(
        lambda fusion, padding: layers.FacialDynamics(
            (2, 3), (2, 1), 4, 6, 2, fusion=fusion, padding=padding
        ),
        {"BTCHW": (3, 2, 4, 6), "BtchW": (3, 3, 2, 3)},
        ("BTHWC",),
        {
            "fusion": st.sampled_from(["adaptive", "sum", "cat"]),
            "padding": st.sampled_from(["zeros", "repeat"]),
        },
        call=lambda layer, *maps: layer(maps),
    ),
    "Grapher": Kind(
        lambda conv, dilation: layers.Grapher(8, 2, conv, dilation=dilation),
        MAP,
        ("BCHW",),
        {"conv": st.sampled_from(["mr", "edge", "sage", "gin"]), "dilation": st.integers(1, 3)},
        anywhere=True,
    ),
    "LandmarkPredictor": Kind(
        lambda: layers.LandmarkPredictor(3, NODES, (4, 6), 4),
        {"BCHW": (3, 4, 4)},
        ("BNX",),
        call=lambda layer, maps: layer(maps, SQUARE),
    ),
    "LandmarkROI": Kind(
        lambda: layers.LandmarkROI([(i, i + 1) for i in range(NODES)], [0.0] * NODES, (6, 7), 0.4),
        {"BCHV": (2, 7, 7), "BLX": (8, 2)},
        ("BNCHV",),
        call=lambda layer, maps, landmarks: layer(maps, 32 + 32 * landmarks, SQUARE),
    ),
    "LocalRegionPerception": Kind(
        lambda: layers.LocalRegionPerception(8, 3, 4), MAP, ("BCHW",), anywhere=True
    ),
    "MapDecoder": Kind(
        lambda residual: layers.MapDecoder(8, 3, (6, 4), residual=residual),
        MAP,
        ("BCHW",),
        {"residual": st.booleans()},
    ),
    "MultiScaleAttention": Kind(lambda: layers.MultiScaleAttention(8), MAP, ("BCHW",)),
    "MultiScaleFusion": Kind(
        layers.MultiScaleFusion, {"BCHW": (2, 4, 6), "BchW": (3, 2, 3)}, ("BHWC",), call=fused
    ),
    "MultiScaleLinearAttention": Kind(
        lambda: layers.MultiScaleLinearAttention(16), {"BCHW": (16, 3, 4)}, ("BCHW",)
    ),
    "PerAUClassifier": Kind(
        lambda: layers.PerAUClassifier(2, NODES, (3, 4)), {"BNCHW": (NODES, 2, 3, 5)}, ("BN",)
    ),
    "PerAUTemporalConv": Kind(
        lambda: layers.PerAUTemporalConv(4, NODES, 3), {"BWNC": (6, NODES, 4)}, ("BWNC",)
    ),
    "RegionalAUFeatures": Kind(
        lambda group_projections: layers.RegionalAUFeatures(
            8, region_plan([1, 2, 6, 12, 25]), group_projections=group_projections
        ),
        {"BHWC": (7, 3, 8)},
        ("BKC", "BG", "BG", "BG"),
        {"group_projections": st.booleans()},
        anywhere=True,
    ),
    "TokenProjection": Kind(
        lambda: layers.TokenProjection(8, 6), {"BWC": (3, 8)}, ("BWC",), anywhere=True
    ),
}
OF_NODES = [name for name, kind in KINDS.items() if any("N" in axes for axes in kind.outputs)]
WIDE = [name for name, kind in KINDS.items() if any("W" in axes for axes in kind.inputs)]


def of(names: Sequence[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names)


@cache
def built(name: str, **options: Any) -> nn.Module:
    return KINDS[name].make(**options).double().eval()


def drawn(name: str, data: st.DataObject, batch: int) -> tuple[DrawnLayer, list[Tensor]]:
    """A layer and inputs for it; seeds torch."""
    seed(data)
    options = data.draw(st.fixed_dictionaries(KINDS[name].options))
    shapes = KINDS[name].inputs.values()
    inputs = [torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]
    return draw_layer(lambda nodes: built(name, **options)), inputs


def results(name: str, layer: DrawnLayer, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        found = KINDS[name].call(layer, *inputs)
    parts = torch.utils._pytree.tree_leaves(found)
    return [part for part in parts if part is not None]


def along(letter: str, axes: str, tensor: Tensor, order: Tensor) -> Tensor:
    """Put in order what the tensor has along this axis, if any: blocks of one size."""
    if letter not in axes:
        return tensor
    dim = axes.index(letter)
    blocks = tensor.unflatten(dim, (len(order), -1))
    return blocks.index_select(dim, order).flatten(dim, dim + 1)


def assert_all_close(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for got, want in zip(ours, theirs, strict=True):
        forms.assert_close(got, want, 1e-9, 1e-9)


@of(list(KINDS))
@given(data=st.data())
def test_images_of_a_batch_do_not_meet_in_evaluation(name: str, data: st.DataObject) -> None:
    """Whatever the others hold, NaN for one."""
    layer, inputs = drawn(name, data, 3)
    image = data.draw(st.integers(0, 2))
    alone = [tensor[image : image + 1].clone() for tensor in inputs]
    for tensor in inputs:
        tensor[image - 1] = torch.nan
    outs = [out[image : image + 1] for out in results(name, layer, inputs)]
    assert_all_close(outs, results(name, layer, alone))


@of(OF_NODES)
@given(data=st.data())
def test_permuted_nodes_have_permuted_results(name: str, data: st.DataObject) -> None:
    layer, inputs = drawn(name, data, 2)
    order = torch.randperm(NODES)
    axes = list(KINDS[name].inputs)
    moved = [along("N", a, x, order) for a, x in zip(axes, inputs, strict=True)]
    wants = results(name, layer, inputs)
    wants = [along("N", a, y, order) for a, y in zip(KINDS[name].outputs, wants, strict=False)]
    assert_all_close(results(name, layer.of_nodes(order), moved), wants)


@of(WIDE)
@given(data=st.data())
def test_a_mirrored_map_has_a_mirrored_result(name: str, data: st.DataObject) -> None:
    """With mirrored kernels; without kernels, columns may come in any order."""
    layer, inputs = drawn(name, data, 2)
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
    mirrored = DrawnLayer(layer.build, state)
    moved = [turned(axes, x) for axes, x in zip(KINDS[name].inputs, inputs, strict=True)]
    outs = results(name, layer, inputs)
    wants = [turned(axes, y) for axes, y in zip(KINDS[name].outputs, outs, strict=False)]
    assert_all_close(results(name, mirrored, moved), wants)


@given(data=st.data())
def test_facial_dynamics_do_not_see_what_stands_still(data: st.DataObject) -> None:
    layer, maps = drawn("FacialDynamics", data, 2)
    still = [moving + torch.randn_like(moving[:, :1]) for moving in maps]
    assert_all_close(
        results("FacialDynamics", layer, still), results("FacialDynamics", layer, maps)
    )


@given(data=st.data())
def test_fusion_is_linear(data: st.DataObject) -> None:
    layer, maps = drawn("MultiScaleFusion", data, 2)
    others = [torch.randn_like(each) for each in maps]
    mixed = [2 * each - other for each, other in zip(maps, others, strict=True)]
    (out,), (other_out,) = (results("MultiScaleFusion", layer, each) for each in (maps, others))
    assert_all_close(results("MultiScaleFusion", layer, mixed), [2 * out - other_out])


def test_every_layer_without_a_mask_is_tested() -> None:
    assert set(KINDS) == set(re.findall(r"`([A-Z]\w+)`", layers.__doc__ or ""))

"""Every layer without a mask: how it is built, and the axes of inputs and results.

Axes of inputs and results are letters: B images, N blocks for nodes, W columns, which a mirror
image reverses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from torch import Tensor, nn

from aurel import layers
from aurel.facs import region_plan
from helpers.random_layers import NODES

Options = dict[str, st.SearchStrategy[Any]]


@dataclass(frozen=True)
class Kind:
    """How to build a layer from its options, and the axes of inputs and results.

    Inputs have the sizes behind the batch, too. A layer is `anywhere` if its columns may be in
    any order.
    """

    make: Callable[..., nn.Module]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    options: Options = field(default_factory=dict)
    call: Callable[..., Any] = lambda layer, *inputs: layer(*inputs)
    anywhere: bool = False


def fused(layer: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """Return the tokens as a map."""
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
    "ChainInference": Kind(lambda: layers.ChainInference(NODES), {"BWN": (6, NODES)}, ("BWN",)),
    "ChannelTopology": Kind(
        lambda shared: layers.ChannelTopology(8, NODES, shared),
        MAP,
        ("BNC",),
        {"shared": st.booleans()},
        anywhere=True,
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
    "PlattScaling": Kind(lambda: layers.PlattScaling(NODES), {"BN": (NODES,)}, ("BN",)),
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

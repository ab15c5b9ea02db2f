"""MACG's weights: the authors' names and shapes, and their conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from aurel.models.author_keys import me_graphau
from aurel.models.author_keys.layers import token_projection
from aurel.models.author_keys.shapes import Shapes, State, affine, flat, linear_block, under
from aurel.models.registry import AuthorLayout

if TYPE_CHECKING:
    from aurel.models.macg import MACG

_ATTENTION = {
    "local": "conv0",
    "strips.0.0": "conv0_1",
    "strips.0.1": "conv0_2",
    "strips.1.0": "conv1_1",
    "strips.1.1": "conv1_2",
    "strips.2.0": "conv2_1",
    "strips.2.1": "conv2_2",
    "mix": "conv3",
}
_TOPOLOGY = {"query": "conv1", "key": "conv2", "value": "conv3", "relation": "conv4"}
_COMPLETE = {"attention": "mafg", "graph": True, "channel_topology": "shared"}


def multi_scale_attention(author: Mapping[str, Tensor]) -> State:
    """Map the convolutions of `MAFG` onto `MultiScaleAttention`."""
    return {
        f"{name}.{entry}": author[f"{author_name}.{entry}"]
        for name, author_name in _ATTENTION.items()
        for entry in ("weight", "bias")
    }


def channel_topology(author: Mapping[str, Tensor]) -> State:
    """Map `CCFG` (conv1 to conv4, class_linear) onto a shared `ChannelTopology`."""
    state = {}
    for name, author_name in _TOPOLOGY.items():
        for entry in ("weight", "bias"):
            value = author[f"{author_name}.{entry}"]
            state[f"{name}.{entry}"] = value.view(value.shape[:2])
    block = token_projection(under(author, "class_linear."))
    return {**state, **{f"view.{key}": value for key, value in block.items()}}


def own_head(author: Mapping[str, Tensor]) -> State:
    """Map the modules that ME-GraphAU's head lacks: attention, topology and fusion."""
    modules = {
        "attention": multi_scale_attention(under(author, "mafg.")),
        "topology": channel_topology(under(author, "ccfg.")),
        "fusion": token_projection(under(author, "post_concat.")),
    }
    return flat(modules)


def _shapes(model: MACG) -> Shapes:
    _check_complete(model)
    shapes = {
        key.replace("head.class_linears.", "head.mafg.class_linears."): shape
        for key, shape in me_graphau.STAGE1.shapes(model).items()
    }
    channels = model.projection.out_channels
    shapes.update(affine("head.mafg.conv0", channels, 1, 5, 5))
    for index, length in enumerate((7, 11, 21)):
        shapes.update(affine(f"head.mafg.conv{index}_1", channels, 1, 1, length))
        shapes.update(affine(f"head.mafg.conv{index}_2", channels, 1, length, 1))
    shapes.update(affine("head.mafg.conv3", channels, channels, 1, 1))
    for name in ("conv1", "conv2"):
        shapes.update(affine(f"head.ccfg.{name}", channels // 8, channels, 1, 1))
    shapes.update(affine("head.ccfg.conv3", channels, channels, 1, 1))
    shapes.update(affine("head.ccfg.conv4", channels, channels // 8, 1, 1))
    shapes.update(linear_block("head.ccfg.class_linear", channels, channels))
    shapes.update(linear_block("head.post_concat", 2 * channels, channels))
    return shapes


def _check_complete(model: MACG) -> None:
    chosen = {option: getattr(model.config, option) for option in _COMPLETE}
    if chosen != _COMPLETE:
        raise ValueError(f"the options must be those of the authors, {_COMPLETE}, got {chosen}")


def _convert(author: Mapping[str, Tensor], model: MACG) -> State:
    shared = {
        key.replace("head.mafg.class_linears.", "head.class_linears."): value
        for key, value in author.items()
    }
    own = {f"head.{key}": value for key, value in own_head(under(author, "head.")).items()}
    return {**me_graphau.STAGE1.convert(shared, model), **own}


# The authors' head has a linear block that it never calls.
_UNUSED = tuple(linear_block("head.class_linear", 1, 1))

LAYOUT = AuthorLayout(
    _shapes, _convert, me_graphau.STAGE1.adopt, (*me_graphau.STAGE1.ignored, *_UNUSED)
)

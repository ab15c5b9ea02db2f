"""The arguments of graph attention, laid out as its kernels read them."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.kernels.triton.launch import INTERPRETED
from aurel.kernels.triton.precision import product_precision

LAST_OFFSET = 2**31 - 1  # offsets within one graph are 32-bit


def rows(x: Tensor) -> Tensor:
    """Return x (B, H, N, C) with channels side by side, copied only if they are not."""
    _, _, nodes, channels = x.shape
    fits = max(0, nodes - 1) * x.stride(2) + channels <= LAST_OFFSET
    return x if x.stride(3) == 1 and fits else x.contiguous()


class Heads:
    """Inputs of all heads, in memory as the kernels read them.

    Attributes:
        inputs: values, target scores, source scores, adjacency.
        value_strides: of image, head and node.
        sizes: strides of the scores and of the adjacency, H, N, C and the negative slope.
        count: heads of all images.
    """

    def __init__(
        self,
        values: Tensor,
        target_score: Tensor,
        source_score: Tensor,
        adjacency: Tensor,
        negative_slope: float,
    ) -> None:
        values, adjacency = rows(values), adjacency.contiguous()
        batch, heads, self.nodes, self.channels = values.shape
        if target_score.stride() != source_score.stride():
            target_score, source_score = target_score.contiguous(), source_score.contiguous()
        self.inputs = (values, target_score, source_score, adjacency)
        self.value_strides = values.stride()[:3]
        self.sizes = (
            *target_score.stride(),
            self.nodes * self.nodes if adjacency.dim() == 3 else 0,
            heads,
            self.nodes,
            self.channels,
            negative_slope,
        )
        self.count = batch * heads
        self.upcast = values.dtype == torch.float32 or INTERPRETED
        self.precision = product_precision()

"""The arguments of a choice of neighbors: contiguous, and as launches take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import power_of_two


class Setting(NamedTuple):
    """Sizes and options of a choice of neighbors: all but the values of the tensors.

    Attributes:
        batch: B.
        nodes: N, whose neighbors are chosen.
        channels: C.
        sources: M, candidates of each node.
        bias_dims: dimensions of the bias, 0 without one.
        masked: there is a mask of the nodes.
        sources_masked: there is a mask of the sources.
        k: number of neighbors.
        metric: "l2", "l1", "cosine" or "dot".
        loop: a node may be its own neighbor.
        dilation: distance in rank of two neighbors.
    """

    batch: int
    nodes: int
    channels: int
    sources: int
    bias_dims: int
    masked: bool
    sources_masked: bool
    k: int
    metric: str
    loop: bool
    dilation: int

    @property
    def ranks(self) -> int:
        """Length of the sorted list of which every `dilation`-th is kept."""
        return self.k * self.dilation

    def sizes(self) -> tuple[int, int, int, int]:
        """Return N, M, C, and the step of the bias from one graph to the next."""
        step = self.nodes * self.sources if self.bias_dims == 3 else 0
        return self.nodes, self.sources, self.channels, step

    def options(self) -> dict[str, Any]:
        """Return the options of every kernel that chooses neighbors."""
        return {
            "LOOP": self.loop,
            "HAS_BIAS": self.bias_dims > 0,
            "HAS_MASK": self.masked,
            "HAS_SOURCE_MASK": self.sources_masked,
        }

    def list_options(self) -> dict[str, Any]:
        """Return the options of a kernel that holds the sorted lists."""
        return {
            "K": self.k,
            "DILATION": self.dilation,
            "BLOCK_K": power_of_two(self.ranks, 2),
        }


@dataclass(slots=True)
class Problem:
    """A choice of neighbors: nodes, sources and options.

    Attributes:
        x: nodes whose neighbors are chosen, (B, N, C), contiguous.
        sources: candidates, (B, M, C), contiguous; `x` itself if `own`.
        bias: (N, M) or (B, N, M), contiguous, or None.
        mask: (B, N) bool, contiguous, or None.
        source_mask: (B, M) bool, contiguous, or None.
        setting: sizes and options.
    """

    x: Tensor
    sources: Tensor
    bias: Tensor | None
    mask: Tensor | None
    source_mask: Tensor | None
    setting: Setting

    @property
    def own(self) -> bool:
        """Whether the sources are the nodes themselves."""
        return self.sources is self.x

    def empty_neighbors(self) -> Tensor:
        """Return memory for the neighbors."""
        setting = self.setting
        return self.x.new_empty((setting.batch, setting.nodes, setting.k), dtype=torch.int64)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return bias, mask and mask of the sources, or any tensor in place of None."""
        return (
            self.x if self.bias is None else self.bias,
            self.x if self.mask is None else self.mask,
            self.x if self.source_mask is None else self.source_mask,
        )


def problem_of(
    x: Tensor,
    sources: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    source_mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    dilation: int,
) -> Problem:
    """Return the problem for the arguments of an operator."""
    x = x.contiguous()
    bias = None if bias is None else bias.contiguous()
    mask = None if mask is None else mask.contiguous()
    if sources is None:
        sources, source_mask = x, mask
    else:
        sources = sources.contiguous()
        source_mask = None if source_mask is None else source_mask.contiguous()
    setting = Setting(
        *x.shape,
        sources.shape[1],
        0 if bias is None else bias.dim(),
        mask is not None,
        source_mask is not None,
        k,
        metric,
        loop,
        dilation,
    )
    return Problem(x, sources, bias, mask, source_mask, setting)

"""The arguments of a choice of neighbors: contiguous, and as launches take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import power_of_two


@dataclass(slots=True)
class Problem:
    """A choice of neighbors: nodes, sources and options.

    Attributes:
        x: nodes whose neighbors are chosen, (B, N, C), contiguous.
        sources: candidates, (B, M, C), contiguous; `x` itself if `own`.
        bias: (N, M) or (B, N, M), contiguous, or None.
        mask: (B, N) bool, contiguous, or None.
        source_mask: (B, M) bool, contiguous, or None.
        k: number of neighbors.
        metric: "l2", "l1", "cosine" or "dot".
        loop: a node may be its own neighbor.
        dilation: distance in rank of two neighbors.
    """

    x: Tensor
    sources: Tensor
    bias: Tensor | None
    mask: Tensor | None
    source_mask: Tensor | None
    k: int
    metric: str
    loop: bool
    dilation: int

    @property
    def own(self) -> bool:
        """Whether the sources are the nodes themselves."""
        return self.sources is self.x

    @property
    def ranks(self) -> int:
        """Length of the sorted list of which every `dilation`-th is kept."""
        return self.k * self.dilation

    def empty_neighbors(self) -> Tensor:
        """Return memory for the neighbors."""
        return self.x.new_empty((*self.x.shape[:2], self.k), dtype=torch.int64)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return bias, mask and mask of the sources, or any tensor in place of None."""
        return tuple(  # type: ignore[return-value]
            self.x if each is None else each for each in (self.bias, self.mask, self.source_mask)
        )

    def sizes(self) -> tuple[int, int, int, int]:
        """Return N, M, C, and the step of the bias from one graph to the next."""
        nodes, channels = self.x.shape[1:]
        sources = self.sources.shape[1]
        step = 0 if self.bias is None or self.bias.dim() == 2 else nodes * sources
        return nodes, sources, channels, step

    def options(self) -> dict[str, Any]:
        """Return the options of every kernel that chooses neighbors."""
        return {
            "LOOP": self.loop,
            "HAS_BIAS": self.bias is not None,
            "HAS_MASK": self.mask is not None,
            "HAS_SOURCE_MASK": self.source_mask is not None,
        }

    def list_options(self) -> dict[str, Any]:
        """Return the options of a kernel that holds the sorted lists."""
        return {
            "K": self.k,
            "DILATION": self.dilation,
            "BLOCK_K": power_of_two(self.ranks, 2),
        }


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
    source_mask = mask if sources is None else source_mask
    bias, mask, source_mask = (
        None if each is None else each.contiguous() for each in (bias, mask, source_mask)
    )
    sources = x if sources is None else sources.contiguous()
    return Problem(x, sources, bias, mask, source_mask, k, metric, loop, dilation)

"""Inference and likelihood of a pairwise model of binary nodes, exact within blocks of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aurel.layers.pairwise_blocks import Blocks
from aurel.ops.distances import at_least_float32
from aurel.ops.pairwise_marginals import pairwise_marginals
from aurel.ops.pairwise_states import half_couplings

STEPS = 10  # of the mean field between blocks


def symmetric(couplings: Tensor) -> Tensor:
    """Return the symmetric part of couplings (N, N) with 0 on the diagonal, float32 or wider."""
    half = half_couplings(at_least_float32(couplings))
    return half + half.T


def parameter_group(
    parameters: Sequence[nn.Parameter], lr: float, factor: float
) -> list[dict[str, Any]]:
    """Return parameters for an optimizer: `factor` times `lr`, without weight decay."""
    return [{"params": list(parameters), "lr": lr * factor, "weight_decay": 0.0}]


def marginal_logits(
    fields: Tensor, couplings: Tensor, blocks: Blocks, mask: Tensor | None
) -> Tensor:
    """Return the logits of the marginals, (B, N), of fields (B, N); zero for absent nodes.

    One block is exact. Of several, each is exact given the mean of the others, which are iterated
    in `STEPS` steps, each half of the way.
    """
    if mask is not None:
        fields = fields.masked_fill(~mask, 0)
    if len(blocks) == 1:
        return pairwise_marginals(fields, couplings, mask=mask).logits
    between = _between(couplings, blocks)
    mean = _mean(fields, mask)
    for _ in range(STEPS - 1):
        found = _within(fields + mean @ between, couplings, blocks, mask)
        mean = (mean + _mean(found, mask)) / 2
    return _within(fields + mean @ between, couplings, blocks, mask)


def given_known(
    fields: Tensor, couplings: Tensor, blocks: Blocks, free: Tensor, active: Tensor
) -> Tensor:
    """Return the marginals of nodes of which all but those of `free` (B, N) are known."""
    on = active.to(fields.dtype)
    fields = fields + on @ symmetric(couplings)
    return on + _mean(marginal_logits(fields, couplings, blocks, free), free)


def negative_log_likelihood(
    fields: Tensor, couplings: Tensor, blocks: Blocks, unknown: Tensor | None, active: Tensor
) -> Tensor:
    """Return that of the known labels of each row, (B,), in nats: exact for one block.

    Of several blocks it is the sum of those of the blocks, each given the labels of the others, or
    the means of those that are unknown.

    Args:
        fields: (B, N), or (1, N) where all rows have the same.
        couplings: (N, N).
        blocks: node numbers of each block.
        unknown: (B, N) bool, True where the label is unknown; None if all are known.
        active: (B, N) bool, True where the label is 1.
    """
    if len(blocks) == 1:
        return _of_block(fields, couplings, unknown, active)
    mean = active.to(fields.dtype)
    if unknown is not None:
        mean = given_known(fields, couplings, blocks, unknown, active)
    fields = fields + mean @ _between(couplings, blocks)
    loss = fields.new_zeros(len(fields))
    for nodes in blocks:
        own = list(nodes)
        known = None if unknown is None else unknown[:, own]
        loss = loss + _of_block(fields[:, own], couplings[own][:, own], known, active[:, own])
    return loss


def _of_block(fields: Tensor, couplings: Tensor, unknown: Tensor | None, active: Tensor) -> Tensor:
    on = active.to(fields.dtype)
    both = symmetric(couplings)
    # Labels that are not active may have fields of any value.
    energy = (fields * on).sum(1) + ((on @ both) * on).sum(1) / 2
    loss = pairwise_marginals(fields, couplings).log_partition - energy
    if unknown is None:
        return loss
    # The known labels act on the others as fields.
    free = fields + on @ both
    return loss - pairwise_marginals(free, couplings, mask=unknown).log_partition


def _between(couplings: Tensor, blocks: Blocks) -> Tensor:
    """Return the couplings between blocks, (N, N)."""
    both = symmetric(couplings)
    same = torch.zeros(both.shape, dtype=torch.bool, device=both.device)
    for nodes in blocks:
        own = torch.tensor(nodes, device=both.device)
        same[own[:, None], own] = True
    return both.masked_fill(same, 0)


def _within(fields: Tensor, couplings: Tensor, blocks: Blocks, mask: Tensor | None) -> Tensor:
    """Return the logits of the marginals of each block alone, (B, N)."""
    parts = []
    for nodes in blocks:
        own = list(nodes)
        present = None if mask is None else mask[:, own]
        part = pairwise_marginals(fields[:, own], couplings[own][:, own], mask=present)
        parts.append(part.logits)
    order = [node for nodes in blocks for node in nodes]
    return torch.cat(parts, 1)[:, torch.tensor(order, device=fields.device).argsort()]


def _mean(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits.sigmoid() if mask is None else logits.sigmoid().masked_fill(~mask, 0)

"""Gradient checkpointing that leaves running statistics as they are without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def hold_statistics_when_recomputed(net: nn.Module) -> list[RemovableHandle]:
    """Let the batch norms of `net` learn statistics in the forward pass alone.

    A block that the backward pass computes again would move its running statistics a second time.

    Returns:
        The hooks that see to it, to be removed when checkpointing ends.
    """
    handles = []
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(_hold))
            # Checkpointing may stop a recomputation inside of the last norm.
            handles.append(module.register_forward_hook(_release, always_call=True))
    return handles


def _hold(norm: Any, inputs: object) -> None:
    # A compiled program recomputes by itself, without running modules again.
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        norm.momentum, norm.true_momentum = 0.0, norm.momentum


def _release(norm: Any, inputs: object, output: object) -> None:
    if not torch.compiler.is_compiling() and hasattr(norm, "true_momentum"):
        norm.momentum = norm.true_momentum
        del norm.true_momentum
        if norm.training:
            norm.num_batches_tracked.sub_(1)

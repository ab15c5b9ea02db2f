"""Batch norms of a backbone: statistics while blocks are recomputed, activations that they hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle


def freeze_statistics_when_recomputed(net: nn.Module) -> list[RemovableHandle]:
    """Make the batch norms of `net` update running statistics in the forward pass alone.

    Gradient checkpointing computes blocks again in the backward pass, which would update their
    running statistics a second time.

    Returns:
        The hooks that prevent it, to be removed when checkpointing ends.
    """
    handles = []
    for module in net.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(_freeze))
            # Checkpointing may stop a recomputation inside of the last norm.
            handles.append(module.register_forward_hook(_restore, always_call=True))
    return handles


def _freeze(norm: Any, inputs: object) -> None:
    # A compiled program recomputes by itself, without running modules again.
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        norm.momentum, norm.true_momentum = 0.0, norm.momentum


def _restore(norm: Any, inputs: object, output: object) -> None:
    if not torch.compiler.is_compiling() and hasattr(norm, "true_momentum"):
        norm.momentum = norm.true_momentum
        del norm.true_momentum
        if norm.training:
            norm.num_batches_tracked.sub_(1)


def activated_norm(net: nn.Module) -> str | None:
    """Return the name of a batch norm of `net` that also applies an activation, None without.

    Those of timm do; the converter of torch to `nn.SyncBatchNorm` drops the activation.
    """
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm) and hasattr(module, "act"):
            return name
    return None


def check_activations(net: nn.Module, name: str | None) -> None:
    """Raise ValueError if the batch norm `name`, found by `activated_norm`, has no activation now.

    `nn.SyncBatchNorm.convert_sync_batchnorm` puts a norm there that does not call it.
    """
    if name is not None and type(net.get_submodule(name)) is nn.SyncBatchNorm:
        raise ValueError(
            f"the batch norms of {type(net).__name__} must keep their activations, got "
            f"nn.SyncBatchNorm, which drops them, at {name!r}: convert the model with "
            "timm.layers.convert_sync_batchnorm"
        )

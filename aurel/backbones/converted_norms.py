"""Batch norms of timm that hold an activation, which torch's converter drops."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def activated_norm(net: nn.Module) -> str | None:
    """Return the name of a batch norm of `net` that also applies an activation, None without."""
    for name, part in net.named_modules():
        if isinstance(part, _BatchNorm) and hasattr(part, "act"):
            return name
    return None


def check_activations(net: nn.Module, name: str | None) -> None:
    """Raise ValueError if the batch norm of this name, see `activated_norm`, lost its activation.

    `nn.SyncBatchNorm.convert_sync_batchnorm` puts a norm there that does not call it.
    """
    if name is not None and type(net.get_submodule(name)) is nn.SyncBatchNorm:
        raise ValueError(
            f"the batch norms of {type(net).__name__} must keep their activations, got "
            f"nn.SyncBatchNorm, which drops them, at {name!r}: convert the model with "
            "timm.layers.convert_sync_batchnorm"
        )

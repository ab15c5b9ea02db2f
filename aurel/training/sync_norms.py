"""Batch norms over all processes of a run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins import TorchSyncBatchNorm
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_SHARED = (
    "_parameters",
    "_buffers",
    "_forward_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


class SyncNorms(TorchSyncBatchNorm):
    """Lightning's plugin with timm's converter, which keeps activations inside of batch norms.

    Hooks are kept, and the model has its original norms again when the run ends.
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace batch norms by synchronized ones."""
        self._replaced = [
            (parent, name, part)
            for parent in model.modules()
            for name, part in parent.named_children()
            if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm)
        ]
        model = convert_sync_batchnorm(model)
        for parent, name, norm in self._replaced:
            _share(norm, parent.get_submodule(name))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Restore the batch norms, with the weights and statistics of the synchronized ones."""
        for parent, name, norm in self._replaced:
            _share(parent.get_submodule(name), norm)
            setattr(parent, name, norm)
        self._replaced = []
        return model


def _share(source: Any, target: Any) -> None:
    """Set tensors, hooks and mode of `target` to those of `source`."""
    for attribute in _SHARED:
        setattr(target, attribute, getattr(source, attribute))
    target.training = source.training

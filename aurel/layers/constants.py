"""Non-persistent buffers that keep their values on the meta device."""

from __future__ import annotations

import torch
from torch import nn


def keep_constants(module: nn.Module) -> None:
    """Make `module` fill its non-persistent buffers again whenever it loads a state dict.

    After ``to_empty``, or on the meta device, they have no values, and a state dict has none for
    them. Each submodule that has such buffers fills them in place in a method
    ``init_non_persistent_buffers``, as the modules of timm do.
    """
    module.register_load_state_dict_post_hook(_fill)


@torch.no_grad()
def _fill(module: nn.Module, incompatible_keys: object) -> None:
    devices = {parameter.device for parameter in module.parameters()} or {torch.device("cpu")}
    device = devices.pop()
    for part in module.modules():
        fill = getattr(part, "init_non_persistent_buffers", None)
        if fill is None:
            continue
        for name in part._non_persistent_buffers_set:
            buffer = part._buffers[name]
            if buffer is not None and buffer.is_meta:
                part._buffers[name] = torch.empty_like(buffer, device=device)
        fill()

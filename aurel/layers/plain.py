"""Submodules whose weights may be used without calling them."""

from __future__ import annotations

from torch import nn


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a call of `module` does nothing but the forward of `kind`.

    Then a layer may fold the weights into a cheaper computation. It must call the module instead
    where it is an adapter or a quantized module, where a parametrization changed its class, and
    where hooks observe the call or, like those of pruning, compute the weights before it.
    Hooks on all modules, such as those of a profiler, do not count.
    """
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return type(module) is kind and not any(hooks) and "forward" not in module.__dict__

"""Sharpness-aware minimization: steps by gradients at perturbed weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def at_perturbed_weights(model: nn.Module, radius: float, closure: Callable[[], Result]) -> Result:
    r"""Call `closure` at the weights of the highest loss in the neighborhood, to first order.

    .. math:: w + \rho \frac{w^2 \odot g}{\lVert w \odot g \rVert_2}

    with g the gradients that the parameters w hold. Parameters and buffers are restored afterwards:
    running statistics change only by the pass that computed g.

    Args:
        model: with gradients.
        radius: :math:`\rho`.
        closure: clears gradients, computes the loss and its gradients.

    Returns:
        The result of `closure`.

    Source: adaptive SAM (Kwon et al., ICML 2021) without its constant added to :math:`|w|`, as in
    the code of OpenGraphAU.
    """
    with _restored([*model.buffers(), *model.parameters()]):
        _perturb(model.parameters(), radius)
        return closure()


@torch.no_grad()
def _perturb(parameters: Iterable[Tensor], radius: float) -> None:
    # The scale of the gradients cancels, so they may be the scaled ones of half precision.
    pairs = [(value, value.grad) for value in parameters if value.grad is not None]
    norm = torch.stack([(value * gradient).norm() for value, gradient in pairs]).norm()
    for value, gradient in pairs:
        value.add_(value.square() * gradient * (radius / norm.clamp_min(1e-12)))


@contextmanager
def _restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore the values of tensors at the end of the block."""
    saved = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in saved:
                tensor.copy_(value)

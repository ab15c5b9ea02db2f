"""Sharpness-aware minimisation: a step with the gradient of the highest loss nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def at_highest_nearby(model: nn.Module, radius: float, closure: Callable[[], Result]) -> Result:
    r"""Compute a loss and its gradients where the loss is highest nearby, to first order.

    .. math:: w + \rho \frac{w^2 \odot g}{\lVert w \odot g \rVert_2}

    with g the gradients that the parameters w hold. Afterwards w are what they were, as are all
    buffers: running statistics learn from the pass that gave g alone.

    Args:
        model: with gradients.
        radius: :math:`\rho`.
        closure: clears gradients, computes the loss and its gradients.

    Returns:
        what `closure` returns.

    Adaptive SAM (Kwon et al., ICML 2021) without its constant beside :math:`|w|`, as in the code
    of OpenGraphAU.
    """
    with _unchanged([*model.buffers(), *model.parameters()]):
        _climb(model.parameters(), radius)
        return closure()


@torch.no_grad()
def _climb(parameters: Iterable[Tensor], radius: float) -> None:
    # The length of the gradients drops out, so the scaled ones of half precision serve as well.
    pairs = [(value, value.grad) for value in parameters if value.grad is not None]
    length = torch.stack([(value * slope).norm() for value, slope in pairs]).norm()
    for value, slope in pairs:
        value.add_(value.square() * slope * (radius / length.clamp_min(1e-12)))


@contextmanager
def _unchanged(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put back the values that tensors have now."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)

"""Compare a Triton op and its gradients with the plain definition in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Float32 adds up rounding; half precision is rounded once, and the interpreter truncates bfloat16.
ROUNDINGS = {torch.float32: 64, torch.float16: 2, torch.bfloat16: 2}


def assert_agree(got: Tensor, want: Tensor) -> None:
    """Assert that `got` is `want` but for the rounding of its dtype, relative to the largest."""
    assert want.dtype == torch.float64
    scale = max(1.0, float(want.detach().abs().max()))
    tolerance = ROUNDINGS[got.dtype] * torch.finfo(got.dtype).eps
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * scale)


def outputs_and_gradients(
    function: Callable[..., Any], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor]:
    """Return the tensors that function(*inputs) gives, then the gradients of all inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    given = function(*leaves)
    outputs = [out for out in (given if isinstance(given, tuple) else (given,)) if out is not None]
    weights = [w.to(out.dtype) for w, out in zip(cotangents, outputs, strict=True)]
    return [*outputs, *torch.autograd.grad(outputs, leaves, weights)]


def check(
    triton: Callable[..., Any],
    reference: Callable[..., Any],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
) -> None:
    """Assert that both functions give the same outputs and gradients for the same inputs.

    The cotangents are rounded to the dtype of the outputs first, as Triton's are.
    """
    got = outputs_and_gradients(triton, inputs, cotangents)
    rounded = [w.to(out.dtype) for w, out in zip(cotangents, got, strict=False)]
    want = outputs_and_gradients(reference, [tensor.double() for tensor in inputs], rounded)
    for value, expected in zip(got, want, strict=True):
        assert value.is_contiguous()
        assert_agree(value, expected)

"""Comparison of a layer with stored results of the authors' layer: outputs, gradients, buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}
Convert = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """Return the arrays below a prefix as tensors, the prefix taken off."""
    return {
        key.removeprefix(prefix): torch.from_numpy(np.array(array))
        for key, array in arrays.items()
        if key.startswith(prefix)
    }


def load(layer: nn.Module, arrays: Mapping[str, np.ndarray], convert: Convert, mode: str) -> None:
    """Give `layer` the authors' parameters, float64 and the mode."""
    layer.double().load_state_dict(convert(with_prefix(arrays, "param.")))
    layer.train(mode == "train")


def assert_gradients(
    layer: nn.Module,
    arrays: Mapping[str, np.ndarray],
    convert: Convert,
    mode: str,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
) -> None:
    """Backpropagate and compare every gradient, of inputs and of parameters."""
    torch.autograd.backward(outputs, cotangents)
    for name, tensor in inputs.items():
        expected = torch.from_numpy(arrays[f"{mode}.grad.input.{name}"])
        torch.testing.assert_close(
            tensor.grad, expected, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )
    # The converters want whole state dicts: buffers stand in where there is no gradient.
    author = with_prefix(arrays, "param.") | with_prefix(arrays, f"{mode}.grad.param.")
    expected_all = convert(author)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected_all[name], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )


def assert_buffers(layer: nn.Module, arrays: Mapping[str, np.ndarray], convert: Convert) -> None:
    """Compare running statistics after one training step."""
    author = with_prefix(arrays, "param.") | with_prefix(arrays, "train.buffer_after.")
    expected = convert(author)
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(
            buffer, expected[name], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )

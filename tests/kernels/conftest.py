"""Make generic reductions fast in Triton's interpreter, which folds them one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def fold_slices(self: Any, input: Any) -> list[Any]:
    """Fold whole slices along the axis with the kernel's own combine function."""
    original_axis = self.axis
    tensors, axis = self.unravel(input, self.axis)
    arrays = [tensor.handle.data for tensor in tensors]

    def slices(i: int) -> tuple[Any, ...]:
        return tuple(
            self.to_tensor(np.take(array, i, axis=axis), tensor.dtype)
            for array, tensor in zip(arrays, tensors, strict=True)
        )

    folded = slices(0)
    for i in range(1, arrays[0].shape[axis]):
        result = self.combine_fn.fn(*folded, *slices(i))
        folded = result if isinstance(result, tuple) else (result,)
    out = []
    for tensor, value in zip(tensors, folded, strict=True):
        data = np.asarray(value.handle.data)
        if self.keep_dims:
            dims = len(arrays[0].shape) if original_axis is None else 1
            for _ in range(dims):
                data = np.expand_dims(data, axis if original_axis is not None else 0)
        elif original_axis is None:
            data = data.item()
        out.append(self.to_tensor(data, tensor.dtype))
    return out


@pytest.fixture(autouse=True)
def fast_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    monkeypatch.setattr(interpreter.ReduceOps, "generic_reduce", fold_slices)

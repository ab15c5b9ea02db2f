"""The label convention: 1 present, 0 absent, -1 unknown."""

from __future__ import annotations

import torch
from torch import Tensor


def check_labels(labels: Tensor, name: str = "labels") -> None:
    """Raise ValueError, with the value and its index, where a label is not 1, 0 or -1.

    It reads the values, which on an accelerator waits for them: for readers and set-up code.

    Args:
        labels: any shape and dtype.
        name: the name of the argument in the message.
    """
    invalid = ~((labels == 0) | (labels == 1) | (labels == -1))
    if invalid.any():
        index = tuple(invalid.nonzero()[0].tolist())
        raise ValueError(
            f"{name} must be 1 (present), 0 (absent) or -1 (unknown), got {labels[index].item():g} "
            f"at {index}"
        )


def known_labels(labels: Tensor, name: str = "labels") -> Tensor:
    """Return where a label is known, as a bool tensor of its shape.

    On the CPU, outside a compiled program, values are checked (`check_labels`). On an accelerator a
    check would stall, so there anything but 0 and 1 counts as unknown.
    """
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        check_labels(labels, name)
    return (labels == 0) | (labels == 1)

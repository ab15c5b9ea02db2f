"""The operators in plain torch, for exporters that accept only torch's own operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aurel.ops.registration import OPERATORS


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the definition of each operator, by operator.

    For `torch.export.ExportedProgram.run_decompositions`. The programs are for inference: outputs
    that an operator keeps for its gradient are left empty.
    """
    return {each.op: each.definition for each in OPERATORS.values() if each.definition is not None}

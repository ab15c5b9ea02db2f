"""FLOPs of the matrix products inside our operators, for `torch.utils.flop_counter`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aurel.ops.registration import OPERATORS


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Return the floating-point operations of each operator that has any, by operator.

    A `FlopCounterMode` does not look into custom operators: pass these as its `custom_mapping`.
    Forward passes, two operations a multiply-add; operations outside products of matrices (and of
    all pairs of nodes) count for nothing, as in torch's own formulas.
    """
    return {
        each.op.overloadpacket: each.flops for each in OPERATORS.values() if each.flops is not None
    }

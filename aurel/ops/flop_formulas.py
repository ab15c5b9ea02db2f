"""FLOPs of the matrix products inside the operators, for `torch.utils.flop_counter`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aurel.ops.registration import OPERATORS


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Return the floating-point operations of each operator that has any, by operator.

    A `FlopCounterMode` does not look into custom operators: pass these as its `custom_mapping`.
    Only forward passes are counted, with two operations a multiply-add; operations outside
    products of matrices (and of all pairs of nodes) are not, as in torch's own formulas.
    """
    return {
        each.op.overloadpacket: each.flops for each in OPERATORS.values() if each.flops is not None
    }

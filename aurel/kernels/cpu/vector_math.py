"""Functions without branches, so that LLVM vectorizes the loops that call them."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload


@intrinsic
def prefer_wide_vectors(typing_context: Any) -> Any:
    """Let LLVM use vectors of 512 bits in the calling function where the CPU has them."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # llvmlite accepts names of attributes only; LLVM ignores this one on other CPUs.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _power_of_two(typing_context: Any, shifted: Any) -> Any:
    """Return 2^n from n + 1.5 * 2^m, where m is the number of mantissa bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (shifted,) = args
        bits, mantissa = (64, 52) if shifted.type == ir.DoubleType() else (32, 23)
        integer = ir.IntType(bits)
        power = builder.shl(builder.bitcast(shifted, integer), ir.Constant(integer, mantissa))
        one = ir.Constant(shifted.type, 1.0).bitcast(integer)
        return builder.bitcast(builder.add(power, one), shifted.type)

    return shifted(shifted), generate


def _exponential(dtype: type[np.floating[Any]], degree: int, ln2_high: float) -> Callable[..., Any]:
    """Compile exp for -bound <= x <= bound: 2^n times the Taylor polynomial of the remainder."""
    magic = dtype(1.5 * 2.0 ** np.finfo(dtype).nmant)
    inverse = dtype(1 / np.log(2.0))
    high = dtype(ln2_high)
    low = dtype(np.log(np.longdouble(2)) - np.longdouble(ln2_high))
    one = dtype(1)
    coefficients = tuple(dtype(1 / factorial(power)) for power in range(degree, 1, -1))
    first, *rest = coefficients
    rest = tuple(rest)

    @njit(error_model="numpy", fastmath={"contract"})
    def exponential(x: Any) -> Any:
        shifted = x * inverse + magic
        power = shifted - magic
        remainder = x - power * high - power * low
        polynomial = first
        for coefficient in rest:
            polynomial = polynomial * remainder + coefficient
        polynomial = polynomial * (remainder * remainder) + remainder + one
        return polynomial * _power_of_two(shifted)

    return exponential


# The high part of ln 2 has so few bits that its products with n are exact.
_EXPONENTIALS = {
    types.float32: _exponential(np.float32, 7, 0.693359375),
    types.float64: _exponential(np.float64, 13, 6.93145751953125e-1),
}
# Where exp is a normal number on both sides of zero.
_BOUNDS = {types.float32: np.float32(87), types.float64: np.float64(708)}


def exp_of_nonpositive(x: Any) -> Any:
    """Return exp(x) for x <= 0; zero where that is below the normal numbers."""
    raise NotImplementedError


@overload(exp_of_nonpositive)
def _(x: Any) -> Any:
    exponential, lowest = _EXPONENTIALS[x], -_BOUNDS[x]
    zero = type(lowest)(0)

    def compute(x: Any) -> Any:
        # Comparisons that are false for NaN keep it.
        inside = lowest if x < lowest else x
        return zero if x < lowest else exponential(inside)

    return compute


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    raise NotImplementedError


@overload(sigmoid)
def _(x: Any) -> Any:
    exponential, bound = _EXPONENTIALS[x], _BOUNDS[x]
    one = type(bound)(1)

    def compute(x: Any) -> Any:
        inside = bound if x > bound else x
        inside = -bound if inside < -bound else inside
        return one / (one + exponential(-inside))

    return compute


def exp_of_unit(x: Any) -> Any:
    """Return exp(x) for 0 <= x <= 1."""
    raise NotImplementedError


@overload(exp_of_unit)
def _(x: Any) -> Any:
    exponential = _EXPONENTIALS[x]

    def compute(x: Any) -> Any:
        return exponential(x)

    return compute


@njit(error_model="numpy", fastmath={"contract"})
def product_of_shares(a: Any, b: Any) -> Any:
    """Return a b / (a + b)^2 for positive a and b, without a square that could overflow."""
    total = a + b
    return (a / total) * (b / total)


_LN2_HIGH = 6.93147180369123816490e-1  # few bits: its products with exponents are exact
_LN2_LOW = float(np.log(np.longdouble(2)) - np.longdouble(_LN2_HIGH))
_ROOT_OF_HALF = 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2)


@intrinsic
def _exponent(typing_context: Any, x: Any) -> Any:
    """Return n of x = 2^n m, where m is from sqrt(1/2) to sqrt(2)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(64)
        bits = builder.sub(builder.bitcast(args[0], integer), ir.Constant(integer, _ROOT_OF_HALF))
        return builder.sitofp(builder.ashr(bits, ir.Constant(integer, 52)), ir.DoubleType())

    return types.float64(types.float64), generate


@intrinsic
def _mantissa(typing_context: Any, x: Any) -> Any:
    """Return m of `_exponent`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(64)
        bits = builder.bitcast(args[0], integer)
        power = builder.sub(bits, ir.Constant(integer, _ROOT_OF_HALF))
        power = builder.and_(power, ir.Constant(integer, -(1 << 52)))
        return builder.bitcast(builder.sub(bits, power), ir.DoubleType())

    return types.float64(types.float64), generate


_SERIES = tuple(2 / (2 * power + 1) for power in range(11, 0, -1))


@njit(error_model="numpy", fastmath={"contract"})
def log_of_normal(x: Any) -> Any:
    """Return log(x) of a positive normal float64.

    With f = m - 1 and s = f / (2 + f), log m = 2 atanh(s) = f - s (f - R), where R is the rest of
    the series of 2 atanh(s) / s.
    """
    exponent = _exponent(x)
    above = _mantissa(x) - 1.0
    ratio = above / (above + 2.0)
    square = ratio * ratio
    rest = 0.0
    for coefficient in _SERIES:
        rest = rest * square + coefficient
    return exponent * _LN2_HIGH + (above - (ratio * (above - rest * square) - exponent * _LN2_LOW))

"""The functions that kernels vectorize."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aurel.kernels.cpu.compiler import kernel
from aurel.kernels.cpu.vector_math import (
    exp_of_nonpositive,
    exp_of_unit,
    log_of_normal,
    prefer_wide_vectors,
    product_of_shares,
    sigmoid,
)

DTYPES = [np.float32, np.float64]


@kernel
def apply_exp(x, out):  # type: ignore[no-untyped-def]
    prefer_wide_vectors()
    for i in range(x.size):
        out[i] = exp_of_nonpositive(x[i])


@kernel
def apply_gate(x, gate, weight):  # type: ignore[no-untyped-def]
    prefer_wide_vectors()
    for i in range(x.size):
        gate[i] = sigmoid(x[i])
        weight[i] = exp_of_unit(gate[i])


@kernel
def apply_log(x, out):  # type: ignore[no-untyped-def]
    prefer_wide_vectors()
    for i in range(x.size):
        out[i] = log_of_normal(x[i])


@kernel
def multiply_shares(a, b, out):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        out[i] = product_of_shares(a[i], b[i])


def units(got: Any, exact: Any) -> Any:
    """Return the errors in units of the last place."""
    return np.abs(got - exact) / np.spacing(exact.astype(got.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_is_within_two_units_of_the_last_place(dtype: Any) -> None:
    lowest = -87 if dtype == np.float32 else -708
    x = np.concatenate([np.linspace(lowest, 0, 200_001), -np.logspace(-30, 0, 1001)]).astype(dtype)
    got = np.empty_like(x)
    apply_exp(x, got)
    assert units(got, np.exp(x.astype(np.longdouble))).max() <= 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_of_special_values(dtype: Any) -> None:
    x = np.array([0.0, -0.0, -np.inf, np.nan, -1e6, np.finfo(dtype).min], dtype)
    got = np.empty_like(x)
    apply_exp(x, got)
    np.testing.assert_array_equal(got, np.array([1, 1, 0, np.nan, 0, 0], dtype))
    assert not np.signbit(got).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gate(dtype: Any) -> None:
    x = np.linspace(-30, 30, 100_001).astype(dtype)
    gate, weight = np.empty_like(x), np.empty_like(x)
    apply_gate(x, gate, weight)
    exact = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    assert units(gate, exact).max() <= 4
    assert units(weight, np.exp(exact)).max() <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_gate_of_special_values(dtype: Any) -> None:
    x = np.array([np.inf, 1e6, -np.inf, -1e6, np.nan], dtype)
    gate, weight = np.empty_like(x), np.empty_like(x)
    apply_gate(x, gate, weight)
    tiny = float(np.finfo(dtype).tiny)
    np.testing.assert_allclose(gate, [1, 1, 0, 0, np.nan], atol=2 * tiny, rtol=0)
    np.testing.assert_array_equal(weight[2:], np.array([1, 1, np.nan], dtype))


def test_log_is_within_two_units_of_the_last_place() -> None:
    near_one = 1 + np.concatenate([np.linspace(-0.5, 1, 200_001), np.logspace(-16, 0, 1001)])
    x = np.concatenate([near_one, np.exp(np.linspace(-708, 709, 200_001))])
    got = np.empty_like(x)
    apply_log(x, got)
    exact = np.log(x.astype(np.longdouble))
    assert units(got, exact)[exact != 0].max() <= 2
    assert not got[exact == 0].any()


def test_shares_of_huge_numbers() -> None:
    a, b = np.array([1e260, 1e-260, 3.0, 1e260]), np.array([1e260, 1e-260, 1.0, 1.0])
    got = np.empty(4)
    multiply_shares(a, b, got)
    np.testing.assert_allclose(got, [0.25, 0.25, 3 / 16, 1e-260], rtol=1e-15)

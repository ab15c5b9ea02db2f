"""CPU kernels of chains of action units: every number of units, blocks, threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from aurel.ops import chain_marginals, chain_viterbi

pytest.importorskip("numba")


def chain(units: int, frames: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(units)
    logits = 2 * torch.randn(2, frames, units)
    couplings, stay = torch.randn(units, units), 2 * torch.rand(2, frames - 1, units)
    return [each.to(dtype) for each in (logits, couplings, stay)]


def results(given: list[Tensor], backend: str) -> list[Tensor]:
    """Marginals, their gradients, and the most likely path."""
    leaves = [each.clone().requires_grad_() for each in given]
    outs = chain_marginals(*leaves, backend=backend)
    total = (outs[0] * torch.tensor([1.0, -2.0])).sum() + outs[1].sin().sum()
    grads = torch.autograd.grad(total, leaves, materialize_grads=True)
    return [*outs, *grads, chain_viterbi(*given, backend=backend)]


@pytest.mark.parametrize("units", range(1, 9))
def test_every_number_of_units_agrees_with_the_definition(units: int) -> None:
    """Steps take three action units at once, then two, then one."""
    given = chain(units, 5)
    for got, want in zip(results(given, "numba"), results(given, "definition"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_change_no_bit() -> None:
    given = chain(8, 200)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(results(given, "numba"))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float64(dtype: torch.dtype) -> None:
    given = chain(4, 6, dtype)
    wide = results([each.double() for each in given], "numba")
    for got, want in zip(results(given, "numba")[:2], wide[:2], strict=True):
        assert got.dtype == dtype
        assert torch.equal(got, want.to(dtype))

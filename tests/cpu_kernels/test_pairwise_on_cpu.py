"""CPU kernels of pairwise models: every number of nodes, exponents near their limit, threads."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from helpers.cpu_agreement import DTYPES, assert_same_on_more_threads, strided
from helpers.operator_calls import operator_calls
from torch import Tensor

from aurel.ops import pairwise_halves, pairwise_marginals, pairwise_mode
from aurel.ops.registration import OPERATORS

pytest.importorskip("numba")


def model(batch: int, nodes: int, scale: float = 1.0) -> list[Tensor]:
    torch.manual_seed(nodes)
    shapes = (batch, nodes), (nodes, nodes)
    return [scale * torch.randn(*shape, dtype=torch.float64) for shape in shapes]


def results(given: list[Tensor], mask: Tensor | None, backend: str) -> list[Tensor]:
    """Return log Z, logits and marginals, and the gradients of a sum of them."""
    leaves = [each.clone().requires_grad_() for each in given]
    outs = pairwise_marginals(*leaves, mask=mask, backend=backend)[:3]
    weights = torch.linspace(-1, 2, len(given[0]), dtype=torch.float64)
    total = sum(((weights @ out.sin()).sum() for out in outs), torch.zeros(()))
    return [*outs, *torch.autograd.grad(total, leaves)]


def assert_as_defined(given: list[Tensor], mask: Tensor | None = None) -> None:
    pairs = zip(results(given, mask, "numba"), results(given, mask, "definition"), strict=True)
    for got, want in pairs:
        scale = max(1.0, float(want.detach().abs().max()))
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("nodes", range(1, 18))
def test_every_number_of_nodes_agrees_with_the_definition(nodes: int) -> None:
    """Also one that the kernels do not serve; the last group of samples is not full."""
    batch = 9 if nodes < 13 else 2
    given = model(batch, nodes)
    assert_as_defined(given)
    mask = torch.rand(batch, nodes) < 0.6
    mask[0], mask[1] = False, True
    assert_as_defined(given, mask)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("nodes", [*range(1, 10), 13, 16])
def test_a_sample_has_equal_bits_in_every_batch(nodes: int, masked: bool) -> None:
    """Also one that is NaN, or beyond the limit, changes no other."""
    fields, couplings = model(65, nodes)
    mask = torch.rand(65, nodes) < 0.7 if masked else None
    whole = results_of_samples(fields, couplings, mask)
    for size in (0, 1, 7, 8, 9, 17, 64):
        part = results_of_samples(fields[:size], couplings, None if mask is None else mask[:size])
        assert all(torch.equal(got, want[:size]) for got, want in zip(part, whole, strict=True))
    changed = torch.tensor([2, 8, 31])
    others = torch.ones(65, dtype=torch.bool).index_fill(0, changed, False)
    for value in (torch.nan, 1e5):
        fields[changed] = value
        found = results_of_samples(fields, couplings, mask)
        assert all(torch.equal(a[others], b[others]) for a, b in zip(found, whole, strict=True))


def results_of_samples(fields: Tensor, couplings: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Return log Z, logits, marginals, the mode, and the gradient of a sum of the first three."""
    leaf = fields.clone().requires_grad_()
    outs = pairwise_marginals(leaf, couplings, mask=mask, backend="numba")[:3]
    total = sum((out.sin().sum() for out in outs), torch.zeros(()))
    mode = pairwise_mode(fields, couplings, mask=mask, backend="numba")
    return [*outs, mode, *torch.autograd.grad(total, [leaf])]


@pytest.mark.parametrize("nodes", [1, 6, 8, 9])
@pytest.mark.parametrize("output", range(3))
def test_a_gradient_of_one_output_alone(output: int, nodes: int) -> None:
    given = model(11, nodes)
    given[0][4] *= 1000
    grads = []
    for backend in ("numba", "definition"):
        leaves = [each.clone().requires_grad_() for each in given]
        out = pairwise_marginals(*leaves, backend=backend)[output]  # type: ignore[arg-type]
        grads.append(torch.autograd.grad(out.sin().sum(), leaves))
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("nodes", [8, 9])
def test_exponents_of_any_range_up_to_the_limit(nodes: int, share: float, sign: float) -> None:
    """The range is that of fields, of couplings, or of both."""
    fields, couplings = model(6, nodes)
    limit = pairwise_halves.LIMITS[torch.float64] * 0.999
    couplings = sign * couplings.abs().fill_diagonal_(0)
    couplings *= 2 * share * limit / couplings.sum().abs()
    fields[:3] = fields[:3].abs() * -sign
    fields *= (1 - share) * limit / fields.abs().sum(1, keepdim=True)
    span = pairwise_halves.exponent_range(fields, couplings, None)
    assert (span < limit * 1.0005).all() and (span > limit * 0.99).all()
    for got, want in zip(
        results([fields, couplings], None, "numba"),
        results([fields, couplings], None, "definition"),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("nodes", [6, 9])
@pytest.mark.parametrize("masked", [False, True])
def test_samples_beyond_the_limit_are_summed_in_the_log_domain(masked: bool, nodes: int) -> None:
    given = model(9, nodes)
    given[0][[1, 4, 8]] *= 1000
    mask = torch.rand(9, nodes) < 0.7 if masked else None
    assert_as_defined(given, mask)
    assert_as_defined([given[0], given[1] * 1000], mask)


def test_a_field_of_an_absent_node_has_no_effect() -> None:
    given = model(3, 5)
    mask = torch.ones(3, 5) > 0
    mask[1, 2] = False
    want = results(given, mask, "numba")
    for value in (torch.nan, torch.inf, 1e9):
        given[0][1, 2] = value
        assert all(map(torch.equal, results(given, mask, "numba"), want))


def test_a_coupling_that_is_not_a_number_is_in_all_samples() -> None:
    given = model(3, 5)
    given[1][1, 3] = torch.nan
    assert all(part.isnan().all() for part in results(given, None, "numba")[:3])


@pytest.mark.parametrize("nodes", [7, 9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_strides_are_computed_in_float64(dtype: torch.dtype, nodes: int) -> None:
    given = [each.to(dtype) for each in model(5, nodes)]
    given[0][1] *= 2000 if dtype != torch.float16 else 100
    wide = pairwise_marginals(*(each.double() for each in given), backend="numba")
    found = pairwise_marginals(*map(strided, given), backend="numba")
    out = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(found.log_partition, wide.log_partition.to(out))
    assert torch.equal(found.logits, wide.logits.to(out))
    torch.testing.assert_close(found.marginals, wide.marginals.to(out), rtol=1e-6, atol=0)
    assert found.logits.is_contiguous()


@pytest.mark.parametrize("nodes", [4, 9])
def test_gradients_of_float32_are_those_of_float64_rounded(nodes: int) -> None:
    given = [each.float() for each in model(6, nodes)]
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaves = [each.to(dtype).requires_grad_() for each in given]
        found = pairwise_marginals(*leaves, backend="numba")
        given_grads = [torch.ones_like(found.log_partition), torch.ones_like(found.logits)]
        grads.append(torch.autograd.grad([found.log_partition, found.logits], leaves, given_grads))
    assert all(got.equal(want.float()) for got, want in zip(*grads, strict=True))


@pytest.mark.parametrize("nodes", [1, 4, 8, 9])
def test_threads_change_no_bit(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = model(75, nodes)
    assert_same_on_more_threads(
        monkeypatch,
        lambda: [*results(given, None, "numba"), pairwise_mode(*given, backend="numba")],
    )


@pytest.mark.parametrize("name", ["pairwise_marginals", "pairwise_marginals_backward"])
def test_kernels_keep_the_schema(name: str) -> None:
    for call in operator_calls()[name]:
        given = (*call.arguments, "numba")
        torch.library.opcheck(
            OPERATORS[name].op, given, test_utils=("test_schema", "test_faketensor")
        )


def test_samples_that_are_left_out_leave_no_warning() -> None:
    fields = torch.tensor([[0.0, 1, 2, 3], [1e3, 0, 0, 0]], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(50):
            for length in (2, 8, 32):
                np.full(length, 1e300)  # what memory that is used again may hold
            found = pairwise_marginals(fields, torch.zeros(4, 4), backend="numba")
            found.logits.sum().backward()
    assert torch.equal(found.logits[1], fields[1])

"""The kernel of `chain_marginals`, forward and every gradient, against its definition."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import check
from helpers.plain import DEVICE, QUIET
from torch import Tensor

from aurel.ops import chain_marginals

pytestmark = QUIET


def chain(
    batch: int, frames: int, units: int, scale: float = 1.0, shared: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch + frames + units)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    clips = 1 if shared else batch
    stay = 2 * normal(clips, frames - 1, units)
    return scale * normal(batch, frames, units), normal(units, units), stay


def assert_agrees(
    inputs: tuple[Tensor, Tensor, Tensor], mask: Tensor | None = None, past: bool = False
) -> None:
    batch, frames, units = inputs[0].shape
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(shape, generator=generator) for shape in ((batch,), inputs[0].shape)]

    def run(backend: str):
        return lambda *given: chain_marginals(*given, mask=mask, past=past, backend=backend)

    check(run("triton"), run("definition"), inputs, [weight.to(DEVICE) for weight in weights])


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize(("batch", "frames", "units"), [(1, 2, 1), (3, 4, 2), (2, 5, 3), (2, 3, 6)])
def test_equals_the_definition(batch: int, frames: int, units: int, past: bool) -> None:
    assert_agrees(chain(batch, frames, units), past=past)
    generator = torch.Generator().manual_seed(3)
    mask = (torch.rand(batch, frames, generator=generator) < 0.6).to(DEVICE)
    assert_agrees(chain(batch, frames, units, shared=True), mask, past)


def test_a_clip_of_one_frame() -> None:
    logits, couplings, stay = chain(2, 1, 3)
    results = [
        chain_marginals(logits, couplings, stay, backend=name) for name in ("triton", "definition")
    ]
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_logits_and_costs_beyond_the_range_of_an_exponential(scale: float) -> None:
    logits, couplings, stay = (each.double() for each in chain(2, 6, 4, scale))
    given = (logits, 10 * couplings, 20 * stay)
    found = chain_marginals(*given, backend="triton")
    expected = chain_marginals(*given, backend="definition")
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-7)


def test_float64_is_exact() -> None:
    leaves = [each.double().requires_grad_() for each in chain(2, 4, 3)]
    results = []
    for backend in ("triton", "definition"):
        found = chain_marginals(*leaves, backend=backend)
        results.append(
            [*found, *torch.autograd.grad(found[0].sum() + found[1].sin().sum(), leaves)]
        )
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_nan_stays_in_its_clip() -> None:
    logits, couplings, stay = chain(3, 4, 3)
    expected = chain_marginals(logits, couplings, stay, backend="triton")
    logits[1, 2, 0] = torch.nan
    found = chain_marginals(logits, couplings, stay, backend="triton")
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got[[0, 2]], want[[0, 2]]) and got[1].isnan().any()


def test_any_memory_layout_and_an_empty_batch() -> None:
    logits, couplings, stay = chain(2, 4, 3)
    expected = chain_marginals(logits, couplings, stay, backend="triton")
    strided = (logits.mT.contiguous().mT, couplings.T.contiguous().T, stay.mT.contiguous().mT)
    found = chain_marginals(*strided, backend="triton")
    assert all(map(torch.equal, found, expected))
    log_partition, marginals = chain_marginals(logits[:0], couplings, stay[:0], backend="triton")
    assert log_partition.shape == (0,) and marginals.shape == (0, 4, 3)


def test_sizes_that_are_not_served() -> None:
    logits, couplings, stay = chain(1, 2, 14)
    with pytest.raises(ValueError, match="up to 13 binary units, got 14"):
        chain_marginals(logits, couplings, stay, backend="triton")

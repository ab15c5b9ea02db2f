"""Kernels of `pairwise_marginals`, forward and every gradient, against its definition."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import check
from helpers.plain import DEVICE, QUIET
from torch import Tensor

from aurel.kernels.triton import pairwise_marginals as kernels
from aurel.ops.pairwise_marginals import pairwise_marginals, pairwise_marginals_reference

pytestmark = QUIET


def model(batch: int, nodes: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fields = scale * torch.randn(batch, nodes, generator=generator)
    couplings = scale * torch.randn(nodes, nodes, generator=generator)
    return fields.to(DEVICE), couplings.to(DEVICE)


def random_mask(batch: int, nodes: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(batch, nodes, generator=generator) < 0.6).to(DEVICE)


def assert_agrees(
    fields: Tensor, couplings: Tensor, mask: Tensor | None = None, unused: bool = False
) -> None:
    """Of log Z and the logits of marginals, or of the logits alone."""
    start = 1 if unused else 0

    def triton(*given: Tensor) -> tuple[Tensor, ...]:
        return pairwise_marginals(*given, mask=mask, backend="triton")[start:2]

    def definition(*given: Tensor) -> tuple[Tensor, ...]:
        return pairwise_marginals_reference(*given, mask=mask)[start:2]

    generator = torch.Generator().manual_seed(2)
    batch, nodes = fields.shape
    weights = [torch.randn(shape, generator=generator) for shape in ((batch,), (batch, nodes))]
    check(
        triton, definition, [fields, couplings], [weight.to(DEVICE) for weight in weights][start:]
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("batch", "nodes"), [(1, 1), (3, 2), (2, 3), (5, 6), (2, 9)])
def test_equals_the_definition(batch: int, nodes: int, masked: bool) -> None:
    mask = random_mask(batch, nodes) if masked else None
    assert_agrees(*model(batch, nodes), mask)


@pytest.mark.parametrize(("tile", "programs"), [(64, 1), (16, 512), (16, 6)])
def test_tiles_and_groups_of_samples_add_up(
    tile: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "TILE", tile)
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    assert_agrees(*model(5, 6))
    assert_agrees(*model(5, 6), random_mask(5, 6), unused=True)


def test_a_tile_of_one_state_of_the_upper_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "TILE", 1)
    assert_agrees(*model(2, 5))


@pytest.mark.parametrize("scale", [10.0, 100.0, 3000.0])
def test_energies_beyond_the_range_of_an_exponential(scale: float) -> None:
    fields, couplings = model(4, 5, scale)
    leaves = [fields.requires_grad_(), couplings.requires_grad_()]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    results = []
    for given, function in (
        (leaves, lambda *args: pairwise_marginals(*args, backend="triton")),
        (wide, pairwise_marginals_reference),
    ):
        found = function(*given)
        grads = torch.autograd.grad(found.logits.sum() + found.log_partition.sum(), given)
        results.append([found.log_partition, found.logits, *grads])
    # Energies of about 5 times the scale are rounded to float32.
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5 * scale, atol=1e-5 * scale)
        assert got.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(dtype: torch.dtype) -> None:
    fields, couplings = (part.to(dtype) for part in model(3, 5))
    found = pairwise_marginals(fields, couplings, backend="triton")
    expected = pairwise_marginals(fields.float(), couplings.float(), backend="triton")
    for got, want in zip(found[:3], expected[:3], strict=True):
        assert got.dtype == torch.float32 and torch.equal(got, want)


def test_any_memory_layout() -> None:
    fields, couplings = model(4, 6)
    expected = pairwise_marginals(fields, couplings, backend="triton")
    strided = fields.mT.contiguous().mT, torch.stack((couplings, couplings), -1)[..., 0]
    found = pairwise_marginals(*strided, backend="triton")
    assert all(map(torch.equal, found[:3], expected[:3]))


def test_nan_and_infinity_stay_in_their_sample() -> None:
    fields, couplings = model(4, 6)
    expected = pairwise_marginals(fields, couplings, backend="triton")
    fields[1, 4], fields[2, 1] = torch.nan, torch.inf
    leaf = fields.requires_grad_()
    found = pairwise_marginals(leaf, couplings, backend="triton")
    for got, want in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(got[[0, 3]], want[[0, 3]])
    assert found.log_partition[1:3].isfinite().sum() == 0
    (grad,) = torch.autograd.grad(found.logits[[0, 3]].sum(), leaf)
    assert grad[[0, 3]].isfinite().all()


def test_absent_nodes_and_empty_graphs_are_zero() -> None:
    fields, couplings = model(3, 5)
    mask = random_mask(3, 5)
    mask[1] = False
    leaf = fields.masked_fill(~mask, torch.nan).requires_grad_()
    found = pairwise_marginals(leaf, couplings, mask=mask, backend="triton")
    assert not found.log_partition[1].any()
    assert not found.logits[~mask].any() and not found.marginals[~mask].any()
    total = found.logits.sum() + found.log_partition.sum()
    (grad,) = torch.autograd.grad(total, leaf)
    assert not grad[~mask].any() and grad[mask].all()


def test_an_empty_batch() -> None:
    fields, couplings = (part.requires_grad_() for part in model(0, 4))
    found = pairwise_marginals(fields, couplings, backend="triton")
    grads = torch.autograd.grad(found.logits.sum() + found.log_partition.sum(), [fields, couplings])
    assert found.logits.shape == (0, 4) and not grads[1].any()


def test_a_tile_covers_the_states_it_must() -> None:
    for nodes in range(1, 21):
        options = kernels.plan(nodes)
        assert options["LOW"] + options["HIGH"] == nodes
        assert options["BLOCK_A"] == 2 ** options["LOW"]
        assert 2 ** options["HIGH"] % options["BLOCK_B"] == 0
        assert options["BLOCK_A"] * options["BLOCK_B"] <= 4096

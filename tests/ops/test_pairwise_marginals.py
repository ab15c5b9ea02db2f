"""`pairwise_marginals` against sums over all states in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import product

import numpy as np
import pytest
import torch
from helpers.every_backend import every_backend, every_fast_backend
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from aurel.ops import pairwise_halves
from aurel.ops.flop_formulas import flop_formulas
from aurel.ops.pairwise_marginals import (
    PairwiseMarginals,
    pairwise_energies,
    pairwise_marginals,
    pairwise_marginals_reference,
)
from aurel.ops.pairwise_mode import pairwise_mode

with_pairs = pytest.mark.parametrize("pairs", [False, True])


def model(batch: int, nodes: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    fields = scale * torch.randn(batch, nodes, dtype=torch.float64)
    return fields, scale * torch.randn(nodes, nodes, dtype=torch.float64)


def oracle(fields: Tensor, couplings: Tensor, present: Tensor) -> dict[str, np.ndarray]:
    """One sample by a loop over states, as dictionaries of exact sums in the log domain."""
    nodes = [i for i in range(len(fields)) if present[i]]
    u, j = fields.tolist(), couplings.tolist()
    states, energies = [], []
    for bits in product((0, 1), repeat=len(nodes)):
        on = [i for i, bit in zip(nodes, bits, strict=True) if bit]
        pairs = sum((j[a][b] + j[b][a]) / 2 for a in on for b in on if a < b)
        states.append([int(i in on) for i in range(len(fields))])
        energies.append(sum(u[i] for i in on) + pairs)
    y, e = np.array(states).reshape(len(states), len(fields)), np.array(energies)
    total = np.logaddexp.reduce(e)
    p = np.exp(e - total)
    logits = np.zeros(len(fields))
    for i in nodes:
        on = y[:, i] == 1
        logits[i] = np.logaddexp.reduce(e[on]) - np.logaddexp.reduce(e[~on])
    return {
        "log_partition": total,
        "logits": logits,
        "marginals": p @ y,
        "pair_marginals": np.einsum("s,si,sj->ij", p, y, y),
    }


@every_backend
@with_pairs
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0, 3000.0])
@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 8])
def test_equals_a_loop_over_states(
    nodes: int, scale: float, masked: bool, pairs: bool, backend: str
) -> None:
    fields, couplings = model(3, nodes, scale)
    mask = torch.rand(3, nodes) < 0.6 if masked else None
    found = pairwise_marginals(fields, couplings, mask=mask, pairs=pairs, backend=backend)
    for b in range(3):
        present = torch.ones(nodes) > 0 if mask is None else mask[b]
        expected = oracle(fields[b], couplings, present)
        for name, values in found._asdict().items():
            if values is None:
                continue
            # Energies are rounded relative to their size.
            np.testing.assert_allclose(
                values[b].numpy(), expected[name], rtol=1e-9, atol=1e-12 * scale, err_msg=name
            )


def test_independent_nodes_keep_their_logits() -> None:
    fields = torch.randn(5, 12) * 20
    found = pairwise_marginals(fields, torch.zeros(12, 12))
    torch.testing.assert_close(found.logits, fields, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.log_partition, torch.nn.functional.softplus(fields).sum(1))


def test_pairs_are_returned_on_request() -> None:
    assert pairwise_marginals(*model(2, 3)).pair_marginals is None


@every_fast_backend
@with_pairs
@pytest.mark.parametrize("nodes", [1, 4, 5])
def test_gradcheck(nodes: int, pairs: bool, backend: str) -> None:
    fields, couplings = model(3, nodes)
    mask = torch.rand(3, nodes) < 0.7
    leaves = [fields.requires_grad_(), couplings.requires_grad_()]

    def call(*given: Tensor) -> list[Tensor]:
        found = pairwise_marginals(*given, mask=mask, pairs=pairs, backend=backend)
        return [part for part in found if part is not None]

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@every_fast_backend
@with_pairs
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("limit", [-1.0, 12.0, 1e9], ids=["walk", "both", "halves"])
def test_both_ways_give_the_gradients_of_the_definition(
    limit: float, masked: bool, pairs: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pairwise_halves.LIMITS, torch.float64, limit)
    fields, couplings = model(6, 7)
    mask = torch.rand(6, 7) < 0.7 if masked else None
    far = pairwise_halves.exponent_range(fields, couplings * 0, mask) > 6
    couplings /= couplings.abs().sum() / 6
    assert far.any() and not far.all()
    leaves = [fields.requires_grad_(), couplings.requires_grad_()]
    results = []
    for name in (backend, "definition"):
        found = parts_of(pairwise_marginals(*leaves, mask=mask, pairs=pairs, backend=name))
        results.append([*found, *torch.autograd.grad(seeded(found), leaves)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def parts_of(found: PairwiseMarginals) -> list[Tensor]:
    return [part for part in found if part is not None]


def seeded(parts: Sequence[Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    weights = (torch.rand(p.shape, generator=generator, dtype=p.dtype) for p in parts)
    return sum((part.sin() * weight).sum() for part, weight in zip(parts, weights, strict=True))


@pytest.mark.parametrize("block", [1, 50, 10**9])
def test_blocks_of_a_walk_add_up(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = import_module("aurel.ops.pairwise_walk")
    fields, couplings = model(2, 6, 1000.0)
    monkeypatch.setattr(walk, "_BLOCK", block)
    found = pairwise_marginals(fields, couplings, pairs=True)
    for got, expected in zip(
        found, pairwise_marginals_reference(fields, couplings, pairs=True), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-9)


@every_backend
@with_pairs
def test_a_gradient_of_huge_logits_is_finite(pairs: bool, backend: str) -> None:
    fields = torch.tensor([[1e4, -2e4, 3e4], [0.5, -700.0, 800.0]], dtype=torch.float64)
    couplings = torch.full((3, 3), -1e4, dtype=torch.float64)
    leaves = [fields.requires_grad_(), couplings.requires_grad_()]
    found = parts_of(pairwise_marginals(*leaves, pairs=pairs, backend=backend))
    grads = torch.autograd.grad(seeded(found), leaves)
    assert all(part.isfinite().all() for part in (*found, *grads))
    assert grads[0].abs().max() > 0.1


def test_the_gradient_of_log_z_is_the_marginals() -> None:
    fields, couplings = model(4, 9)
    leaves = [fields.requires_grad_(), couplings.requires_grad_()]
    found = pairwise_marginals(*leaves, pairs=True)
    grads = torch.autograd.grad(found.log_partition.sum(), leaves)
    torch.testing.assert_close(grads[0], found.marginals)
    joint = found.pair_marginals.sum(0).fill_diagonal_(0) / 2
    torch.testing.assert_close(grads[1], joint)


def test_twenty_nodes_hold_far_less_than_their_states() -> None:
    fields, couplings = (part.requires_grad_() for part in model(4, 20, 0.3))
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            parts = out if isinstance(out, (tuple, list)) else (out,)
            sizes.extend(part.numel() for part in parts if isinstance(part, Tensor))
            return out

    module = import_module("aurel.ops.pairwise_marginals")
    given = (fields.detach(), couplings.detach(), None)
    with Sizes():
        outputs = module._pairwise_marginals.function(*given, False, "torch")
        grads = module._pairwise_marginals_backward.function(
            *(torch.ones_like(part) for part in outputs), *outputs, *given, "torch"
        )
    assert max(sizes) == 2**20 < 4 * 2**20
    found = pairwise_marginals(fields, couplings)
    expected = torch.autograd.grad(found.log_partition.sum() + found.logits.sum(), [fields])
    torch.testing.assert_close(grads[0], expected[0])
    energies = pairwise_energies(fields.detach()[:1], couplings.detach())
    torch.testing.assert_close(found.log_partition[:1], energies.logsumexp(1))


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(dtype: torch.dtype, backend: str) -> None:
    fields, couplings = (part.to(dtype) for part in model(3, 6))
    expected = pairwise_marginals(fields.double(), couplings.double())
    found = pairwise_marginals(fields, couplings, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pairwise_marginals(fields, couplings, backend=backend)
    for got, same, want in zip(found, mixed, expected, strict=True):
        if want is not None:
            assert got.dtype == torch.float32 and torch.equal(got, same)
            torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


@every_backend
@with_pairs
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_in_its_sample(value: float, pairs: bool, backend: str) -> None:
    fields, couplings = model(3, 6)
    expected = parts_of(pairwise_marginals(fields, couplings, pairs=pairs, backend=backend))
    fields[1, 2] = value
    leaf = fields.requires_grad_()
    found = parts_of(pairwise_marginals(leaf, couplings, pairs=pairs, backend=backend))
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got[[0, 2]], want[[0, 2]])
    (grad,) = torch.autograd.grad(seeded(found), leaf)
    assert grad[[0, 2]].isfinite().all()
    assert found[0][1].isnan()


@every_backend
@with_pairs
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_couplings_of_absent_nodes_are_not_read(value: float, pairs: bool, backend: str) -> None:
    fields, couplings = model(3, 5)
    mask = torch.tensor([False, True, True, True, True]).expand(3, -1)
    expected = pairwise_marginals(fields[:, 1:], couplings[1:, 1:], pairs=pairs)
    couplings[0, 2] = couplings[3, 0] = value
    leaves = [each.requires_grad_() for each in (fields, couplings)]
    found = pairwise_marginals(*leaves, mask=mask, pairs=pairs, backend=backend)
    torch.testing.assert_close(found.log_partition, expected.log_partition)
    torch.testing.assert_close(found.logits[:, 1:], expected.logits)
    if pairs:
        torch.testing.assert_close(found.pair_marginals[:, 1:, 1:], expected.pair_marginals)
    for grad in torch.autograd.grad(found.logits.sum(), leaves):
        assert grad.isfinite().all() and grad.any()


@given(st.permutations(range(5)))
def test_permuted_nodes(order: list[int]) -> None:
    fields, couplings = model(2, 5)
    found = pairwise_marginals(fields, couplings, pairs=True)
    moved = pairwise_marginals(fields[:, order], couplings[order][:, order], pairs=True)
    torch.testing.assert_close(moved.log_partition, found.log_partition)
    torch.testing.assert_close(moved.marginals, found.marginals[:, order])
    torch.testing.assert_close(moved.pair_marginals, found.pair_marginals[:, order][:, :, order])


@every_backend
def test_only_the_symmetric_part_of_couplings_counts(backend: str) -> None:
    fields, couplings = model(2, 5)
    upper = (couplings + couplings.T).triu(1)
    noisy = upper + torch.diag(torch.full((5,), torch.nan, dtype=torch.float64))
    for got, expected in zip(
        pairwise_marginals(fields, noisy, backend=backend),
        pairwise_marginals(fields, couplings),
        strict=True,
    ):
        if expected is not None:
            torch.testing.assert_close(got, expected)


@every_backend
@with_pairs
@pytest.mark.parametrize("size", [(0, 4), (3, 0), (0, 0)], ids=str)
def test_empty(size: tuple[int, int], pairs: bool, backend: str) -> None:
    fields, couplings = (part.requires_grad_() for part in model(*size))
    found = parts_of(pairwise_marginals(fields, couplings, pairs=pairs, backend=backend))
    assert found[0].shape == size[:1] and not found[0].any()
    assert found[2].shape == size and (not pairs or found[3].shape == (*size, size[1]))
    sum(part.sum() for part in found).backward()
    assert fields.grad.shape == size


def test_flops_are_those_of_two_products_with_the_couplings() -> None:
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        pairwise_marginals(torch.zeros(3, 6), torch.zeros(6, 6))
    assert counter.get_total_flops() == 2 * (2 * 3 * 8 * 8)


def test_a_compiled_and_an_exported_program_are_exact() -> None:
    class Layer(torch.nn.Module):
        def forward(self, fields: Tensor, couplings: Tensor) -> tuple[Tensor, Tensor]:
            found = pairwise_marginals(fields, couplings)
            return found.logits, found.log_partition

    given = model(3, 5, 300.0)
    expected = Layer()(*given)
    compiled = torch.compile(Layer(), backend="aot_eager", fullgraph=True)
    exported = torch.export.export(Layer(), given).module()
    for program in (compiled, exported):
        assert all(map(torch.equal, program(*given), expected))


def test_messages() -> None:
    fields, couplings = model(2, 4)
    for name in (pairwise_marginals, pairwise_mode):
        with pytest.raises(ValueError, match=r"^logits must have shape \(B, N\), got \(4,\)$"):
            name(fields[0], couplings)
        with pytest.raises(ValueError, match=r"^couplings must have shape \(N=4, N=4\), got "):
            name(fields, couplings[:3])
        with pytest.raises(ValueError, match="^logits must have at most 24 nodes, got 25$"):
            name(torch.zeros(1, 25), torch.zeros(25, 25))
        with pytest.raises(ValueError, match="^mask must be bool"):
            name(fields, couplings, mask=torch.ones(2, 4))

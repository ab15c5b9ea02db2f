"""chain_marginals: exact sums over all paths of binary action units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.every_backend import every_backend, every_fast_backend
from helpers.oracle_chain import enumerate_paths
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops import chain_marginals

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def random_chain(
    seed: int, stay_of: str = "unit", scale: float = 2.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, couplings, costs and a mask of a few frames of a few action units."""
    generator = torch.Generator().manual_seed(seed)
    batch, frames, units = ((1, 4, 2), (2, 3, 3), (3, 2, 4), (2, 1, 3), (2, 4, 1))[seed % 5]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shapes = {"unit": (units,), "step": (1, frames - 1, units), "clip": (batch, frames - 1, units)}
    mask = torch.rand(batch, frames, generator=generator) < 0.7
    stay = 2 * normal(*shapes[stay_of])
    return scale * normal(batch, frames, units), normal(units, units), stay, mask


def cost(stay: Tensor, clip: int) -> np.ndarray:
    return (stay if stay.ndim == 1 else stay[min(clip, len(stay) - 1)]).numpy()


def odds(p: Any) -> Any:
    return np.log(p) - np.log1p(-p)


@every_backend
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    stay_of=st.sampled_from(["unit", "step", "clip"]),
    masked=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_equals_the_sum_over_all_paths(
    backend: str, seed: int, stay_of: str, masked: bool, dtype: torch.dtype
) -> None:
    chain = [each.to(dtype) for each in random_chain(seed, stay_of)[:3]]
    mask = random_chain(seed)[3] if masked else None
    log_partition, marginals = chain_marginals(*chain, mask=mask, backend=backend)
    assert log_partition.dtype == marginals.dtype == dtype
    logits, couplings, stay = (each.double() for each in chain)
    error = 8 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-11
    for b in range(len(logits)):
        seen = None if mask is None else mask[b].numpy()
        want = enumerate_paths(logits[b].numpy(), couplings.numpy(), cost(stay, b), seen)
        np.testing.assert_allclose(
            log_partition[b].double(), want.log_partition, rtol=error, atol=error
        )
        np.testing.assert_allclose(
            marginals[b].double(), odds(want.marginals), rtol=error, atol=error
        )


@every_backend
def test_past_is_the_whole_of_a_shorter_clip(backend: str) -> None:
    logits, couplings, stay, mask = random_chain(1)
    whole, filtered = chain_marginals(
        logits, couplings, stay, mask=mask, past=True, backend=backend
    )
    for t in range(logits.shape[1]):
        now = (logits[:, : t + 1], couplings, stay)
        log_partition, marginals = chain_marginals(*now, mask=mask[:, : t + 1], backend=backend)
        torch.testing.assert_close(filtered[:, t], marginals[:, -1])
    torch.testing.assert_close(whole, log_partition)


@every_backend
def test_gradients_of_the_log_partition_are_expectations(backend: str) -> None:
    for seed in range(5):
        logits, couplings, stay, mask = random_chain(seed, "clip")
        leaves = [each.clone().requires_grad_() for each in (logits, couplings, stay)]
        log_partition, _ = chain_marginals(*leaves, mask=mask, backend=backend)
        factor = torch.arange(1.0, len(logits) + 1).double()
        grads = torch.autograd.grad((factor * log_partition).sum(), leaves, materialize_grads=True)
        pairs = 0
        for b in range(len(logits)):
            want = enumerate_paths(
                logits[b].numpy(), couplings.numpy(), cost(stay, b), mask[b].numpy()
            )
            weight = factor[b].item()
            seen = mask[b].double()[:, None]
            np.testing.assert_allclose(grads[0][b] / weight, want.marginals * seen.numpy(), 1e-9)
            np.testing.assert_allclose(grads[2][b] / weight, -want.changes, 1e-9, 1e-12)
            pairs = pairs + weight * want.pairs
        np.testing.assert_allclose(grads[1], pairs, 1e-9, 1e-12)


@every_fast_backend
@pytest.mark.parametrize("past", [False, True])
def test_gradcheck(backend: str, past: bool) -> None:
    for seed, stay_of in ((0, "unit"), (1, "step"), (2, "clip"), (3, "unit"), (4, "clip")):
        *chain, mask = random_chain(seed, stay_of, 1.0)
        leaves = [each.requires_grad_() for each in chain]
        assert torch.autograd.gradcheck(
            lambda *given, mask=mask: chain_marginals(
                *given, mask=mask, past=past, backend=backend
            ),
            leaves,
        )


@every_fast_backend
@pytest.mark.parametrize("frames", [64, 65, 129, 200])
def test_blocks_of_frames_change_nothing(backend: str, frames: int) -> None:
    """A long clip is computed in blocks."""
    generator = torch.Generator().manual_seed(frames)
    logits = torch.randn(2, frames, 4, generator=generator, dtype=torch.float64)
    couplings, stay = torch.randn(4, 4, generator=generator).double(), torch.rand(4).double() * 3
    mask = torch.rand(2, frames, generator=generator) < 0.8
    results = []
    for name in (backend, "definition"):
        leaves = [each.clone().requires_grad_() for each in (logits, couplings, stay)]
        outs = chain_marginals(*leaves, mask=mask, backend=name)
        grads = torch.autograd.grad(outs[0].sum() + outs[1].sin().sum(), leaves)
        past = chain_marginals(logits, couplings, stay, mask=mask, past=True, backend=name)
        results.append([*outs, *grads, *past])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@every_backend
def test_no_cost_makes_frames_independent(backend: str) -> None:
    logits, couplings, _, _ = random_chain(1)
    stay = torch.zeros(3, dtype=torch.float64)
    log_partition, marginals = chain_marginals(logits, couplings, stay, backend=backend)
    frames = logits.flatten(0, 1)[:, None]
    alone, single = chain_marginals(frames, couplings, stay, backend=backend)
    torch.testing.assert_close(marginals.flatten(0, 1), single[:, 0])
    torch.testing.assert_close(log_partition, alone.view(2, 3).sum(1))


@every_backend
def test_a_high_cost_makes_a_clip_constant(backend: str) -> None:
    """Beyond 30 it is the same as 30: all frames of one state, whose logits are the sum."""
    logits, couplings, _, _ = random_chain(1, scale=0.5)
    stay = torch.full((3,), 1e6, dtype=torch.float64)
    _, marginals = chain_marginals(logits, couplings, stay, backend=backend)
    frames = logits.shape[1]
    _, single = chain_marginals(
        logits.sum(1, keepdim=True), frames * couplings, stay, backend=backend
    )
    torch.testing.assert_close(marginals, single.expand_as(marginals), rtol=1e-9, atol=1e-9)
    leaf = stay.clone().requires_grad_()
    outs = chain_marginals(logits, couplings, leaf, backend=backend)
    (grad,) = torch.autograd.grad(outs[0].sum() + outs[1].sum(), leaf)
    assert not grad.any()


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strong_evidence_that_conflicts_is_finite(backend: str, dtype: torch.dtype) -> None:
    frames, units = 40, 12 if backend == "numba" else 6
    signs = 2.0 * (torch.arange(frames * units).view(1, frames, units) % 7 % 2) - 1
    couplings = torch.linspace(-8, 8, units * units, dtype=dtype).view(units, units)
    for strength in (50, 500):
        for price in (0.0, 4.0, 30.0):
            leaves = [
                (strength * signs).to(dtype),
                couplings,
                torch.full((units,), price).to(dtype),
            ]
            for leaf in leaves:
                leaf.requires_grad_()
            outs = chain_marginals(*leaves, backend=backend)
            grads = torch.autograd.grad(outs[0].sum() + outs[1].sum(), leaves)
            assert all(each.isfinite().all() for each in (*outs, *grads))
            if strength == 500:  # more than any change costs
                assert torch.equal(outs[1].sign(), leaves[0].sign())
            assert outs[1].abs().max() <= 200


@every_fast_backend
def test_wide_couplings_agree_with_the_definition(backend: str) -> None:
    """Their potentials leave the range of float64."""
    logits, couplings, stay, mask = random_chain(1, scale=40.0)
    chain = (logits, 900 * couplings, stay)
    got = chain_marginals(*chain, mask=mask, backend=backend)
    want = chain_marginals(*chain, mask=mask, backend="definition")
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-9)


@every_backend
def test_nan_stays_in_its_clip(backend: str) -> None:
    logits, couplings, stay, _ = random_chain(2)
    logits[1, 0, 2] = torch.nan
    log_partition, marginals = chain_marginals(logits, couplings, stay, backend=backend)
    assert log_partition.isnan().tolist() == [False, True, False]
    assert marginals.isnan().flatten(1).all(1).tolist() == [False, True, False]
    assert not marginals[::2].isnan().any()


@every_backend
def test_nan_in_a_frame_without_evidence_is_not_seen(backend: str) -> None:
    logits, couplings, stay, _ = random_chain(1)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    want = chain_marginals(logits, couplings, stay, mask=mask, backend=backend)
    leaf = logits.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    got = chain_marginals(leaf, couplings, stay, mask=mask, backend=backend)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    (grad,) = torch.autograd.grad(got[0].sum() + got[1].sin().sum(), leaf)
    assert not grad[~mask].any() and grad[mask].all()


@every_backend
def test_empty_batches_strides_and_the_most_units(backend: str) -> None:
    empty = chain_marginals(
        torch.zeros(0, 4, 3), torch.zeros(3, 3), torch.zeros(3), backend=backend
    )
    assert [each.shape for each in empty] == [(0,), (0, 4, 3)]
    logits, couplings, stay, _ = random_chain(1)
    strided = logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    got = chain_marginals(strided, couplings, stay, backend=backend)
    torch.testing.assert_close(got, chain_marginals(logits, couplings, stay, backend=backend))
    logits = torch.randn(1, 2, 16, dtype=torch.float64)
    alone = chain_marginals(logits, torch.zeros(16, 16), torch.zeros(16), backend=backend)[1]
    torch.testing.assert_close(alone, logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": torch.zeros(2, 3)}, r"logits must have shape \(B, T, N\), got \(2, 3\)"),
        ({"logits": torch.zeros(2, 0, 3)}, "logits must have at least one frame, got T = 0"),
        ({"logits": torch.zeros(2, 4, 17)}, r"logits must have 1\.\.16 action units, got 17"),
        ({"logits": torch.zeros(2, 4, 0)}, r"logits must have 1\.\.16 action units, got 0"),
        ({"couplings": torch.zeros(3)}, r"couplings must have shape \(N=3, N=3\), got \(3,\)"),
        ({"stay": torch.zeros(4)}, r"stay must have shape \(N=3\), got \(4,\)"),
        ({"stay": torch.zeros(3, 3, 3)}, r"stay must have shape \(B=2, T-1=3, N=3\)"),
        ({"stay": torch.zeros(2, 4, 3)}, r"stay must have shape \(B=2, T-1=3, N=3\)"),
        ({"mask": torch.ones(2, 3) > 0}, r"mask must have shape \(B=2, T=4\), got \(2, 3\)"),
        ({"mask": torch.ones(2, 4)}, r"mask must be bool .*, got torch.float32"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    good = {"logits": torch.zeros(2, 4, 3), "couplings": torch.eye(3), "stay": torch.zeros(3)}
    with pytest.raises(ValueError, match=f"^{message}"):
        chain_marginals(**good | arguments)

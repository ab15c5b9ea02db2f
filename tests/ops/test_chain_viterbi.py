"""chain_viterbi: the best of all paths of binary action units."""

from __future__ import annotations

import pytest
import torch
from helpers.every_backend import every_backend, every_fast_backend
from helpers.oracle_chain import enumerate_paths
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chain_marginals import cost, random_chain

from aurel.ops import chain_viterbi


@every_backend
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    stay_of=st.sampled_from(["unit", "step", "clip"]),
    masked=st.booleans(),
)
def test_equals_the_best_of_all_paths(backend: str, seed: int, stay_of: str, masked: bool) -> None:
    logits, couplings, stay, mask = random_chain(seed, stay_of)
    stay = stay.abs()
    path = chain_viterbi(logits, couplings, stay, mask=mask if masked else None, backend=backend)
    assert path.dtype == torch.int64 and path.shape == logits.shape
    for b in range(len(logits)):
        seen = mask[b].numpy() if masked else None
        want = enumerate_paths(logits[b].numpy(), couplings.numpy(), cost(stay, b), seen)
        got = enumerate_paths(
            logits[b].numpy(), couplings.numpy(), cost(stay, b), seen, path[b].numpy()
        )
        best = enumerate_paths(logits[b].numpy(), couplings.numpy(), cost(stay, b), seen, want.best)
        # Where frames have no evidence, paths may tie.
        assert got.log_partition == pytest.approx(best.log_partition, abs=1e-9)
        if not masked:
            assert (path[b].numpy() == want.best).all()


@every_fast_backend
@pytest.mark.parametrize("frames", [64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_frames_change_nothing(backend: str, frames: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(frames)
    logits = 3 * torch.randn(2, frames, 4, generator=generator, dtype=dtype)
    couplings = torch.randn(4, 4, generator=generator, dtype=dtype)
    stay = torch.rand(2, frames - 1, 4, generator=generator, dtype=dtype) * 3
    path = chain_viterbi(logits, couplings, stay, backend=backend)
    assert torch.equal(path, chain_viterbi(logits, couplings, stay, backend="definition"))
    changes = path.diff(dim=1).abs().sum()
    assert 0 < changes < (logits > 0).long().diff(dim=1).abs().sum()


@every_backend
def test_limits_of_the_cost(backend: str) -> None:
    logits, couplings, _, _ = random_chain(1)
    free = chain_viterbi(logits, 0 * couplings, torch.zeros(3).double(), backend=backend)
    assert torch.equal(free, (logits > 0).long())
    fixed = chain_viterbi(logits, 0 * couplings, torch.full((3,), 1e6).double(), backend=backend)
    assert torch.equal(fixed, (logits.sum(1, keepdim=True) > 0).long().expand_as(logits))


@every_backend
def test_nan_stays_in_its_clip_and_empty_batches_are_served(backend: str) -> None:
    logits, couplings, stay, _ = random_chain(2)
    want = chain_viterbi(logits, couplings, stay, backend=backend)
    logits[1, 0, 2] = torch.nan
    got = chain_viterbi(logits, couplings, stay, backend=backend)
    assert torch.equal(got[::2], want[::2])
    assert ((got == 0) | (got == 1)).all()
    assert chain_viterbi(logits[:0], couplings, stay, backend=backend).shape == (0, 2, 4)

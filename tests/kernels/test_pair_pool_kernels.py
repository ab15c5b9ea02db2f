"""pair_pool kernels: the definition, its gradients, close rows, NaN, many tokens."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from helpers.agreement import check
from helpers.plain import DEVICE, DTYPES, QUIET
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.kernels.triton import pair_pool as kernels
from aurel.kernels.triton import pair_pool_large
from aurel.kernels.triton.launch import Launch
from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.ops.backend import use_backend
from aurel.ops.pair_pool import pair_pool, pair_pool_reference
from aurel.ops.pairwise_cross_attention import (
    pairwise_cross_attention,
    pairwise_cross_attention_reference,
)

pytestmark = QUIET

triton = functools.partial(pair_pool, backend="triton")


tiled_or_not = pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiles"])


def problem(
    batch: int, nodes: int, tokens: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], list[Tensor]]:
    """Return queries, keys and matrices (not Gram matrices), and cotangents of both outputs."""
    queries, keys = torch.randn(2, batch, nodes, tokens, width, device=DEVICE)
    matrices = torch.randn(batch, nodes, tokens, tokens, device=DEVICE)
    grads = [torch.randn(batch, nodes, nodes, *s, device=DEVICE) for s in ((tokens,), ())]
    return [tensor.to(dtype) for tensor in (queries, keys, matrices)], grads


@contextmanager
def small_tiles(small: bool = True) -> Iterator[None]:
    """Serve any number of tokens by the kernels for many, with tiles of sixteen."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(kernels, "WHOLE_PAIR", 0)
            patch.setitem(pair_pool_large.OPTIONS, "BLOCK_D", 16)
        yield


def compare(shape: tuple[int, int, int, int], scattered: bool = True) -> None:
    inputs, grads = problem(*shape)
    count = 3 if scattered else 2
    check(triton, pair_pool_reference, inputs[:count], grads[: count - 1])


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_equals_the_definition(
    shape: tuple[int, int, int, int], dtype: torch.dtype, scattered: bool, strided: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs, grads = problem(*shape, dtype)
    if strided:
        inputs = [tensor.mT.contiguous().mT for tensor in inputs]
    if not scattered:
        inputs, grads = inputs[:2], grads[:1]
    check(triton, pair_pool_reference, inputs, grads)


@pytest.mark.parametrize("shape", [(1, 2, 18, 5), (2, 1, 3, 1)])
def test_tiles_equal_the_definition(shape: tuple[int, int, int, int]) -> None:
    with small_tiles():
        compare(shape)


def test_tiles_without_a_scatter_and_of_wide_queries() -> None:
    with small_tiles():
        compare((2, 1, 18, 70), scattered=False)


@pytest.mark.parametrize("shape", [(1, 2, 49, 49), (1, 2, 33, 64), (1, 2, 9, 70), (1, 1, 65, 1)])
def test_sizes_of_models_and_wide_queries(shape: tuple[int, int, int, int]) -> None:
    compare(shape)


@tiled_or_not
def test_close_rows_keep_the_digits_of_their_scatter(tiled: bool) -> None:
    (query, key, matrices), _ = problem(1, 2, 20, 6)
    gram = matrices @ matrices.mT
    query = query[:, :, :1] + 1e-3 * query
    with small_tiles(tiled):
        _, scatter = triton(query, key, gram)
    _, want = pair_pool_reference(query.double(), key.double(), gram.double())
    assert want is not None and scatter is not None
    assert float(want.max()) < 1e-3
    torch.testing.assert_close(scatter.double(), want, rtol=1e-3, atol=0.0)


@tiled_or_not
def test_large_scores_do_not_overflow(tiled: bool) -> None:
    (query, key, gram), _ = problem(1, 2, 18, 3)
    with small_tiles(tiled):
        mean, scatter = triton(1e3 * query, 1e3 * key, gram)
    # Scores so far apart choose one key a row: the mean counts choices.
    counts = 18 * mean
    torch.testing.assert_close(counts, counts.round(), rtol=0.0, atol=1e-3)
    assert scatter is not None and scatter.isfinite().all()


@tiled_or_not
def test_nan_of_a_token_stays_with_its_pairs(tiled: bool) -> None:
    with small_tiles(tiled):
        check_tokens_with_nan()


def check_tokens_with_nan() -> None:
    inputs, grads = problem(2, 3, 5, 3)
    clean = triton(*inputs)
    inputs[0][0, 1, 0, 0] = torch.nan
    inputs[1][1, 2, 3, 1] = torch.nan
    bad = torch.zeros(2, 3, 3, dtype=torch.bool, device=DEVICE)
    bad[0, :, 1] = bad[1, 2] = True
    leaves = [tensor.requires_grad_() for tensor in inputs]
    outs = triton(*leaves)
    for out, before in zip(outs, clean, strict=True):
        assert out is not None and before is not None
        assert out[bad].isnan().any(-1).all() and torch.equal(out[~bad], before[~bad])
    grad_query, grad_key, grad_gram = torch.autograd.grad(outs, leaves, grads)
    # In the first image source 1 is paired with every target; in the second, target 2 with every
    # source.
    assert grad_query[0, [0, 2]].isfinite().all()
    assert grad_query[1].isnan().flatten(1).any(1).all()
    assert grad_key[1, :2].isfinite().all() and grad_gram[1, :2].isfinite().all()


@tiled_or_not
def test_empty_inputs(tiled: bool) -> None:
    for shape in ((0, 3, 4, 2), (2, 0, 4, 2)):
        inputs, grads = problem(*shape)
        leaves = [tensor.requires_grad_() for tensor in inputs]
        with small_tiles(tiled):
            outs = triton(*leaves)
            gradients = torch.autograd.grad(outs, leaves, grads)
        assert all(map(lambda g, leaf: g.shape == leaf.shape, gradients, leaves))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cross_attention_uses_the_kernels(dtype: torch.dtype) -> None:
    shape = (2, 3, 7)
    query, key = (torch.randn(*shape, 70, device=DEVICE).to(dtype) for _ in range(2))
    value = torch.randn(*shape, 4, device=DEVICE).to(dtype)
    mean, second = pairwise_cross_attention(query, key, value, scale=0.2, backend="triton")
    wide = [tensor.double() for tensor in (query, key, value)]
    want_mean, want_second = pairwise_cross_attention_reference(*wide, 0.2)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(mean.double(), want_mean, rtol=8 * eps, atol=8 * eps)
    torch.testing.assert_close(second.double(), want_second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_multi_dimensional_edges_use_the_kernels(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []

    def call(launch: Launch, *tensors: torch.Tensor) -> None:
        launched.append(launch.kernel)
        run(launch, *tensors)

    run = Launch.__call__
    monkeypatch.setattr(Launch, "__call__", call)
    nodes, tokens = torch.randn(2, 3, 9, 8, device=DEVICE), torch.randn(2, 9, 8, device=DEVICE)
    cotangent = torch.randn(2, 3, 3, 8, device=DEVICE)
    layer = MultiDimensionalEdges(8, 3).to(DEVICE).train(mode == "train")
    results = []
    for backend in ("torch", "triton"):
        own = deepcopy(layer)
        leaves = [nodes.clone().requires_grad_(), tokens.clone().requires_grad_()]
        with use_backend(backend):
            out = own(*leaves)
            grads = torch.autograd.grad(out, [*leaves, *own.parameters()], cotangent)
        results.append([out, *grads, *own.buffers()])
        # statistics of the batch need Gram matrices, whose gradient takes a launch more
        assert len(launched) == (0 if backend == "torch" else 4 if mode == "train" else 3)
    for got, want in zip(*results[::-1], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

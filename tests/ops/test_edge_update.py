"""`edge_update` against its equation in numpy, and the properties of every op."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops import edge_update_blocks
from aurel.ops.edge_update import edge_update, edge_update_reference

SIZES = [(1, 1, 2), (2, 1, 1), (2, 3, 5), (1, 7, 2), (3, 4, 13)]
MASK = torch.tensor([[True, False, True], [True, False, False]])


def inputs(batch: int, nodes: int, channels: int, dtype=torch.float64) -> list[Tensor]:
    """Return edges, projected edges, targets, sources, weight and bias."""
    edges, projected = 2 * torch.randn(2, batch, nodes, nodes, channels, dtype=dtype)
    target, source = torch.randn(2, batch, nodes, channels, dtype=dtype) + 1
    weight, bias = torch.randn(2, nodes, nodes, dtype=dtype)
    return [edges, projected, target, source, weight, bias]


def moments(nodes: int, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(nodes, nodes, dtype=dtype), torch.rand(nodes, nodes, dtype=dtype) + 0.5


def leaves(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().requires_grad_() for tensor in tensors]


def oracle(edges, projected, target, source, weight, bias, statistics, present) -> tuple:
    """Compute new edges, means and variances pair by pair; present (B, N)."""
    out, nodes = np.zeros_like(edges), edges.shape[1]
    means, variances = np.zeros((2, nodes, nodes))
    for i, j in np.ndindex(nodes, nodes):
        here = present[:, i] & present[:, j]
        update = (projected[:, i, j] + target[:, i] + source[:, j])[here]
        mean, var = (update.mean(), update.var()) if update.size else (0.0, 0.0)
        if statistics is not None:
            mean, var = (each[i, j] for each in statistics)
        new = weight[i, j] * (update - mean) / np.sqrt(var + 1e-5) + bias[i, j]
        out[here, i, j] = edges[here, i, j] + np.maximum(new, 0)
        means[i, j], variances[i, j] = mean, var
    return out, means, variances


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("given_statistics", [False, True], ids=["batch", "given"])
@pytest.mark.parametrize("masked", [False, True], ids=["all present", "mask"])
@pytest.mark.parametrize("function", [edge_update, edge_update_reference])
def test_equals_the_equation(size, given_statistics: bool, masked: bool, function) -> None:
    tensors, batch, nodes = inputs(*size), size[0], size[1]
    statistics = moments(nodes) if given_statistics else None
    mask = torch.rand(batch, nodes) < 0.6 if masked else None
    arrays = [tensor.numpy() for tensor in tensors]
    known = None if statistics is None else [each.numpy() for each in statistics]
    present = np.ones((batch, nodes), bool) if mask is None else mask.numpy()
    outs = function(*tensors, statistics, mask=mask)
    for out, want in zip(outs, oracle(*arrays, known, present), strict=True):
        np.testing.assert_allclose(out, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True], ids=["all present", "mask"])
@pytest.mark.parametrize("given_statistics", [False, True], ids=["batch", "given"])
def test_gradcheck(masked: bool, given_statistics: bool) -> None:
    statistics, mask = moments(3) if given_statistics else None, MASK if masked else None

    def new_edges(*tensors: Tensor) -> Tensor:
        return edge_update(*tensors, statistics, mask=mask)[0]

    assert torch.autograd.gradcheck(new_edges, leaves(inputs(2, 3, 2)))


@pytest.mark.parametrize("masked", [False, True], ids=["all present", "mask"])
def test_blocks_of_images_change_nothing(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, cotangent = leaves(inputs(5, 3, 4)), torch.randn(5, 3, 3, 4, dtype=torch.float64)
    mask = torch.rand(5, 3) < 0.7 if masked else None
    results = []
    for images in (5, 2, 1):
        monkeypatch.setattr(edge_update_blocks, "_CPU_BLOCK", images * 36)
        outs = edge_update(*tensors, mask=mask)
        results.append([*outs, *torch.autograd.grad(outs[0], tensors, cotangent)])
    for result in results[1:]:
        for value, want in zip(result, results[0], strict=True):
            torch.testing.assert_close(value, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given_statistics", [False, True], ids=["batch", "given"])
def test_eps_is_that_of_the_call(given_statistics: bool) -> None:
    statistics = moments(3) if given_statistics else None
    given, results = inputs(2, 3, 4), []
    for function in (edge_update, edge_update_reference):
        tensors = leaves(given)
        out = function(*tensors, statistics, eps=0.3)[0]
        results.append([out, *torch.autograd.grad(out.square().sum(), tensors)])
    for value, want in zip(*results, strict=True):
        torch.testing.assert_close(value, want)


@pytest.mark.parametrize(("budget", "images"), [(180, 5), (107, 2), (72, 2), (71, 1), (9, 1)])
def test_blocks_are_as_large_as_the_budget_allows(
    budget: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_update_blocks, "_CPU_BLOCK", budget)
    starts = range(0, 5, images)
    blocks = [*edge_update_blocks.blocks_of(torch.empty(5, 3, 3, 4))]
    assert blocks == [slice(start, start + images) for start in starts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    tensors = leaves([tensor.to(dtype) for tensor in inputs(2, 5, 8)])
    wide = leaves([tensor.double() for tensor in tensors])
    outs, exact = edge_update(*tensors), edge_update_reference(*wide)
    assert outs[0].dtype == dtype and outs[1].dtype == outs[2].dtype == torch.float32
    cotangent = torch.randn_like(exact[0]).to(dtype)
    grads = torch.autograd.grad(outs[0], tensors, cotangent)
    expected = torch.autograd.grad(exact[0], wide, cotangent.double())
    assert all(grad.dtype == dtype for grad in grads)
    step = 8 * torch.finfo(dtype).eps
    for value, want in zip((*outs, *grads), (*exact, *expected), strict=True):
        torch.testing.assert_close(
            value.double(), want, rtol=step, atol=step * float(want.detach().abs().max())
        )


def test_mixed_dtypes_are_not_rounded() -> None:
    edges, *rest, weight, bias = inputs(2, 3, 4, torch.float32)
    rest = [tensor.bfloat16() for tensor in rest]
    out, mean, _ = edge_update(edges, *rest, weight, bias)
    assert out.dtype == mean.dtype == torch.float32
    exact = edge_update_reference(edges, *(tensor.float() for tensor in rest), weight, bias)
    torch.testing.assert_close(out, exact[0])
    new = edge_update(edges.bfloat16(), *(tensor.float() for tensor in rest), weight, bias)[0]
    assert new.dtype == torch.float32
    known = moments(3)
    outs = edge_update(edges, *rest, weight, bias, known)
    assert all(out.dtype == torch.float32 for out in outs)
    assert torch.equal(outs[1], known[0].float())


def test_a_large_common_value_does_not_cost_the_variance_digits() -> None:
    tensors = inputs(16, 3, 64)
    tensors[1] += 1000
    tensors = [tensor.float() for tensor in tensors]
    exact = edge_update_reference(*(tensor.double() for tensor in tensors))
    _, mean, var = edge_update(*tensors)
    torch.testing.assert_close(mean.double(), exact[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), exact[2], rtol=1e-5, atol=0)


def test_masked_nodes_equal_absent_ones() -> None:
    tensors = inputs(2, 4, 3)
    mask, kept = torch.tensor([[True, False, True, True], [False] * 4]), [0, 2, 3]
    small = [tensor[:1, kept] for tensor in tensors[:4]]
    small[:2] = [tensor[:, :, kept] for tensor in small[:2]]
    pairs = [tensor[kept][:, kept] for tensor in tensors[4:]]
    expected = edge_update(*small, *pairs)
    for tensor in tensors[:4]:
        tensor[0, 1], tensor[1] = torch.nan, torch.nan
    for tensor in tensors[:2]:
        tensor[0, :, 1] = torch.nan
    tensors = leaves(tensors)
    outs = edge_update(*tensors, mask=mask)
    torch.testing.assert_close(outs[0][:1, kept][:, :, kept], expected[0])
    for out, want in zip(outs[1:], expected[1:], strict=True):
        torch.testing.assert_close(out[kept][:, kept], want)
    assert not outs[0][0, 1].any() and not outs[0][0, :, 1].any() and not outs[0][1].any()
    outs[0].sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in tensors)
    assert not any(tensor.grad[1].any() or tensor.grad[0, 1].any() for tensor in tensors[:4])


def test_with_given_statistics_nan_stays_where_it_is() -> None:
    tensors = inputs(2, 3, 4)
    tensors[1][0, 1, 2, 3] = torch.nan
    tensors = leaves(tensors)
    out, _, _ = edge_update(*tensors, moments(3))
    bad = torch.zeros(2, 3, 3, 4, dtype=torch.bool)
    bad[0, 1, 2, 3] = True
    assert torch.equal(out.isnan(), bad)
    grads = torch.autograd.grad(out.sum(), tensors[:4])
    assert all(grad.isfinite().all() for grad in grads)


def test_nan_stays_with_its_pair_and_its_statistics() -> None:
    tensors = inputs(2, 3, 4)
    tensors[1][0, 1, 2, 3] = torch.nan
    out, mean, _ = edge_update(*tensors)
    bad = torch.zeros(3, 3, dtype=torch.bool)
    bad[1, 2] = True
    assert torch.equal(mean.isnan(), bad)
    assert torch.equal(out.isnan(), bad.unsqueeze(2).expand_as(out))


def test_any_memory_layout() -> None:
    tensors = inputs(2, 3, 4)
    strided = [tensor.mT.contiguous().mT for tensor in tensors]
    for value, want in zip(edge_update(*strided), edge_update(*tensors), strict=True):
        torch.testing.assert_close(value, want)


def test_empty_batch() -> None:
    tensors = leaves(inputs(0, 3, 4))
    out, mean, var = edge_update(*tensors, moments(3))
    assert out.shape == (0, 3, 3, 4) and mean.shape == var.shape == (3, 3)
    grads = torch.autograd.grad(edge_update(*tensors)[0].sum(), tensors)
    assert all(a.shape == b.shape and not a.any() for a, b in zip(grads, tensors, strict=True))


def test_statistics_have_no_gradient() -> None:
    _, mean, var = edge_update(*leaves(inputs(2, 3, 4)))
    assert not mean.requires_grad and not var.requires_grad


@given(st.permutations(range(4)), st.booleans())
@settings(max_examples=10, deadline=None)
def test_permuting_nodes_permutes_the_result(order: list[int], given_statistics: bool) -> None:
    torch.manual_seed(0)
    tensors, statistics = inputs(2, 4, 3), moments(4) if given_statistics else None

    def moved(tensor: Tensor, pairs: bool) -> Tensor:
        at = 1 if tensor.ndim > 2 else 0
        tensor = tensor.index_select(at, torch.tensor(order))
        return tensor.index_select(at + 1, torch.tensor(order)) if pairs else tensor

    pairs = (True, True, False, False, True, True)
    given = [moved(tensor, pair) for tensor, pair in zip(tensors, pairs, strict=True)]
    known = None if statistics is None else tuple(moved(each, True) for each in statistics)
    expected = edge_update(*tensors, statistics)
    for value, want in zip(edge_update(*given, known), expected, strict=True):
        torch.testing.assert_close(value, moved(want, True))


def test_compiles_in_one_graph() -> None:
    def normalized(*tensors: Tensor) -> Tensor:
        out, mean, var = edge_update(*tensors, mask=MASK)
        return out + mean.unsqueeze(2) * var.unsqueeze(2)

    tensors = leaves(inputs(2, 3, 4, torch.float32))
    compiled = torch.compile(normalized, fullgraph=True, backend="aot_eager")
    out, want = compiled(*tensors), normalized(*tensors)
    torch.testing.assert_close(out, want)
    grads, expected = (torch.autograd.grad(each.square().sum(), tensors) for each in (out, want))
    for grad, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, want)


def test_messages() -> None:
    edges, projected, target, source, weight, bias = inputs(2, 3, 4)
    rest = (target, source, weight, bias)
    with pytest.raises(ValueError, match=r"edges must have shape \(B, N=3, N=3, C\)"):
        edge_update(edges.flatten(2), projected, *rest)
    with pytest.raises(ValueError, match=r"projected must have shape \(B=2, N=3, N=3, C=4\)"):
        edge_update(edges, projected[:, :2], *rest)
    with pytest.raises(ValueError, match=r"source must have shape \(B=2, N=3, C=4\)"):
        edge_update(edges, projected, target, source[0], weight, bias)
    with pytest.raises(ValueError, match=r"bias must have shape \(N=3, N=3\)"):
        edge_update(edges, projected, target, source, weight, bias.flatten())
    with pytest.raises(ValueError, match=r"var must have shape \(N=3, N=3\)"):
        edge_update(edges, projected, *rest, (bias, bias[0]))
    with pytest.raises(ValueError, match=r"mask must have shape \(B=2, N=3\)"):
        edge_update(edges, projected, *rest, mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="^edge_update: .* got torch.float64"):
        edge_update(edges, projected, *rest, backend="triton")


def test_messages_name_every_argument() -> None:
    names = ("edges", "projected", "target", "source", "weight", "bias")
    good = dict(zip(names, inputs(2, 3, 4), strict=True))
    for name, tensor in good.items():
        with pytest.raises(ValueError, match=f"^{name} must be floating point, got torch.int64"):
            edge_update(**good | {name: tensor.long()})
        for bad in (tensor[0], tensor.flatten()):
            with pytest.raises(ValueError, match=f"^{name} must have shape"):
                edge_update(**good | {name: bad})
        if name != "edges":
            with pytest.raises(ValueError, match=f"^{name} must be on cpu, got meta"):
                edge_update(**good | {name: tensor.to("meta")})
    mean, var = moments(3)
    with pytest.raises(ValueError, match="^mean must be floating point"):
        edge_update(**good, statistics=(mean.long(), var))
    with pytest.raises(ValueError, match="^var must be on cpu, got meta"):
        edge_update(**good, statistics=(mean, var.to("meta")))
    for eps in (-1e-5, float("nan")):
        with pytest.raises(ValueError, match=f"^eps must be 0 or more, got {eps}"):
            edge_update(**good, eps=eps)

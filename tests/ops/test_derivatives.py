"""Derivatives of every op: both modes, first and second order, and transforms of torch.func."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers.differentiable_ops import GRAPHS, OPS, Op, every_op
from helpers.every_backend import NUMBA, every_backend, every_fast_backend
from torch import Tensor
from torch.autograd import forward_ad

from aurel.ops import knn_graph, ragged_knn_graph, use_backend

STEP = 1e-6


@pytest.fixture(autouse=True)
def _no_backend_from_the_environment() -> Any:
    with use_backend("auto"):
        yield


def auto(op: Op) -> Callable[..., tuple[Tensor, ...]]:
    return lambda *tensors: op.call(*tensors, backend="auto")


def differences(op: Op, at: Sequence[Tensor], along: Sequence[Tensor]) -> list[Tensor]:
    """Return directional derivatives of the outputs by central differences."""
    ahead, behind = (
        op.call(
            *(x + step * v for x, v in zip(at, along, strict=True)),
            backend="definition",
        )
        for step in (STEP, -STEP)
    )
    return [(a - b) / (2 * STEP) for a, b in zip(ahead, behind, strict=True)]


def assert_close(got: Sequence[Tensor], want: Sequence[Tensor], error: float = 1e-10) -> None:
    for value, expected in zip(got, want, strict=True):
        torch.testing.assert_close(value, expected, rtol=error, atol=error)


def total(op: Op, backend: str = "auto") -> Callable[..., Tensor]:
    """Return a function with a scalar result that depends on every output, nonlinearly."""
    return lambda *tensors: sum(
        (out.sin() * torch.arange(1.0, out.numel() + 1, dtype=out.dtype).view(out.shape)).sum()
        for out in op.call(*tensors, backend=backend)
    )


def gradients(op: Op, tensors: Sequence[Tensor], backend: str) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return torch.autograd.grad(total(op, backend)(*leaves), leaves)


@every_op
def test_jvp_equals_differences(op: Op) -> None:
    at, along = op.tensors(), op.tensors(seed=1)
    outs, tangents = torch.func.jvp(auto(op), tuple(at), tuple(along))
    assert_close(outs, op.call(*at, backend="torch"))
    assert_close(tangents, differences(op, at, along), 1e-7)
    assert any(tangent.any() for tangent in tangents)


@every_op
def test_dual_tensors_equal_differences(op: Op) -> None:
    """Also where one tensor alone has a tangent."""
    at, along = op.tensors(), op.tensors(seed=1)
    for i in range(len(at)):
        one = [v if i == j else torch.zeros_like(v) for j, v in enumerate(along)]
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(at[i], along[i])
            outs = op.call(*at[:i], dual, *at[i + 1 :], backend="auto")
            parts = [forward_ad.unpack_dual(out) for out in outs]
        got = [p.primal * 0 if p.tangent is None else p.tangent for p in parts]
        assert_close(got, differences(op, at, one), 1e-7)


@every_op
def test_jacobians_of_both_modes_are_equal(op: Op) -> None:
    tensors = tuple(op.tensors())
    which = tuple(range(len(tensors)))
    forward, reverse = (
        make(auto(op), which)(*tensors) for make in (torch.func.jacfwd, torch.func.jacrev)
    )
    for got, want in zip(forward, reverse, strict=True):
        assert_close(got, want)


@every_op
def test_func_grad_equals_autograd(op: Op) -> None:
    tensors = tuple(op.tensors())
    got = torch.func.grad(total(op), tuple(range(len(tensors))))(*tensors)
    assert_close(got, gradients(op, tensors, "torch"))


@every_op
def test_vmap_and_gradients_per_sample_equal_a_loop(op: Op) -> None:
    samples = [op.tensors(seed=seed) for seed in (2, 3, 4)]
    stacked = [torch.stack(each) for each in zip(*samples, strict=True)]
    outs = torch.func.vmap(auto(op))(*stacked)
    expected = [op.call(*sample, backend="torch") for sample in samples]
    assert_close(outs, [torch.stack(each) for each in zip(*expected, strict=True)])
    per_sample = torch.func.vmap(torch.func.grad(total(op), tuple(range(len(stacked)))))(*stacked)
    grads = [gradients(op, sample, "torch") for sample in samples]
    assert_close(per_sample, [torch.stack(each) for each in zip(*grads, strict=True)])


@every_op
@every_backend
def test_gradients_equal_those_of_the_definition(op: Op, backend: str) -> None:
    tensors = op.tensors()
    assert_close(gradients(op, tensors, backend), gradients(op, tensors, "definition"))


@every_op
@every_fast_backend
def test_gradgradcheck(op: Op, backend: str) -> None:
    assert torch.autograd.gradgradcheck(
        lambda *tensors: op.call(*tensors, backend=backend), op.leaves(), fast_mode=True
    )


@every_op
@every_fast_backend
def test_a_gradient_penalty_equals_that_of_the_definition(op: Op, backend: str) -> None:
    penalties = []
    for name in (backend, "definition"):
        leaves = op.leaves()
        grads = torch.autograd.grad(total(op, name)(*leaves), leaves, create_graph=True)
        penalty = sum(grad.square().sum() for grad in grads)
        penalties.append(torch.autograd.grad(penalty, leaves, materialize_grads=True))
    assert_close(*penalties)


@every_op
@pytest.mark.parametrize("backend", ["torch", NUMBA, "triton"])
def test_other_backends_refuse_transforms(op: Op, backend: str) -> None:
    tensors = tuple(op.tensors())
    refused = f"^{op.name}: backend='{backend}' .*; use backend='definition'$"
    call = lambda *given: op.call(*given, backend=backend)  # noqa: E731
    transforms: list[Callable[[], Any]] = [
        lambda: torch.func.jvp(call, tensors, tensors),
        lambda: torch.func.vjp(call, *tensors),
        lambda: torch.func.vmap(call)(*(tensor[None] for tensor in tensors)),
        lambda: torch.func.grad(total(op, backend))(*tensors),
    ]
    for transform in transforms:
        with pytest.raises(ValueError, match=refused):
            transform()
    with forward_ad.dual_level(), pytest.raises(ValueError, match=refused):
        call(forward_ad.make_dual(tensors[0], tensors[0]), *tensors[1:])


@every_op
def test_the_definition_can_be_requested_under_transforms(op: Op) -> None:
    tensors = tuple(op.tensors())
    with use_backend("definition"):
        _, tangents = torch.func.jvp(auto(op), tensors, tensors)
    expected = torch.func.jvp(auto(op), tensors, tensors)[1]
    assert_close(tangents, expected)


def test_a_choice_has_no_tangent() -> None:
    x, flat = torch.randn(2, 5, 3), torch.randn(len(GRAPHS), 3)
    for choose, at in (
        (lambda x: knn_graph(x, 2), x),
        (lambda x: ragged_knn_graph(x, GRAPHS, 2), flat),
    ):
        lists, tangent = torch.func.jvp(choose, (at,), (torch.ones_like(at),))
        assert torch.equal(lists, choose(at))
        assert not tangent.any()
        per_sample = torch.func.vmap(choose)(torch.stack((at, -at, at.flip(0))))
        assert torch.equal(per_sample[2], choose(at.flip(0)))


def test_every_backend_but_the_definition_refuses_a_transformed_choice() -> None:
    x = torch.randn(2, 5, 3)
    with pytest.raises(ValueError, match="^knn_graph: .*use backend='definition'$"):
        torch.func.vmap(lambda x: knn_graph(x, 2, backend="torch"))(x[None])


@pytest.mark.slow
@every_op
def test_a_compiled_tangent_is_right(op: Op) -> None:
    at, along = tuple(op.tensors()), tuple(op.tensors(seed=1))

    def tangents(at: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.func.jvp(auto(op), at, along)[1]

    torch._dynamo.reset()
    compiled = torch.compile(tangents, backend="aot_eager")
    assert_close(compiled(at, along), tangents(at, along))


@pytest.mark.slow
@every_op
def test_a_compiled_gradient_is_right(op: Op) -> None:
    torch._dynamo.reset()
    leaves = op.leaves()
    compiled = torch.compile(total(op), backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(*leaves), leaves)
    assert_close(got, gradients(op, leaves, "auto"))


def test_a_hessian() -> None:
    op = OPS["graph_attention alone"]
    values, target, source = op.tensors()
    hessian = torch.func.hessian(lambda t: total(op)(values, t, source))(target).flatten(0, 2)
    leaf = target.detach().requires_grad_()
    (grad,) = torch.autograd.grad(total(op, "torch")(values, leaf, source), leaf, create_graph=True)
    rows = [torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in grad.flatten()]
    torch.testing.assert_close(hessian, torch.stack(rows))

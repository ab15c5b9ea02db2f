"""Tensors over graphs by form, and assertions on functions of them.

Forms: "node" (B, N, ...), "pair" (B, N, N, ...), "graph" (B, ...), "list" (B, N, K), whose numbers
are nodes, -1 for none, and "shared" (N, N), which pairs have in common in all graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Part = tuple[Tensor, str]
Function = Callable[..., Sequence[Part]]  # of the inputs' tensors and a mask


def pick(part: Part, nodes: Tensor) -> Tensor:
    """Return the rows of these nodes in this order; lists then hold their new numbers."""
    tensor, form = part
    if form == "graph":
        return tensor
    if form == "shared":
        return tensor[nodes][:, nodes]
    kept = tensor[:, nodes]
    if form == "pair":
        return kept[:, :, nodes]
    if form == "list":
        place = torch.full((tensor.shape[1],), -1)
        place[nodes] = torch.arange(len(nodes))
        return place[kept.clamp_min(0)].where(kept >= 0, -1)
    return kept


def picked(parts: Sequence[Part], nodes: Tensor) -> list[Part]:
    return [(pick(part, nodes), part[1]) for part in parts]


def alone(parts: Sequence[Part], graph: int) -> list[Part]:
    """Return one graph of the batch."""
    return [(t if form == "shared" else t[graph : graph + 1], form) for t, form in parts]


def existing(mask: Tensor) -> dict[str, Tensor]:
    """Return which entries of each form are valid where the nodes of `mask` (B, N) are."""
    pairs = mask[:, :, None] & mask[:, None]
    exists = {"node": mask, "list": mask, "pair": pairs, "graph": mask.any(1)}
    return exists | {"shared": torch.ones_like(pairs[0])}


def assert_close(actual: Tensor, expected: Tensor, rtol: float = 1e-7, atol: float = 1e-7) -> None:
    """Call that of torch, which takes as long as a layer, only where it might fail."""
    if actual.shape != expected.shape or not torch.allclose(actual, expected, rtol, atol):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def assert_equal(got: Sequence[Part], expected: Sequence[Part]) -> None:
    for (actual, form), (reference, other) in zip(got, expected, strict=True):
        assert form == other
        assert_close(actual, reference, 1e-9, 1e-9)


def assert_equivariant(function: Function, moved: Function, inputs: Sequence[Part]) -> None:
    """Assert that permuted nodes give permuted results; `moved` is the function for these."""
    order = torch.randperm(next(tensor.shape[1] for tensor, form in inputs if form != "graph"))
    expected = picked(function(*(tensor for tensor, _ in inputs)), order)
    assert_equal(moved(*(pick(part, order) for part in inputs)), expected)


@torch.no_grad()
def assert_independent(function: Function, inputs: Sequence[Part]) -> None:
    """Assert that the result of a graph does not depend on the others, which may hold NaN."""
    batch = len(inputs[0][0])
    graph = int(torch.randint(batch, ()))
    sound = torch.rand(batch) < 0.5
    sound[graph] = True
    given = [part[0] if part[1] == "shared" else spoil(part, sound) for part in inputs]
    outs = alone(function(*given), graph)
    assert_equal(outs, function(*(tensor for tensor, _ in alone(inputs, graph))))


def assert_absent(
    function: Function,
    packed: Callable[[Tensor], Function | None],
    inputs: Sequence[Part],
    mask: Tensor,
) -> None:
    """Assert that absent nodes, which hold NaN, have no effect on results and gradients.

    Args:
        function: of the inputs and a mask.
        packed: the function for graphs of the given nodes alone, None if there is none.
        inputs: dense inputs.
        mask: (B, N).
    """
    exists = existing(mask)
    spoiled = [spoil(part, exists[part[1]]) for part in inputs]
    outs = function(*spoiled, mask=mask)
    for out, form in outs:
        nothing = -1 if form == "list" else 0
        assert (out[~exists[form]] == nothing).all()
    grads = gradients(outs, spoiled)
    for grad, (_, form) in zip(grads, inputs, strict=True):
        assert grad is None or (grad.isfinite().all() and not grad[~exists[form]].any())
    graph = int(torch.randint(len(mask), ()))
    nodes = mask[graph].nonzero()[:, 0]
    if len(nodes) == 0 or (alone_function := packed(nodes)) is None:
        return
    few = [(tensor.detach(), form) for tensor, form in alone(inputs, graph)]
    given = [pick(part, nodes) for part in few]
    given = [tensor.requires_grad_(tensor.is_floating_point()) for tensor in given]
    expected_parts = alone_function(*given)
    actual = picked(alone(outs, graph), nodes)
    assert_equal(widened(actual, expected_parts), expected_parts)
    for grad, expected, (_, form) in zip(
        grads, gradients(expected_parts, given), inputs, strict=True
    ):
        assert (grad is None) == (expected is None)
        if grad is not None and form != "shared":
            got = pick((grad[graph : graph + 1], form), nodes)
            assert_close(got, expected, 1e-8, 1e-8)


def widened(actual: Sequence[Part], expected_parts: Sequence[Part]) -> list[Part]:
    """Return lists without the slots that a smaller graph lacks, which must be empty."""
    out = []
    for (tensor, form), (expected, _) in zip(actual, expected_parts, strict=True):
        if form == "list":
            assert (tensor[..., expected.shape[2] :] == -1).all()
            tensor = tensor[..., : expected.shape[2]]
        out.append((tensor, form))
    return out


def spoil(part: Part, exists: Tensor) -> Tensor:
    """Return the tensor with NaN, or empty lists, where entries are not valid."""
    tensor, form = part
    absent = ~exists[(..., *[None] * (tensor.ndim - exists.ndim))]
    if form == "list":
        return tensor.masked_fill(absent, -1)
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().masked_fill(absent, torch.nan).requires_grad_()


def gradients(outs: Sequence[Part], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Return gradients of a fixed function of the results, None for inputs without one."""
    leaves = [tensor for tensor in inputs if tensor.requires_grad]
    smooth = [(out * out.detach().cos()).sum() for out, _ in outs if out.requires_grad]
    if not smooth or not leaves:
        return [None] * len(inputs)
    grads = torch.autograd.grad(sum(smooth), leaves, allow_unused=True)
    found = iter(grads)
    return [next(found) if tensor.requires_grad else None for tensor in inputs]

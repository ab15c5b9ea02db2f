"""The exact messages of errors in arguments of ops."""

from __future__ import annotations

import pytest
import torch

from aurel.ops import arguments

X = torch.zeros(2, 5, 3)


def message(check, *args, **options) -> str:
    with pytest.raises(ValueError) as caught:
        check(*args, **options)
    return str(caught.value)


def test_choices() -> None:
    arguments.check_choice("metric", "l1", ("l2", "l1"))
    text = message(arguments.check_choice, "metric", "L1", ("l2", "l1"))
    assert text == "metric must be one of l2, l1, got 'L1'"


def test_shapes() -> None:
    for sizes in ({}, {"C": 3}, {"B": 2, "N": 5, "C": 3}):
        arguments.check_shape("x", X, "B N C", **sizes)
    text = message(arguments.check_shape, "x", X, "B N C", B=2, N=4)
    assert text == "x must have shape (B=2, N=4, C), got (2, 5, 3)"
    assert message(arguments.check_shape, "x", X, "B N", B=3) == (
        "x must have shape (B=3, N), got (2, 5, 3)"
    )
    assert "(B, N, C, D), got (2, 5, 3)" in message(arguments.check_shape, "x", X, "B N C D")


def test_nodes() -> None:
    for dtype in (torch.float16, torch.float64):
        arguments.check_input("x", X.to(dtype), "B N C")
    assert message(arguments.check_input, "y", X.int(), "B N C") == (
        "y must be floating point, got torch.int32"
    )
    assert (
        message(arguments.check_input, "y", X[0], "B N C")
        == "y must have shape (B, N, C), got (5, 3)"
    )


def test_masks() -> None:
    for x in (X, X[..., 0], X[..., None]):
        arguments.check_mask(None, x)
        arguments.check_mask(torch.ones(2, 5, dtype=torch.bool), x)
    assert message(arguments.check_mask, torch.ones(2, 5), X) == (
        "mask must be bool (True where the node exists), got torch.float32"
    )
    for shape in ((1, 5), (2, 4)):
        text = message(arguments.check_mask, torch.ones(shape, dtype=torch.bool), X)
        assert text == f"mask must have shape (B=2, N=5), got {shape}"
    elsewhere = torch.ones(2, 5, dtype=torch.bool, device="meta")
    assert message(arguments.check_mask, elsewhere, X) == "mask must be on cpu, got meta"


def test_devices() -> None:
    arguments.check_device("y", X, X)
    assert message(arguments.check_device, "y", X, X.to("meta")) == "y must be on meta, got cpu"


def test_counts_of_neighbors() -> None:
    for k, loop in ((1, True), (5, True), (1, False), (4, False)):
        arguments.check_k(k, 5, loop)
    arguments.check_k(5, 5)
    for k in (0, 6):
        assert message(arguments.check_k, k, 5) == (
            f"k must be in 1..5 (the number of nodes), got {k}"
        )
    for k in (0, 5):
        assert message(arguments.check_k, k, 5, loop=False) == (
            f"k must be in 1..4 (the 5 nodes less the node itself), got {k}"
        )


def test_tensors_are_promoted_to_the_widest_dtype() -> None:
    half, brain, single = X.half(), X.bfloat16(), X
    assert [tensor.dtype for tensor in arguments.promote(half)] == [torch.float16]
    assert {tensor.dtype for tensor in arguments.promote(half, brain)} == {torch.float32}
    for order in ((half, single, half), (single, half), (half, brain, single)):
        promoted = arguments.promote(*order)
        assert len(promoted) == len(order)
        assert all(tensor.dtype == torch.float32 for tensor in promoted)
    assert arguments.promote(single)[0] is single

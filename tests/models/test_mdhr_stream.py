"""Predictions of MDHR for a video of any length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_model
from torch import Tensor

from aurel.models.mdhr import stream


@pytest.fixture(scope="module")
def streamed() -> tuple[Any, Tensor]:
    torch.manual_seed(4)
    model = small_model("mdhr", num_adjacent=2, channels=16)
    evaluate_after_one_step(model)
    return model.double(), torch.randn(23, 3, 32, 32).double()


@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (5, 64), (8, 8), (13, 3), (23, 5), (9, 1)])
def test_a_stream_gives_the_numbers_of_the_clip(
    streamed: tuple[Any, Tensor], length: int, chunk: int
) -> None:
    model, video = streamed
    with torch.no_grad():
        whole = model(video[None, :length])
    parts = list(stream(model, iter(video[:length]), chunk))
    assert parts[0].aus == model.aus and not parts[0].probs.requires_grad
    torch.testing.assert_close(torch.cat([part.probs for part in parts], dim=1), whole.probs)
    for group, expected in enumerate(whole.region_logits):
        found = torch.cat([part.region_logits[group] for part in parts], dim=1)
        torch.testing.assert_close(found, expected)
    assert all(part.probs.shape[1] == chunk for part in parts[:-1])


def test_a_stream_has_a_bounded_delay_and_window(streamed: tuple[Any, Tensor]) -> None:
    model, video = streamed
    sizes: list[int] = []
    taken = 0

    def frames() -> Iterator[Tensor]:
        nonlocal taken
        for frame in video:
            taken += 1
            yield frame

    hook = model.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[1]))
    seen = 0
    for part in stream(model, frames(), 3):
        seen += part.probs.shape[1]
        assert taken <= seen + model.context
    hook.remove()
    assert seen == len(video)
    assert max(sizes) == 3 + 2 * model.context


def test_streams_that_are_refused() -> None:
    model = small_model("mdhr")
    with pytest.raises(ValueError, match="eval mode, got one in training mode"):
        next(stream(model.train(), []))
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        next(stream(model.eval(), [], 0))
    assert list(stream(model.eval(), [])) == []

"""Learning rates over a run, as factors of the highest one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

Schedule = Literal["constant", "cosine", "inverse_sqrt", "multi_step", "one_cycle"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)


def schedule(
    name: Schedule, total_steps: int, warmup_steps: int = 0, milestones: Sequence[int] = ()
) -> Callable[[int], float]:
    r"""Return the factor of the learning rate as a function of the step.

    After a linear warm-up over `warmup_steps`, with :math:`\tau` running from 0 to 1 over what is
    left: ``constant`` is 1, ``cosine`` is :math:`(1 + \cos \pi\tau) / 2`. ``inverse_sqrt`` falls as
    :math:`(t / w)^{-1/2}` in step t, counted from 1, w being the warm-up's steps (1 without).
    ``multi_step`` is divided by 10 at each of the `milestones`.
    ``one_cycle`` rises from 1/25 to 1 over the first 3/10 of the run and falls to 0, both along a
    cosine, and takes no warm-up.

    Args:
        name: which.
        total_steps: optimiser steps of the whole run.
        warmup_steps: of these, how many rise linearly to 1.
        milestones: of ``multi_step``, steps counted from the run's start.

    Returns:
        step (0-based) -> factor in [0, 1].

    Raises:
        ValueError: unknown name, a warm-up that does not fit, or milestones where none belong or
            none where they do.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    if total_steps < 1:
        raise ValueError(f"total_steps must be at least 1, got {total_steps}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_steps must be in 0..{total_steps}, got {warmup_steps}")
    if (name == "multi_step") != bool(milestones):
        raise ValueError(
            f"milestones belong to the schedule multi_step, got {list(milestones)} for {name}"
        )
    if name == "one_cycle":
        if warmup_steps:
            raise ValueError("one_cycle has its own warm-up; warmup_epochs must be 0")
        return lambda step: _one_cycle(step / total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if name == "constant":
            return 1.0
        if name == "multi_step":
            return 0.1 ** sum(step >= milestone for milestone in milestones)
        if name == "inverse_sqrt":
            return math.sqrt(max(warmup_steps, 1) / (step + 1))
        done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        return _half_cosine(min(done, 1.0))

    return factor


def _one_cycle(done: float, rise: float = 0.3, start: float = 1 / 25) -> float:
    if done < rise:
        return 1 - (1 - start) * _half_cosine(done / rise)
    return _half_cosine(min((done - rise) / (1 - rise), 1.0))


def _half_cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2

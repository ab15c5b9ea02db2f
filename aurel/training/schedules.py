"""Learning rates over a run, as factors of the highest one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from aurel.data.arguments import check_at_least

Schedule = Literal["constant", "cosine", "inverse_sqrt", "multi_step", "one_cycle"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)


def schedule(
    name: Schedule, total_steps: int, warmup_steps: int = 0, milestones: Sequence[int] = ()
) -> Callable[[int], float]:
    r"""Return the factor of the learning rate as a function of the step.

    After a linear warm-up over `warmup_steps`, with :math:`\tau` from 0 to 1 over the remaining
    steps: ``constant`` is 1, ``cosine`` is :math:`(1 + \cos \pi\tau) / 2`. ``inverse_sqrt`` is
    :math:`(t / w)^{-1/2}` in step t, counted from 1, with the number w of warm-up steps, at least
    1. ``multi_step`` is divided by 10 at each of the `milestones`.
    ``one_cycle`` rises from 1/25 to 1 over the first 3/10 of the run and falls to 0, both along a
    cosine, and takes no warm-up.

    Args:
        name: constant, cosine, inverse_sqrt, multi_step or one_cycle.
        total_steps: optimizer steps of the run.
        warmup_steps: number of the first steps, in which the factor rises linearly to 1.
        milestones: steps of ``multi_step``, counted from the start of the run.

    Returns:
        A function of the step, counted from 0, whose values are in [0, 1].

    Raises:
        ValueError: an unknown name, a warm-up longer than the run, milestones without
            ``multi_step``, or the reverse.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    check_at_least("total_steps", total_steps, 1)
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_steps must be in 0..{total_steps}, got {warmup_steps}")
    if (name == "multi_step") != bool(milestones):
        expected = "given" if name == "multi_step" else "empty"
        raise ValueError(
            f"milestones must be {expected} for the schedule {name}, got {list(milestones)}"
        )
    if name == "one_cycle":
        if warmup_steps:
            raise ValueError(
                "warmup_steps must be 0 for one_cycle, which has its own warm-up, got "
                f"{warmup_steps}"
            )
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

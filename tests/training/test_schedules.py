"""Learning rates against values computed by hand."""

from __future__ import annotations

import math

import pytest

from aurel.training.schedules import schedule


def test_cosine_falls_from_one_to_zero() -> None:
    factor = schedule("cosine", 100)
    assert factor(0) == 1
    assert factor(25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert factor(50) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0)
    assert factor(101) == pytest.approx(0)  # one past the end, where Lightning steps once more


def test_warmup_is_linear_and_then_the_schedule_starts() -> None:
    factor = schedule("cosine", 110, warmup_steps=10)
    assert [factor(step) for step in range(10)] == pytest.approx([i / 10 for i in range(1, 11)])
    assert factor(10) == 1
    assert factor(60) == pytest.approx(0.5)
    assert schedule("constant", 110, warmup_steps=10)(109) == 1


def test_inverse_square_root_goes_on_from_the_warmup() -> None:
    factor = schedule("inverse_sqrt", 10_000, warmup_steps=1000)
    assert factor(499) == pytest.approx(0.5) and factor(999) == factor(1000 - 1) == 1
    assert factor(3999) == pytest.approx(0.5) and factor(9999) == pytest.approx(10**-0.5)
    assert schedule("inverse_sqrt", 10)(0) == 1 and schedule("inverse_sqrt", 10)(3) == 0.5


def test_one_cycle_rises_and_falls() -> None:
    factor = schedule("one_cycle", 100)
    values = [factor(step) for step in range(101)]
    assert values[0] == pytest.approx(1 / 25)
    assert values.index(max(values)) == 30 and max(values) == pytest.approx(1)
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert all(b > a for a, b in zip(values[:30], values[1:31], strict=True))
    assert all(b < a for a, b in zip(values[30:], values[31:], strict=False))


def test_multi_step_falls_to_a_tenth_each_time() -> None:
    factor = schedule("multi_step", 150, warmup_steps=2, milestones=[40, 60, 80])
    values = [factor(step) for step in (0, 1, 39, 40, 59, 60, 79, 80, 149)]
    assert values == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    with pytest.raises(ValueError, match=r"milestones must be empty for .* cosine, got \[3\]"):
        schedule("cosine", 10, milestones=[3])


@pytest.mark.parametrize(
    ("name", "total", "warmup", "message"),
    [
        ("linear", 10, 0, "schedule must be one of constant, .*, one_cycle, got 'linear'"),
        ("cosine", 0, 0, "total_steps must be at least 1"),
        ("cosine", 10, 11, r"warmup_steps must be in 0..10, got 11"),
        ("one_cycle", 10, 1, "warmup_steps must be 0 for one_cycle, .*got 1"),
        ("multi_step", 10, 0, r"milestones must be given for .* multi_step, got \[\]"),
    ],
)
def test_bad_arguments(name: str, total: int, warmup: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(name, total, warmup)  # type: ignore[arg-type]

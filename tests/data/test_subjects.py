"""Splits have no subject in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurel.data.subjects import check_apart, hold_out


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60).filter(
        lambda x: len(set(x)) > 1
    ),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_people_are_held_out_whole(subjects: list[str], share: float, seed: int) -> None:
    kept, held = hold_out(subjects, share, seed)
    assert sorted(kept + held) == list(range(len(subjects)))
    people = [{subjects[index] for index in part} for part in (kept, held)]
    assert people[0] and people[1] and not people[0] & people[1]
    expected = share * len(set(subjects))
    assert len(people[1]) == 1 or len(people[0]) == 1 or abs(len(people[1]) - expected) <= 0.5


def test_held_out_subjects_depend_on_the_seed_and_not_on_the_order() -> None:
    subjects = [f"F{i:03d}" for i in range(20) for _ in range(3)]
    held = {subjects[i] for i in hold_out(subjects, 0.2, seed=1)[1]}
    backwards = subjects[::-1]
    assert held == {backwards[i] for i in hold_out(backwards, 0.2, seed=1)[1]}
    assert held != {subjects[i] for i in hold_out(subjects, 0.2, seed=2)[1]}


def test_errors() -> None:
    with pytest.raises(ValueError, match="subjects must be at least two to hold out one, got 1"):
        hold_out(["a", "a"], 0.5)
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        hold_out(["a", "b"], 1.0)
    with pytest.raises(ValueError, match=r"train and test must have no .*, got 2 \(b, c\)"):
        check_apart("abc", "bcd", "train and test")
    check_apart("ab", "cd", "train and test")

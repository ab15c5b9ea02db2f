"""The frames that are kept of a video."""

from __future__ import annotations

import pytest
import torch

from aurel.data.sampling import thin_frames


def test_every_nth_frame_of_each_group() -> None:
    labels = torch.zeros(25, 3)
    groups = ["a"] * 12 + ["b"] * 3 + ["a"] * 10
    kept = thin_frames(labels, groups, every=10)
    assert kept == [0, 10, 12, 23]  # frame 20 of "a" has index 23
    assert thin_frames(labels, groups, every=1) == list(range(25))


def test_more_of_the_frames_with_a_rare_au() -> None:
    labels = torch.zeros(21, 3)
    labels[4:7, 1] = 1
    labels[15, 2] = 1
    labels[16:, 0] = 1
    kept = thin_frames(labels, [0] * 21, every=10, rare=[1, 2], rare_every=5)
    assert kept == [0, 5, 10, 15, 20]
    assert thin_frames(labels, [0] * 21, 10, [1], 5) == [0, 5, 10, 20]


def test_unknown_is_not_present() -> None:
    labels = torch.full((11, 2), -1)
    assert thin_frames(labels, [0] * 11, 10, [0, 1], 5) == [0, 10]


def test_frames_kept_of_a_group_do_not_depend_on_the_others() -> None:
    labels = (torch.rand(300, 4) < 0.2).int()
    groups = torch.randint(3, (300,)).tolist()
    kept = set(thin_frames(labels, groups, 7, [2, 3], 3))
    for group in range(3):
        frames = [frame for frame in range(300) if groups[frame] == group]
        alone = thin_frames(labels[frames], [0] * len(frames), 7, [2, 3], 3)
        assert {frames[index] for index in alone} == kept & set(frames)


def test_no_frames() -> None:
    assert thin_frames(torch.zeros(0, 3), [], 10, [1], 5) == []


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        thin_frames(torch.zeros(2, 3), [0, 0], 0)
    with pytest.raises(ValueError, match="rare_every must be at least 1, got -1"):
        thin_frames(torch.zeros(2, 3), [0, 0], 1, [0], -1)
    with pytest.raises(ValueError, match=r"one entry per frame, 2, got 3"):
        thin_frames(torch.zeros(2, 3), [0, 0, 0], 1)

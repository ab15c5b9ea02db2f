"""Fewer frames of a video, of which neighbours look alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from torch import Tensor


def thin_frames(
    labels: Tensor,
    groups: Sequence[Hashable],
    every: int,
    rare: Sequence[int] = (),
    rare_every: int = 1,
) -> list[int]:
    """Keep one frame in `every`, more of those that show a rare AU.

    Frame i of its group, counted from 0 in the order of the list, is kept where i is a multiple of
    `every`; where it shows one of the `rare` AUs, a multiple of `rare_every` is enough. What is
    kept of a group does not depend on the others.

    Args:
        labels: (M, N), 1 present, 0 absent, -1 unknown, in order of time within a group.
        groups: what each of the M frames belongs to: a person, a video.
        every: 1 keeps all.
        rare: columns of AUs that are rare.
        rare_every: for frames with one of these.

    Returns:
        Which frames are kept, ascending.

    Raises:
        ValueError: a step below 1, or not one group a frame.

    Source: section 3.4.1 of Yu et al., CVPR Workshops 2023 (LRP): one in ten, and one in five for
    AU2, 15, 23, 24 and 26. That the steps are even ones, and that one such AU is enough, is our
    reading.
    """
    for name, step in (("every", every), ("rare_every", rare_every)):
        if step < 1:
            raise ValueError(f"{name} must be at least 1, got {step}")
    if len(groups) != len(labels):
        raise ValueError(f"groups must have one entry a frame ({len(labels)}), got {len(groups)}")
    shows_rare = (labels[:, list(rare)] == 1).any(1).tolist()
    seen: Counter[Hashable] = Counter()
    kept = []
    for frame, (group, is_rare) in enumerate(zip(groups, shows_rare, strict=True)):
        place = seen[group]
        if place % every == 0 or (is_rare and place % rare_every == 0):
            kept.append(frame)
        seen[group] += 1
    return kept

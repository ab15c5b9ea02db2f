"""Selection of fewer frames of a video, because consecutive frames are similar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from torch import Tensor

from aurel.data.arguments import check_at_least


def thin_frames(
    labels: Tensor,
    groups: Sequence[Hashable],
    every: int,
    rare: Sequence[int] = (),
    rare_every: int = 1,
) -> list[int]:
    """Return the indices of every n-th frame, and of more frames in which a rare AU is present.

    Frame i of its group, counted from 0 in the order of the list, is kept where i is a multiple of
    `every`, or where one of the `rare` AUs is present and i is a multiple of `rare_every`. The
    frames kept of a group do not depend on other groups.

    Args:
        labels: (M, N), 1 present, 0 absent, -1 unknown, in order of time within a group.
        groups: the group of each of the M frames: its subject or video.
        every: step between frames; 1 keeps all.
        rare: columns of the rare AUs.
        rare_every: step between frames in which one of these is present.

    Returns:
        Indices of the kept frames, ascending.

    Raises:
        ValueError: a step below 1, or a number of groups that differs from that of frames.

    Source: section 3.4.1 of Yu et al., CVPR Workshops 2023 (LRP): one in ten, and one in five for
    AU2, 15, 23, 24 and 26. The paper does not say that the steps are regular, nor that one such AU
    is enough.
    """
    check_at_least("every", every, 1)
    check_at_least("rare_every", rare_every, 1)
    if len(groups) != len(labels):
        raise ValueError(f"groups must have one entry per frame, {len(labels)}, got {len(groups)}")
    has_rare = (labels[:, list(rare)] == 1).any(1).tolist()
    counts: Counter[Hashable] = Counter()
    kept = []
    for frame, (group, is_rare) in enumerate(zip(groups, has_rare, strict=True)):
        index = counts[group]
        if index % every == 0 or (is_rare and index % rare_every == 0):
            kept.append(frame)
        counts[group] += 1
    return kept

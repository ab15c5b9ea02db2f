"""Clips of consecutive frames, cut from a list of single frames."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from aurel.data.base import AUDataset, Transform
from aurel.data.lists import ListDataset

_NUMBERED = re.compile(r"(.*?)(\d+)\.[^./]+")


class ListClips(AUDataset):
    """Clips of consecutive frames of one video, from a `ListDataset`.

    For training, an item is a run of frames without a gap, and gives a clip that starts anywhere in
    it. For scoring, the items are the clips that lie side by side in each run, so that every frame
    is in one. A clip that reaches beyond the end of its run shows the last frame again, with labels
    -1, which count in no loss and no score.

    Args:
        data: the frames; its `transform` is None.
        frames: T, labelled frames of a clip.
        context: frames that are shown on either side of these, with labels -1; beyond the ends of
            the run its first and last frame are repeated.
        at_random: for training.
        transform: from a sample with uint8 images (T', 3, H, W) to a sample; what it draws at
            random is the same for all frames.

    Items are those of `ListDataset` with a leading T' = `frames` + 2 `context` in ``image``,
    ``labels`` and ``landmarks``.

    Raises:
        ValueError: a file name without a frame number, frames of one clip that differ in size, or
            a number out of range.

    Source: MDHR (Wang et al., CVPR 2024). Its code trains on one random clip of 16 frames a video
    and epoch, and tests on clips side by side, both without context. Section 4.1 of the paper
    repeats the first and the last frame of a video so that each frame has its neighbours: that is
    `context`, of as many frames as the model's `context`.
    """

    def __init__(
        self,
        data: ListDataset,
        frames: int = 16,
        *,
        context: int = 0,
        at_random: bool = False,
        transform: Transform | None = None,
    ) -> None:
        if frames < 1:
            raise ValueError(f"frames must be at least 1, got {frames}")
        if context < 0:
            raise ValueError(f"context must be 0 or more, got {context}")
        if data.transform is not None:
            raise ValueError("data must have no transform: a clip's is that of all its frames")
        self.data = data
        self.aus = data.aus
        self.lists = data.lists
        self.frames = frames
        self.context = context
        self.transform = transform
        self._take(at_random)

    def for_scoring(self) -> Self:
        """Return `side_by_side`."""
        return self.side_by_side()

    def side_by_side(self) -> Self:
        """Return the clips for scoring of the same videos."""
        clips = copy.copy(self)
        clips._take(at_random=False)
        return clips

    def labels_of(self, items: Sequence[int]) -> Tensor:
        """Return the labels of every frame that `items` are cut from, (M, N) int8."""
        lines = [line for item in items for line in self._cut(item)]
        return self.data.labels[lines]

    def label_runs(self, items: Sequence[int]) -> list[Tensor]:
        """Return the labels of each run of frames that `items` are cut from, (T, N) int8."""
        return [self.data.labels[list(self._cut(item))] for item in items]

    def class_weights(self) -> Tensor:
        """Return the published class weights of the frames."""
        return self.data.class_weights()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        run, start = self._items[index]
        if start is None:
            start = int(torch.randint(max(len(run) - self.frames, 0) + 1, ()))
        shown = range(start - self.context, start + self.frames + self.context)
        lines = [run[min(max(place, 0), len(run) - 1)] for place in shown]
        samples = {line: self.data[line] for line in dict.fromkeys(lines)}
        clip: dict[str, Any] = {
            "image": torch.stack(_pictures(lines, samples, self.data.paths)),
            "labels": torch.stack([samples[line]["labels"] for line in lines]),
            "subject": samples[lines[0]]["subject"],
        }
        labelled = range(start, min(start + self.frames, len(run)))
        clip["labels"][[place not in labelled for place in shown]] = -1
        if "landmarks" in samples[lines[0]]:
            clip["landmarks"] = torch.stack([samples[line]["landmarks"] for line in lines])
        return self.transform(clip) if self.transform is not None else clip

    def _take(self, at_random: bool) -> None:
        """Set the items, each a run and where in it the clip starts, None for anywhere."""
        self._items: list[tuple[list[int], int | None]] = [
            (run, start)
            for run in frame_runs(self.data.paths)
            for start in ((None,) if at_random else range(0, len(run), self.frames))
        ]
        self.subjects = [self.data.subjects[run[0]] for run, _ in self._items]

    def _cut(self, item: int) -> list[int]:
        run, start = self._items[item]
        return run if start is None else run[start : start + self.frames]


def frame_runs(paths: Sequence[str]) -> list[list[int]]:
    """Find the stretches of consecutive frames in a list of files.

    Frames of one video differ in the number at the end of their names alone: "F001/T1/2440.jpg",
    "SN002/SN002_0.png".

    Args:
        paths: of the frames, in any order.

    Returns:
        for each stretch in which no number is left out, its places in `paths`, in order of time;
        videos in the order in which they first appear.

    Raises:
        ValueError: a name without a number at its end.
    """
    videos: dict[str, list[tuple[int, int]]] = {}
    for place, path in enumerate(paths):
        match = _NUMBERED.fullmatch(path)
        if match is None:
            raise ValueError(
                f"clips need the number of each frame at the end of its file name, as in "
                f"F001/T1/2440.jpg; there is {path}"
            )
        videos.setdefault(match[1], []).append((int(match[2]), place))
    runs: list[list[int]] = []
    for video in videos.values():
        video.sort()
        runs.append([video[0][1]])
        for (before, _), (number, place) in pairwise(video):
            if number == before + 1:
                runs[-1].append(place)
            else:
                runs.append([place])
    return runs


def _pictures(
    lines: Sequence[int], samples: dict[int, dict[str, Any]], paths: Sequence[str]
) -> list[Tensor]:
    """Return the picture of each line, (3, H, W) uint8, all of one size."""
    arrays = {line: np.array(sample["image"]) for line, sample in samples.items()}
    height, width = arrays[lines[0]].shape[:2]
    for line, array in arrays.items():
        if array.shape[:2] != (height, width):
            raise ValueError(
                f"frames of one clip must have one size, got {width} x {height} in "
                f"{paths[lines[0]]}, {array.shape[1]} x {array.shape[0]} in {paths[line]}"
            )
    return [torch.from_numpy(arrays[line]).permute(2, 0, 1) for line in lines]

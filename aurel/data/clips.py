"""Clips of consecutive frames, cut from a list of single frames."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from aurel.data.arguments import check_at_least
from aurel.data.base import AUDataset, Transform
from aurel.data.lists import ListDataset

_NUMBERED = re.compile(r"(.*?)(\d+)\.[^./]+")


class ListClips(AUDataset):
    """Clips of consecutive frames of one video, from a `ListDataset`.

    A run is a sequence of frames without a gap. For training, an item is a run, and gives a clip
    with a random start in it. For scoring, the items are the consecutive clips of each run, so that
    every frame is in one clip. A clip that is longer than the rest of its run repeats the last
    frame, with labels -1, which enter no loss and no score.

    Args:
        data: the frames; its `transform` is None.
        frames: number T of labeled frames of a clip.
        context: number of further frames on either side, with labels -1; beyond the ends of the
            run its first and last frame are repeated.
        at_random: whether clips start at random, for training.
        segment: cut each run into segments of almost equal length, at most this many frames, which
            are then the items of training; None for whole runs.
        transform: function from a sample with uint8 images (T', 3, H, W) to a sample; its random
            numbers are the same for all frames.

    Items are those of `ListDataset` with a leading T' = `frames` + 2 `context` in ``image``,
    ``labels`` and ``landmarks``.

    Raises:
        ValueError: a file name without a frame number, frames of one clip that differ in size, or
            a number out of range.

    Source: MDHR (Wang et al., CVPR 2024). Its code trains on one random clip of 16 frames per video
    and epoch, and tests on consecutive clips, both without context; its first revision cuts the
    videos of DISFA after 607 frames. Section 4.1 of the paper
    repeats the first and the last frame of a video so that each frame has frames on either side:
    this is a `context` equal to the `context` of the model.
    """

    def __init__(
        self,
        data: ListDataset,
        frames: int = 16,
        *,
        context: int = 0,
        at_random: bool = False,
        segment: int | None = None,
        transform: Transform | None = None,
    ) -> None:
        check_at_least("frames", frames, 1)
        check_at_least("context", context, 0)
        if segment is not None:
            check_at_least("segment", segment, frames)
        if data.transform is not None:
            raise ValueError(
                "data.transform must be None, because a clip is transformed as one sample, got "
                f"{data.transform}"
            )
        self.data = data
        self.aus = data.aus
        self.lists = data.lists
        self.layout, self.notes, self.unready = data.layout, data.notes, data.unready
        self.frames = frames
        self.context = context
        self.segment = segment
        self.transform = transform
        self._set_items(at_random)

    def for_scoring(self) -> Self:
        """Return the consecutive clips of the same videos."""
        return self.side_by_side()

    def side_by_side(self) -> Self:
        """Return the consecutive clips of the same videos."""
        clips = copy.copy(self)
        clips.segment = None
        clips._set_items(at_random=False)
        return clips

    def labels_of(self, items: Sequence[int]) -> Tensor:
        """Return the labels of every frame that `items` may show, (M, N) int8."""
        lines = [line for item in items for line in self._frames_of(item)]
        return self.data.labels[lines]

    def keys_of(self, items: Sequence[int]) -> list[str]:
        """Return the name of every frame that `items` may show."""
        return self.data.keys_of([line for item in items for line in self._frames_of(item)])

    def pictures_of(self, items: Sequence[int]) -> list[Path]:
        """Return the pictures of every frame that `items` may show."""
        return self.data.pictures_of([line for item in items for line in self._frames_of(item)])

    def label_runs(self, items: Sequence[int]) -> list[Tensor]:
        """Return the labels of each run of frames that `items` are cut from, (T, N) int8."""
        return [self.data.labels[self._frames_of(item)] for item in items]

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
        lines = [run[min(max(index, 0), len(run) - 1)] for index in shown]
        samples = {line: self.data[line] for line in dict.fromkeys(lines)}
        clip: dict[str, Any] = {
            "image": torch.stack(_pictures(lines, samples, self.data.paths)),
            "labels": torch.stack([samples[line]["labels"] for line in lines]),
            "subject": samples[lines[0]]["subject"],
        }
        if "intensity" in samples[lines[0]]:
            clip["intensity"] = torch.stack([samples[line]["intensity"] for line in lines])
        labeled = range(start, min(start + self.frames, len(run)))
        for name in ("labels", "intensity"):
            if name in clip:
                clip[name][[index not in labeled for index in shown]] = -1
        if "landmarks" in samples[lines[0]]:
            clip["landmarks"] = torch.stack([samples[line]["landmarks"] for line in lines])
        return self.transform(clip) if self.transform is not None else clip

    def _set_items(self, at_random: bool) -> None:
        """Set the items: each a run and the index where its clip starts, None for at random."""
        self._items: list[tuple[list[int], int | None]] = [
            (run, start)
            for whole in frame_runs(self.data.paths)
            for run in _segments(whole, self.segment)
            for start in ((None,) if at_random else range(0, len(run), self.frames))
        ]
        self.subjects = [self.data.subjects[run[0]] for run, _ in self._items]

    def _frames_of(self, item: int) -> list[int]:
        run, start = self._items[item]
        return run if start is None else run[start : start + self.frames]


def frame_runs(paths: Sequence[str]) -> list[list[int]]:
    """Return the runs of consecutive frames in a list of files.

    Names of frames of one video differ only in the number at their end: "F001/T1/2440.jpg",
    "SN002/SN002_0.png".

    Args:
        paths: paths of the frames, in any order.

    Returns:
        For each run of consecutive numbers, its indices in `paths`, in order of time; videos are in
        the order in which they first appear.

    Raises:
        ValueError: a name without a number at its end.
    """
    videos: dict[str, list[tuple[int, int]]] = {}
    for index, path in enumerate(paths):
        match = _NUMBERED.fullmatch(path)
        if match is None:
            raise ValueError(
                "file names of frames must end with a number, as in F001/T1/2440.jpg, for clips, "
                f"got {path}"
            )
        videos.setdefault(match[1], []).append((int(match[2]), index))
    runs: list[list[int]] = []
    for video in videos.values():
        video.sort()
        runs.append([video[0][1]])
        for (before, _), (number, index) in pairwise(video):
            if number == before + 1:
                runs[-1].append(index)
            else:
                runs.append([index])
    return runs


def _segments(run: list[int], longest: int | None) -> list[list[int]]:
    """Return `run` in parts of almost equal length, at most `longest` frames each."""
    count = 1 if longest is None else -(-len(run) // longest)
    ends = [len(run) * part // count for part in range(count + 1)]
    return [run[start:stop] for start, stop in pairwise(ends)]


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

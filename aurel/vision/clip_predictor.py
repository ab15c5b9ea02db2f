"""Predict the AUs of tracked faces in a video, with a model that takes clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurel.vision.face_detector import Face, overlap
from aurel.vision.face_predictor import FacePrediction, FacePredictor, FoundFaces, to_batches
from aurel.vision.image import RGBImage
from aurel.vision.tracks import OVERLAP

if TYPE_CHECKING:
    from aurel.models.base import AUModel

Track = tuple[int, list[int]]


class ClipPredictor(FacePredictor):
    """Tracks the faces of a video and predicts their AUs with a model that takes clips.

    A face is one clip as long as it is found in every frame; a face that is lost and found again
    starts a new clip. A photograph is a clip of one frame. The model defines the frames beyond the
    ends of a clip (`mdhr` by its option `padding`).

    The arguments are those of `FacePredictor`. The model takes clips (B, T, 3, S, S), and its
    attribute `context` is the number of frames on each side that a frame's probabilities depend on.
    """

    model: AUModel

    @property
    def context(self) -> int:
        """Number of frames on each side of a piece that `predict_piece` needs."""
        return self.model.context

    def predict_piece(
        self, window: Sequence[FoundFaces], start: int, stop: int
    ) -> list[list[FacePrediction]]:
        """Return the faces of the frames from `start` to before `stop` of a window, with their AUs.

        If the window has `context` frames before `start` and after `stop`, or all that the video
        has there, the result equals that of the whole video.

        Args:
            window: results of `find` for consecutive frames.
            start: first frame of the piece.
            stop: the frame after the last one of the piece.
        """
        decided: dict[tuple[int, int], FacePrediction] = {}
        for first, course in tracks([found.faces for found in window]):
            if first >= stop or first + len(course) <= start:
                continue
            steps = list(enumerate(course, start=first))
            crops = [window[index].crops[number] for index, number in steps]
            for (index, number), probs in zip(steps, self._clip_probs(crops), strict=True):
                decided[index, number] = self._decide(window[index].faces[number], probs)
        return [
            [decided[index, number] for number in range(len(window[index].faces))]
            for index in range(start, stop)
        ]

    @torch.inference_mode()
    def _clip_probs(self, crops: Sequence[RGBImage]) -> NDArray[np.floating]:
        (clip,) = to_batches(crops, len(crops), self.preprocessing)
        return self.model(clip.unsqueeze(0).to(self.device)).probs[0].float().cpu().numpy()

    def _run(self, images: Tensor) -> Tensor:
        return self.model(images.unsqueeze(1)).probs.squeeze(1)


def tracks(frames: Sequence[Sequence[Face]]) -> list[Track]:
    """Return the tracks of the faces in consecutive frames.

    Args:
        frames: the faces of each frame.

    Returns:
        For each track, its first frame, and the number of the face in that frame and in each
        following frame up to the last one of the track.
    """
    found: list[Track] = []
    going: dict[int, Track] = {}
    before: Sequence[Face] = ()
    for index, faces in enumerate(frames):
        linked = links(before, faces)
        still_going = {}
        for number in range(len(faces)):
            if number in linked:
                track = going[linked[number]]
            else:
                track = (index, [])
                found.append(track)
            track[1].append(number)
            still_going[number] = track
        going, before = still_going, faces
    return found


def links(before: Sequence[Face], now: Sequence[Face]) -> dict[int, int]:
    """Return the number of each face in the frame before; new faces are omitted.

    Pairs are formed by decreasing overlap, and each face is in at most one pair.
    """
    pairs = [(overlap(a, b), i, j) for i, a in enumerate(before) for j, b in enumerate(now)]
    linked: dict[int, int] = {}
    for shared, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if shared >= OVERLAP and j not in linked and i not in linked.values():
            linked[j] = i
    return linked

"""From the frames of a video to AU probabilities a face, with a model of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurel.vision.face_detector import Face
from aurel.vision.face_predictor import FacePrediction, FacePredictor, FoundFaces, to_batches
from aurel.vision.image import RGBImage

if TYPE_CHECKING:
    from aurel.models.base import AUModel

OVERLAP = 0.3
"""How much of their union two boxes share, at least, that are of one face in consecutive frames."""

Track = tuple[int, list[int]]


class ClipPredictor(FacePredictor):
    """Follows the faces of a video, and predicts their AUs with a model of clips.

    Each face is one clip for as long as it is found in every frame; a face that is lost and found
    again starts another. A photograph is a clip of one frame, a face that does not move; what lies
    beyond the ends of a clip is the model's rule (for `mdhr` its option `padding`).

    Args: those of `FacePredictor`; the model is from clips (B, T, 3, S, S), and has `context`, the
    frames on either side that a frame's probabilities depend on.
    """

    model: AUModel

    @property
    def context(self) -> int:
        """Frames on either side of a piece that `predict_piece` needs."""
        return self.model.context

    def predict_piece(
        self, window: Sequence[FoundFaces], start: int, stop: int
    ) -> list[list[FacePrediction]]:
        """Return the faces of the frames `start` to `stop` of a window, with their AUs.

        With `context` frames before `start` and after `stop`, or as many as the video has there,
        they are those of the video as a whole.

        Args:
            window: what `find` gives for consecutive frames.
            start: first frame of the piece.
            stop: the frame after its last.
        """
        decided: dict[tuple[int, int], FacePrediction] = {}
        for first, course in tracks([found.faces for found in window]):
            if first >= stop or first + len(course) <= start:
                continue
            steps = list(enumerate(course, start=first))
            crops = [window[place].crops[number] for place, number in steps]
            for (place, number), probs in zip(steps, self._clip_probs(crops), strict=True):
                decided[place, number] = self._decide(window[place].faces[number], probs)
        return [
            [decided[place, number] for number in range(len(window[place].faces))]
            for place in range(start, stop)
        ]

    @torch.inference_mode()
    def _clip_probs(self, crops: Sequence[RGBImage]) -> NDArray[np.floating]:
        (clip,) = to_batches(crops, len(crops))
        return self.model(clip.unsqueeze(0).to(self.device)).probs[0].float().cpu().numpy()

    def _run(self, images: Tensor) -> Tensor:
        return self.model(images.unsqueeze(1)).probs.squeeze(1)


def tracks(frames: Sequence[Sequence[Face]]) -> list[Track]:
    """Follow faces from frame to frame.

    Args:
        frames: the faces of consecutive frames.

    Returns:
        for each face the frame in which it is first seen, and its number among the faces of that
        frame and of those after it, up to the last in which it is seen.
    """
    found: list[Track] = []
    going: dict[int, Track] = {}
    before: Sequence[Face] = ()
    for place, faces in enumerate(frames):
        linked = links(before, faces)
        still_going = {}
        for number in range(len(faces)):
            if number in linked:
                track = going[linked[number]]
            else:
                track = (place, [])
                found.append(track)
            track[1].append(number)
            still_going[number] = track
        going, before = still_going, faces
    return found


def links(before: Sequence[Face], now: Sequence[Face]) -> dict[int, int]:
    """Return which face of the frame before each face is, by number; new faces are left out.

    The pairs that overlap most come first, and a face is in no more than one.
    """
    pairs = [(overlap(a, b), i, j) for i, a in enumerate(before) for j, b in enumerate(now)]
    linked: dict[int, int] = {}
    for shared, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if shared >= OVERLAP and j not in linked and i not in linked.values():
            linked[j] = i
    return linked


def overlap(a: Face, b: Face) -> float:
    """Return how much of their union two boxes share, 0 to 1, as if they were not turned."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(width, 0) * max(height, 0)
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union > 0 else 0.0

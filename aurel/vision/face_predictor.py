"""Find the faces in pictures and predict the probabilities of their AUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurel.data.preprocessing import Preprocessing
from aurel.vision.align import align_face
from aurel.vision.crop import MARGIN
from aurel.vision.detectors import make_detector
from aurel.vision.face_detector import Face, FaceDetector
from aurel.vision.image import RGBImage
from aurel.vision.landmarks import LandmarkDetector, with_landmarks

if TYPE_CHECKING:
    from aurel.models.base import AUModel
    from aurel.models.voting import VotingEnsemble


@dataclass(frozen=True)
class FacePrediction:
    """The prediction for one face.

    Args:
        face: box of the face.
        probs: (N,) float, probability of each AU.
        present: (N,) bool, True where the probability is at least the threshold.
    """

    face: Face
    probs: NDArray[np.floating]
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class FoundFaces:
    """The faces of one picture.

    Args:
        faces: their boxes, left to right.
        crops: the input of the model for each face, (S, S, 3) uint8 RGB.
    """

    faces: list[Face]
    crops: list[RGBImage]


class FacePredictor:
    """Finds the faces of pictures and predicts their AUs, batched over faces.

    A face with points is aligned as `preprocessing` says; a face without points is cut out along
    its box.

    Args:
        model: takes images (B, 3, S, S), normalized as in training, and returns an `AUOutput`; it
            is moved to `device` and set to eval mode.
        image_size: side S of the input in pixels, if there is no `preprocessing`.
        preprocessing: the input of the model; None for the attribute `preprocessing` of the model,
            or if it has none, for crops of `image_size` and `margin`.
        detector: finds the faces; None for `make_detector()`.
        landmarks: if given, finds landmarks for the alignment instead of the detector's points.
        margin: see `crop_face`; None for the part of a crop with `MARGIN` that the model takes.
        threshold: an AU is present if its probability is at least this; one number, or one for
            each AU.
        batch_size: number of faces in a call of the model.
        device: device of the model.
    """

    def __init__(
        self,
        model: AUModel | VotingEnsemble,
        image_size: int = 224,
        *,
        preprocessing: Preprocessing | None = None,
        detector: FaceDetector | None = None,
        landmarks: LandmarkDetector | None = None,
        margin: float | None = None,
        threshold: float | Sequence[float] = 0.5,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
    ) -> None:
        thresholds = np.asarray(threshold, dtype=np.float32)
        if not ((thresholds >= 0) & (thresholds <= 1)).all():
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        if thresholds.shape not in ((), (len(model.aus),)):
            raise ValueError(
                f"threshold must be one number or one for each of {len(model.aus)} AUs, got "
                f"{thresholds.size}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.names: tuple[str, ...] = model.aus.names
        self.preprocessing = (
            preprocessing or preprocessing_of(model) or _of_crops(image_size, margin)
        )
        self.image_size = self.preprocessing.size
        self.detector = make_detector() if detector is None else detector
        self.landmarks = landmarks
        self.margin = margin
        self.threshold = thresholds
        self.batch_size = batch_size

    def __call__(self, images: Sequence[RGBImage]) -> list[list[FacePrediction]]:
        """Return the faces of each picture, left to right, with their AUs.

        Args:
            images: (H, W, 3) uint8 RGB, of any sizes.
        """
        return self.predict([self.find(image) for image in images])

    def find(self, image: RGBImage) -> FoundFaces:
        """Return the faces of an (H, W, 3) uint8 RGB picture.

        Raises:
            ValueError: not such a picture, or the detector returns an empty box or one outside the
                picture.
        """
        faces = self.detector(image)
        if self.landmarks is not None:
            faces = [with_landmarks(face, self.landmarks(image, face)) for face in faces]
        about = self.preprocessing
        crops = [
            align_face(
                image, face, about.alignment, about.size, chip=about.chip, margin=self.margin
            ).image
            for face in faces
        ]
        return FoundFaces(faces, crops)

    def predict(self, pictures: Sequence[FoundFaces]) -> list[list[FacePrediction]]:
        """Return the faces of each picture with their AUs, from results of `find`."""
        probs = iter(self._probs([crop for found in pictures for crop in found.crops]))
        return [
            [self._decide(face, values) for face, values in zip(found.faces, probs, strict=False)]
            for found in pictures
        ]

    def _decide(self, face: Face, probs: NDArray[np.floating]) -> FacePrediction:
        return FacePrediction(face, probs, probs >= self.threshold)

    @torch.inference_mode()
    def _probs(self, crops: Sequence[RGBImage]) -> NDArray[np.floating]:
        batches = [
            self._run(batch.to(self.device)).float().cpu()
            for batch in to_batches(crops, self.batch_size, self.preprocessing)
        ]
        return torch.cat(batches).numpy() if batches else np.empty((0, len(self.names)))

    def _run(self, images: Tensor) -> Tensor:
        return self.model(images).probs


def to_batches(
    crops: Sequence[RGBImage], batch_size: int, preprocessing: Preprocessing | None = None
) -> Iterable[Tensor]:
    """Yield normalized batches (B, 3, S, S) of face crops (S, S, 3)."""
    preprocessing = preprocessing or Preprocessing()
    for start in range(0, len(crops), batch_size):
        stacked = torch.from_numpy(np.stack(crops[start : start + batch_size]))
        yield preprocessing.normalize(stacked.permute(0, 3, 1, 2))


def preprocessing_of(model: object) -> Preprocessing | None:
    """Return the preprocessing that a model has as its attribute of that name, or None."""
    found = getattr(model, "preprocessing", None)
    return Preprocessing.of(found) if isinstance(found, Mapping) else found


def _of_crops(image_size: int, margin: float | None) -> Preprocessing:
    """Return the preprocessing whose chips cover the part of a face that a crop does."""
    if margin is None:
        margin = MARGIN
    chip = round(image_size * (1 + 2 * MARGIN) / (1 + 2 * margin))
    return Preprocessing(image_size, max(1, chip))

"""Choose a face detector by its name."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, get_args

from aurel.vision.center_face import NOT_INSTALLED, CenterFace, center_face_file
from aurel.vision.face_detector import FaceDetector, HaarFaceDetector, whole_image

DetectorName = Literal["auto", "centerface", "haar", "whole"]


def make_detector(
    name: DetectorName = "auto",
    *,
    min_face: float | None = None,
    min_confidence: float | None = None,
) -> FaceDetector:
    """Return the face detector of that name.

    Args:
        name: "centerface" for `CenterFace`, "haar" for `HaarFaceDetector`, "whole" for
            `whole_image`, pictures that are face crops. "auto" is CenterFace where its file and
            onnxruntime are installed, and else Haar with a warning, once in a process.
        min_face: smallest face, as a fraction of the shorter side of the picture; None for the
            default of the detector.
        min_confidence: least confidence of a face, in (0, 1], of CenterFace only; None for its
            default.

    Raises:
        ValueError: an unknown name, an option out of range, or one that the detector does not have.
        FileNotFoundError: CenterFace is not installed.
    """
    if name not in get_args(DetectorName):
        choices = ", ".join(get_args(DetectorName))
        raise ValueError(f"detector must be one of {choices}, got {name!r}")
    if name == "auto":
        name = "centerface" if find_spec("onnxruntime") and center_face_file() else "haar"
        if name == "haar":
            _warn_of_haar()
    options = {"min_face": min_face, "min_confidence": min_confidence}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    has = {"centerface": {"min_face", "min_confidence"}, "haar": {"min_face"}}.get(name, set())
    for key in given.keys() - has:
        raise ValueError(f"{key} must be None for the detector {name!r}, got {given[key]}")
    if name == "whole":
        return whole_image
    if name == "haar":
        return HaarFaceDetector(**given)
    return CenterFace(**given)


@cache
def _warn_of_haar() -> None:
    warnings.warn(
        f"{NOT_INSTALLED}. The Haar detector of OpenCV is used instead: it misses many faces and "
        "finds no points, so faces are not aligned",
        stacklevel=3,
    )

"""Options of commands that search for faces, and the detector that they stand for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurel.vision.face_detector import FaceDetector


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the face detector."""
    group = parser.add_argument_group("faces")
    group.add_argument(
        "--detector",
        choices=("auto", "centerface", "haar", "whole"),
        default="auto",
        help="auto: the best one that is installed; whole: the picture is a face crop",
    )
    group.add_argument(
        "--cropped",
        dest="detector",
        action="store_const",
        const="whole",
        help="inputs are face crops: do not search for faces; the same as --detector whole",
    )
    group.add_argument(
        "--min-face",
        type=float,
        metavar="SHARE",
        help="smallest face, as a share of the shorter side of the picture",
    )
    group.add_argument(
        "--min-confidence",
        type=float,
        metavar="SCORE",
        help="least confidence of a face, from 0 to 1",
    )


def make_detector(args: argparse.Namespace) -> FaceDetector:
    """Return the detector that the options choose."""
    from aurel.vision import detectors

    return detectors.make_detector(
        args.detector, min_face=args.min_face, min_confidence=args.min_confidence
    )

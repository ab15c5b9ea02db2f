"""`aurel predict`: predict the AUs of the faces in photographs and videos."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurel.cli.errors import BAD_INPUT, one_line, report

if TYPE_CHECKING:
    from aurel.cli.checkpoints import ImageModel
    from aurel.models.base import AUModel
    from aurel.models.voting import VotingEnsemble
    from aurel.vision.face_predictor import FacePredictor

MAJORITY = 0.5
TUNED = "tuned"

_DESCRIPTION = """\
Find the faces in photographs and videos and predict their action units (AUs).

OUT/predictions.csv has one row for each face in each frame:
  input, frame, time       file, number of the frame from 0, time in seconds
  face                     number of the face in the frame, from 0, left to right; not an identity
  FaceRectX, FaceRectY, FaceRectWidth, FaceRectHeight, FaceAngle
                           box in pixels, and its rotation about its center in degrees, clockwise
  AU01, AU02, ...          probability of each AU
  AU01_present, ...        1 if the probability is at least the threshold, else 0
A frame without a face has one row, in which the columns from `face` on are empty.

A model that takes clips (mdhr) tracks each face through a video and predicts from all frames of the
track; a face that is lost for a frame starts a new track. A photograph is a clip of one frame.

With several checkpoints the models vote: AU01 is the fraction of the models whose probability is at
least the threshold, and AU01_present is 1 if this fraction is 0.5 or more.

OUT/annotated/ has a copy of each input with boxes and bars drawn on it, as PNG or MP4. If a file
cannot be read, it is named on stderr, the other files are processed, and the exit code is 2.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel predict`."""
    parser = subparsers.add_parser(
        "predict",
        help="predict the AUs of the faces in photographs and videos",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="photograph, video, or folder with photographs and videos",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        action="append",
        help="checkpoint of the model; repeat the option to let several models vote",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--threshold",
        type=_number_or_tuned,
        default=0.5,
        help="an AU is present if its probability is at least this (0.5); 'tuned' for the "
        "thresholds that `aurel test --tune` stored in the checkpoint",
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="use every N-th frame of a video (1)"
    )
    parser.add_argument(
        "--cropped", action="store_true", help="inputs are face crops: do not search for faces"
    )
    parser.add_argument(
        "--csv-only", action="store_true", help="write the table only, no pictures and videos"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, help="number of faces in a batch (32)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (auto)")


def run(args: argparse.Namespace) -> int:
    """Predict the AUs of all inputs; return 2 if an input cannot be read, else 0."""
    # Turn off messages of the video decoder about damaged files.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from aurel.cli.checkpoints import load_face_model, load_voters, tuned_thresholds
    from aurel.cli.file_progress import file_progress
    from aurel.files import atomic_path
    from aurel.vision.inputs import InputError, find_inputs
    from aurel.vision.outputs import annotated_paths
    from aurel.vision.predict_files import FilePrediction
    from aurel.vision.prediction_table import PredictionTable

    if args.every < 1:
        raise ValueError(f"--every must be at least 1, got {args.every}")
    if len(args.checkpoint) == 1:
        threshold = args.threshold
        if threshold == TUNED:
            threshold = tuned_thresholds(args.checkpoint[0])
        predictor = make_predictor(args, load_face_model(args.checkpoint[0]), threshold)
    elif args.threshold == TUNED:
        raise ValueError("--threshold must be a number with several checkpoints, got tuned")
    else:
        predictor = make_predictor(args, load_voters(args.checkpoint, args.threshold), MAJORITY)
    annotated = args.out / "annotated"
    inputs = find_inputs(args.inputs, skip=annotated)
    if not inputs:
        raise InputError(f"no photographs or videos in {', '.join(map(str, args.inputs))}")

    table_path = args.out / "predictions.csv"
    with (
        atomic_path(table_path) as temporary,
        temporary.open("w+", newline="", encoding="utf-8") as file,
        file_progress(len(inputs)) as on_progress,
    ):
        job = FilePrediction(
            predictor,
            PredictionTable(file, predictor.names),
            {} if args.csv_only else annotated_paths(inputs, annotated),
            every=args.every,
            on_error=lambda error: report(f"error: {one_line(error)}"),
            on_progress=on_progress,
        )
        job.run(inputs)
        if job.failed == len(inputs):
            raise InputError("no input can be read; no results were written")
    faces, files = counted(job.faces, "face"), counted(len(inputs) - job.failed, "file")
    print(f"{faces} in {files}: {table_path}")
    return BAD_INPUT if job.failed else 0


def _number_or_tuned(text: str) -> float | str:
    return text if text == TUNED else float(text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 face" or "2 faces"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def make_predictor(
    args: argparse.Namespace,
    loaded: ImageModel[AUModel | VotingEnsemble],
    threshold: float | Sequence[float],
) -> FacePredictor:
    """Return a `FacePredictor` of a model, with the options of the command line."""
    from aurel.cli.checkpoints import choose_device
    from aurel.vision.clip_predictor import ClipPredictor
    from aurel.vision.crop import MARGIN
    from aurel.vision.face_detector import whole_image
    from aurel.vision.face_predictor import FacePredictor

    device = choose_device(args.device)
    kind = ClipPredictor if loaded.takes_clips else FacePredictor
    return kind(
        loaded.model,
        loaded.image_size,
        detector=whole_image if args.cropped else None,
        margin=loaded.margin(0.0 if args.cropped else MARGIN),
        threshold=threshold,
        batch_size=args.batch_size,
        device=device,
    )

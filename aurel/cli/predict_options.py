"""The options of `aurel predict`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aurel.cli.face_options import add_face_options

_DESCRIPTION = """\
Find the faces in photographs and videos and predict their action units (AUs).

OUT/tables/NAME.csv, one file for each input, has one row for each face in each frame:
  input, frame, time       file, number of the frame from 0, time in seconds
  face                     number of the face in the frame, from 0, left to right
  person                   number of the person in the video: it stays while a face is followed, and
                           if it is found again nearby within a second
  FaceRectX, FaceRectY, FaceRectWidth, FaceRectHeight, FaceAngle
                           box in pixels, and its rotation about its center in degrees, clockwise
  FaceScore                confidence of the face detector, empty if it has none
  RightEyeX, RightEyeY, LeftEyeX, ..., NoseTipX, ..., MouthRightX, ..., MouthLeftX, ...
                           points of the face, in pixels; right and left are those of the person
  AU01, AU02, ...          probability of each AU
  AU01_present, ...        1 if the probability is at least the threshold, else 0
A frame without a face has one row, in which the columns from `face` on are empty.

OUT/annotated/ has a copy of each input with boxes and bars drawn on it, as PNG or MP4 (H.264, with
its sound). OUT/manifest.csv has a row for each input: done, incomplete (a damaged video, of which
the rows that could be read are kept), failed or skipped, with the reason.

The content of a file decides how it is read, not its suffix. If a file cannot be read, it is named
on stderr, the other files are processed, and the exit code is 2. A stopped run goes on with
--resume. An input of one digit is a camera, and an address such as rtsp://... a stream: the rows
are shown, and appended to OUT/live.csv until the stream or Ctrl-C ends it.

A model that takes clips (mdhr) predicts from all frames in which a face is found without a gap. A
photograph is a clip of one frame.

With several checkpoints the models vote: AU01 is the fraction of the models whose probability is at
least the threshold, and AU01_present is 1 if this fraction is 0.5 or more.
"""


TUNED = "tuned"


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel predict`."""
    parser = subparsers.add_parser(
        "predict",
        help="predict the AUs of the faces in photographs and videos",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="photograph, video, folder with photographs and videos; camera or stream",
    )
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        help="checkpoint of the model; repeat the option to let several models vote",
    )
    models.add_argument("--model", metavar="NAME", help="released weights, of `aurel weights list`")
    add("--out", required=True, type=Path, help="folder for the results")
    add(
        "--threshold",
        type=_number_or_tuned,
        default=0.5,
        help="an AU is present if its probability is at least this (0.5); 'tuned' for the "
        "thresholds that `aurel test --tune` stored in the checkpoint",
    )
    add("--every", type=int, default=1, metavar="N", help="use every N-th frame of a video (1)")
    add("--format", choices=("csv", "parquet"), default="csv", help="of the tables (csv)")
    add("--csv-only", action="store_true", help="write the tables only, no pictures and videos")
    add_face_options(parser)
    _add_run(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        dest="existing",
        action="store_const",
        const="resume",
        default="keep",
        help="skip inputs that are done and unchanged, go on with the others",
    )
    existing.add_argument(
        "--overwrite",
        dest="existing",
        action="store_const",
        const="overwrite",
        help="remove the results that are in OUT",
    )
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes, each with the model (one a core, at most one a video or 32 photographs)",
    )
    group.add_argument(
        "--ray", metavar="ADDRESS", help="run on a Ray cluster; `local` starts one here"
    )
    group.add_argument("--batch-size", type=int, default=32, help="faces or frames in a batch (32)")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (auto)")


def _number_or_tuned(text: str) -> float | str:
    try:
        return text if text == TUNED else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or {TUNED}, got {text!r}") from None

"""The options of `aurel prepare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aurel.cli.face_options import add_face_options

_DESCRIPTION = """\
Find the faces in photographs and videos, or in a data set as its owner sends it; follow them, align
them and cut them out, once for all trainings.

OUT/img/           the aligned faces (chips): INPUT/PERSON/FRAME.jpg, or of a data set the name of
                   the frame, as in F001/T1/2440.jpg
OUT/list/          lists of paths, labels and 49 landmarks for each fold, which aurel fit reads by
                   --data.root OUT; of other inputs a list of paths and one of landmarks
OUT/frames.csv     each face with its box and its chip, each frame without a chip with the reason
OUT/manifest.csv   a row for each input: done, incomplete, failed or skipped, with the reason
OUT/records/       for each input, the record from which a stopped run goes on
OUT/shards/        with --shards or --shard-size: tar files in the form of WebDataset, which aurel
                   fit reads by --data.root OUT/shards

The same command goes on after a stop of any kind, and takes inputs that are new or have changed. A
frame without a face has no chip and is in no list. Of a data set, the person with the largest faces
is taken; of other inputs, all people.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel prepare`."""
    parser = subparsers.add_parser(
        "prepare",
        help="align and cut out the faces of a data set, of photographs and videos",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="photograph, video, folder with such files")
    add("--out", required=True, type=Path, help="folder for the results")
    add("--alignment", default="crop", help="place of the points of a face in its chip (crop)")
    add("--size", type=int, default=256, help="side of a chip in pixels (256)")
    add("--format", choices=("jpg", "png"), default="jpg", help="of the chips (jpg, quality 95)")
    add("--every", type=int, default=1, metavar="N", help="use every N-th frame of a video (1)")
    _add_dataset(parser)
    shards = parser.add_argument_group("shards").add_mutually_exclusive_group()
    shards.add_argument("--shards", type=int, metavar="N", help="write N tar files")
    shards.add_argument("--shard-size", type=int, metavar="N", help="write tar files of N chips")
    add_face_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument(
        "--overwrite", action="store_true", help="replace results of other options that are in OUT"
    )
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (one a core, at most one a video or 32 photographs)",
    )


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data set")
    group.add_argument("--data", metavar="NAME", help="data set in its owner's layout, as BP4D")
    group.add_argument("--root", help="folder of the data set")
    group.add_argument("--images", help="folder of its pictures or videos, if it is another one")
    group.add_argument("--aus", type=int, nargs="+", metavar="AU", help="AUs to take (the paper's)")
    group.add_argument(
        "--present", type=int, help="lowest intensity that counts as present, from 1 to 5 (2)"
    )

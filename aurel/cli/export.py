"""`aurel export`: a model as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Write the model of a checkpoint as an ONNX file, run it in onnxruntime and compare the outputs.

The input is `images` (B, 3, S, S) or `clips` (B, T, 3, S, S), float32, normalized with the mean and
standard deviation of ImageNet, for any B and T. The outputs are those of the model, `probs` first.
The key "aurel" of the file's metadata contains the model's name and options, the names of the AUs
and the preprocessing of the images as JSON. The page examples/web runs the file in a browser.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel export`."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as an ONNX file",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="model to export")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .onnx file")
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="S",
        help="side of the images in pixels (default: as in training)",
    )
    parser.add_argument(
        "--opset", type=int, help="version of the ONNX operators (default: torch's)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest allowed difference of the outputs (1e-4)",
    )


def run(args: argparse.Namespace) -> int:
    """Export a model and print the largest difference of each output."""
    from aurel.cli.checkpoints import load_face_model
    from aurel.models.export import export_onnx

    loaded = load_face_model(args.checkpoint)
    size = args.image_size or loaded.image_size
    differences = export_onnx(
        loaded.model,
        args.out,
        image_size=size,
        resize=loaded.resize * size // loaded.image_size,
        opset=args.opset,
        tolerance=args.tolerance,
    )
    for name, difference in differences.items():
        print(f"{name}: largest difference from the model {difference:.1e}")
    print(f"{len(loaded.model.aus)} AUs, images of {size} x {size}: {args.out}")
    return 0

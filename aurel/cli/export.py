"""`aurel export`: a model as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Write the model of a checkpoint as an ONNX file, run the file in onnxruntime and compare.

Its input is `images` (B, 3, S, S), or `clips` (B, T, 3, S, S), float32, normalised with ImageNet's
mean and deviation, for any B and T; its outputs are those of the model, `probs` first. The key
"aurel" of the file's metadata says in JSON what the model is and which AUs its columns stand for.
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
        "--image-size", type=int, metavar="S", help="pixels a side (what it was trained on)"
    )
    parser.add_argument("--opset", type=int, help="version of the operators (torch's choice)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="difference allowed in the outputs (1e-4)"
    )


def run(args: argparse.Namespace) -> int:
    """Export, and say how near the file's outputs are."""
    from aurel.cli.checkpoints import load_face_model
    from aurel.models.export import export_onnx

    loaded = load_face_model(args.checkpoint)
    size = args.image_size or loaded.image_size
    differences = export_onnx(
        loaded.model, args.out, image_size=size, opset=args.opset, tolerance=args.tolerance
    )
    for name, difference in differences.items():
        print(f"{name}: within {difference:.1e} of the model's")
    print(f"{len(loaded.model.aus)} AUs, images of {size} x {size}: {args.out}")
    return 0

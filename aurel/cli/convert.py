"""`aurel convert`: write weights that authors released as a checkpoint of this library."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Read the weights that the authors of a model released, and write them as a safetensors file for
predict, graph, export and load_model.

The authors' file does not contain the AUs of its outputs or the options of the model: give the AUs
with --aus, in the order of the training labels, and options with --option, as in a recipe. Every
weight must have a counterpart in the model: missing and unexpected weights and different shapes are
listed, and no file is written. The file is read without running code from it; a file that contains
code is an error.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel convert`."""
    parser = subparsers.add_parser(
        "convert",
        help="turn weights that authors released into a checkpoint",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="AUTHOR_FILE", help="the authors' .pth file")
    parser.add_argument("--model", required=True, help="model of these weights: see aurel models")
    parser.add_argument(
        "--aus",
        required=True,
        help="AUs of a data set (BP4D, DISFA, ...), or a list such as 1,2,4,12L",
    )
    parser.add_argument("--backbone", help="name of the image backbone (default: the paper's)")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the model, such as k=4; may be repeated",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="the .safetensors file"
    )


def run(args: argparse.Namespace) -> int:
    """Convert a file and print the number of AUs and parameters."""
    from aurel.models.author_checkpoint import load_author_checkpoint
    from aurel.models.checkpoint import SAFETENSORS, save_model
    from aurel.models.registry import create_model

    if args.out.suffix != SAFETENSORS:
        raise ValueError(f"--out must end in {SAFETENSORS}, got {args.out}")
    if not args.file.is_file():
        raise FileNotFoundError(f"no file at {args.file}")
    aus = args.aus.split(",") if "," in args.aus else args.aus
    model = create_model(args.model, aus=aus, backbone=args.backbone, **_options(args.option))
    load_author_checkpoint(model, args.file)
    save_model(model, args.out, converted_from=args.file.name)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.model}, {len(model.aus)} AUs, {count / 1e6:.2f} M parameters: {args.out}")
    return 0


def _options(given: Sequence[str]) -> dict[str, Any]:
    """Return the options in ``name=value`` form; a value is read as JSON where it is JSON."""
    options = {}
    for option in given:
        name, equals, text = option.partition("=")
        if not equals:
            raise ValueError(f"--option must be NAME=VALUE, got {option!r}")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = text
    return options

"""`aurel abaw`: write the predictions that the AU challenge of ABAW asks for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_DESCRIPTION = """\
Predict every frame of a list of the ABAW challenge on Aff-Wild2, and write a line for each: the
frame, then 0 or 1 for AU1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25 and 26.

A frame without a picture (no face was found) has the prediction of the last frame of its video with
a picture, or else of the first; in a video without any picture all AUs are 0. Several checkpoints
vote: an AU is present where at least half of the models predict it.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel abaw`."""
    parser = subparsers.add_parser(
        "abaw",
        help="write the predictions that the AU challenge of ABAW asks for",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "frames", type=Path, metavar="FRAMES", help="list of frames, video/00001.jpg on each line"
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        action="append",
        help="checkpoint of the model; repeat the option to let several models vote",
    )
    parser.add_argument(
        "--images", required=True, type=Path, help="folder of the videos' folders of pictures"
    )
    parser.add_argument("--out", required=True, type=Path, help="file of the predictions")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="an AU is present if its probability is at least this (0.5)",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="pictures in a batch (64)")
    parser.add_argument("--num-workers", type=int, default=4, help="processes that read (4)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (auto)")


def run(args: argparse.Namespace) -> int:
    """Write the predictions of all frames; return 0."""
    from aurel.cli.checkpoints import choose_device, load_image_model, load_voters
    from aurel.data.abaw import AFF_WILD2, ChallengeFrames, write_predictions
    from aurel.data.arguments import check_at_least, check_share
    from aurel.data.transforms import EvalTransform

    check_at_least("--batch-size", args.batch_size, 1)
    check_at_least("--num-workers", args.num_workers, 0)
    check_share("--threshold", args.threshold)
    threshold = args.threshold
    loaded: Any
    if len(args.checkpoint) == 1:
        loaded = load_image_model(args.checkpoint[0])
    else:
        loaded, threshold = load_voters(args.checkpoint, threshold), 0.5
    if loaded.model.aus != AFF_WILD2:
        raise ValueError(
            f"checkpoint must be for the AUs {', '.join(AFF_WILD2.names)}, got "
            f"{', '.join(loaded.model.aus.names)}"
        )
    frames = ChallengeFrames(
        args.frames, args.images, EvalTransform(loaded.resize, loaded.image_size)
    )
    device = choose_device(args.device)
    present = _predict(loaded.model.to(device).eval(), frames, args, device) >= threshold
    absent = present.new_zeros(len(AFF_WILD2))
    rows = [absent if item < 0 else present[item] for item in frames.item_of]
    write_predictions(args.out, frames.frames, rows)
    print(f"{len(rows)} frames, {frames.num_without_picture} without a picture: {args.out}")
    return 0


def _predict(model: Any, frames: Any, args: argparse.Namespace, device: Any) -> Tensor:
    """Return the probabilities of all items, (M, 12)."""
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(frames, batch_size=args.batch_size, num_workers=args.num_workers)
    with torch.inference_mode():
        return torch.cat([model(batch["image"].to(device)).probs.cpu() for batch in loader])

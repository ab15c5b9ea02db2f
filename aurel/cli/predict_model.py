"""The model and the face predictor that the options of `aurel predict` choose."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aurel.cli.errors import report
from aurel.cli.face_options import make_detector
from aurel.cli.predict_options import TUNED

if TYPE_CHECKING:
    from aurel.models.base import AUModel
    from aurel.models.voting import VotingEnsemble
    from aurel.vision.face_predictor import FacePredictor
    from aurel.vision.image_model import ImageModel

MAJORITY = 0.5


def load_predictor(args: argparse.Namespace) -> FacePredictor:
    """Return the predictor of `--checkpoint` or `--model`."""
    from aurel.cli import checkpoints
    from aurel.vision import image_model

    tuned = args.threshold == TUNED
    if args.model is not None:
        if tuned:
            raise ValueError("--threshold must be a number with --model, got tuned")
        return make_predictor(args, image_model.load_released_model(args.model), args.threshold)
    if len(args.checkpoint) == 1:
        path = args.checkpoint[0]
        threshold = checkpoints.tuned_thresholds(path) if tuned else args.threshold
        return make_predictor(args, image_model.load_face_model(path), threshold)
    if tuned:
        raise ValueError("--threshold must be a number with several checkpoints, got tuned")
    return make_predictor(args, checkpoints.load_voters(args.checkpoint, args.threshold), MAJORITY)


def make_predictor(
    args: argparse.Namespace,
    loaded: ImageModel[AUModel | VotingEnsemble],
    threshold: float | Sequence[float],
) -> FacePredictor:
    """Return a `FacePredictor` of a model, with the options of the command line."""
    from aurel.cli.checkpoints import choose_device
    from aurel.vision.clip_predictor import ClipPredictor
    from aurel.vision.crop import MARGIN
    from aurel.vision.face_predictor import FacePredictor

    device = choose_device(args.device)
    kind = ClipPredictor if loaded.takes_clips else FacePredictor
    return kind(
        loaded.model,
        loaded.image_size,
        preprocessing=loaded.about,
        detector=make_detector(args),
        margin=loaded.margin(0.0 if args.detector == "whole" else MARGIN),
        threshold=threshold,
        batch_size=args.batch_size,
        device=device,
    )


def warn_of(predictor: FacePredictor) -> None:
    """Print a warning on stderr if the model has not been trained on real faces."""
    from aurel.models import warning_of

    if warning := warning_of(predictor.model):
        report(f"warning: {warning}")


def settings_of(args: argparse.Namespace) -> str:
    """Return a hash of all that the results depend on: options, models and the version."""
    from importlib.metadata import version

    options = ("threshold", "every", "format", "csv_only", "detector", "min_face")
    chosen = {name: getattr(args, name) for name in (*options, "min_confidence", "model")}
    files = {str(path): _hash(path) for path in args.checkpoint or ()}
    content = json.dumps([version("aurel-au"), chosen, sorted(files.values())], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _hash(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

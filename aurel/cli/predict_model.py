"""The model and the face predictor that the options of `aurel predict` choose."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from aurel.cli.errors import report
from aurel.cli.face_options import make_detector

if TYPE_CHECKING:
    from aurel.cli.checkpoints import ImageModel
    from aurel.models.base import AUModel
    from aurel.models.voting import VotingEnsemble
    from aurel.vision.face_predictor import FacePredictor

MAJORITY = 0.5


def load_predictor(args: argparse.Namespace) -> FacePredictor:
    """Return the predictor of `--checkpoint` or `--model`."""
    from aurel.cli import checkpoints

    if args.model is not None:
        return make_predictor(args, _released(args.model), args.threshold)
    if len(args.checkpoint) == 1:
        loaded = checkpoints.load_face_model(args.checkpoint[0])
        return make_predictor(args, loaded, args.threshold)
    return make_predictor(args, checkpoints.load_voters(args.checkpoint, args.threshold), MAJORITY)


def _released(name: str) -> ImageModel[AUModel]:
    from aurel.cli.checkpoints import ImageModel
    from aurel.weights.load import load_weights

    model = load_weights(name)
    size = model.image_size or 224
    return ImageModel(model, size, size)


def make_predictor(
    args: argparse.Namespace, loaded: ImageModel[AUModel | VotingEnsemble], threshold: float
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
        detector=make_detector(args),
        margin=loaded.margin(0.0 if args.detector == "whole" else MARGIN),
        threshold=threshold,
        batch_size=args.batch_size,
        device=device,
    )


def warn_of(predictor: FacePredictor) -> None:
    """Print a warning on stderr if the model has not been trained on real faces."""
    import aurel.models

    warning_of = getattr(aurel.models, "warning_of", None)
    if warning_of is not None and (warning := warning_of(predictor.model)):
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

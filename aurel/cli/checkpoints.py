"""Load one or several checkpoints for a command, and choose its device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aurel.vision.image_model import ImageModel, load_face_model

if TYPE_CHECKING:
    from aurel.models.base import AUModel
    from aurel.models.voting import VotingEnsemble


def load_image_model(path: Path) -> ImageModel[AUModel]:
    """Load a model of single images; see `load_face_model`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or its model takes clips.
    """
    loaded = load_face_model(path)
    if loaded.takes_clips:
        raise ValueError(
            f"checkpoint must hold a model that takes single images, got {path}, whose model takes "
            "clips of several frames"
        )
    return loaded


def tuned_thresholds(path: Path) -> list[float]:
    """Return the threshold of each AU that a checkpoint holds; 0.5 where none is defined.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or one without thresholds.
    """
    from aurel.models.checkpoint import read_checkpoint

    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    checkpoint = read_checkpoint(path)
    stored = checkpoint.metadata.get("thresholds")
    if stored is None:
        raise ValueError(
            f"{path} must hold thresholds, got none; `aurel test --tune` chooses them on the "
            "validation people of its run"
        )
    values = [stored[name] for name in checkpoint.aus.names]
    return [0.5 if math.isnan(value) else value for value in values]


def load_voters(paths: Sequence[Path], threshold: float) -> ImageModel[VotingEnsemble]:
    """Load several checkpoints as one model, in which their models vote.

    Args:
        paths: checkpoints of models that have the same AUs and the same size of images.
        threshold: a model votes for an AU where its probability is at least this.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, a model of clips, or models that differ in AUs or images.
    """
    from aurel.models.voting import VotingEnsemble

    loaded = [load_image_model(path) for path in paths]
    for path, voter in zip(paths, loaded, strict=True):
        for size in ("image_size", "resize"):
            first, here = getattr(loaded[0], size), getattr(voter, size)
            if first != here:
                raise ValueError(
                    f"models that vote must take the same images: {size} is {first} in {paths[0]} "
                    f"and {here} in {path}"
                )
    model = VotingEnsemble([voter.model for voter in loaded], threshold)
    return ImageModel(model, loaded[0].image_size, loaded[0].resize)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or the CPU without one.

    Raises:
        ValueError: an unknown device, or one that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error
    return device

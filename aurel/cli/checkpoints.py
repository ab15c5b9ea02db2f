"""Load a model, and the size of its images, from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

if TYPE_CHECKING:
    from aurel.models.base import AUModel
    from aurel.models.voting import VotingEnsemble

M_co = TypeVar("M_co", bound="AUModel | VotingEnsemble", covariant=True)


@dataclass(frozen=True)
class ImageModel(Generic[M_co]):
    """A model and the images it takes.

    Args:
        model: in eval mode, on the CPU.
        image_size: side of its images in pixels.
        resize: length in pixels of the shorter side of a face crop in training, before the center
            square of `image_size` was cut out.
        takes_clips: whether the model takes clips of such images.
    """

    model: M_co
    image_size: int
    resize: int
    takes_clips: bool = False

    def margin(self, chip_margin: float) -> float:
        """Return the margin with which a crop covers the same part of a face as in training.

        Args:
            chip_margin: margin around the face box in the pictures that training resized and
                center-cropped, as a fraction of the box.
        """
        return ((1 + 2 * chip_margin) * self.image_size / self.resize - 1) / 2


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


def load_face_model(path: Path) -> ImageModel[AUModel]:
    """Load the model in a checkpoint, and the size of its images.

    `image_size` comes from the model's config, or else from training, or else from the paper;
    `resize` comes from training, or else from the published ratio of 256 to 224.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint.
    """
    from aurel.models.checkpoint import load_model, read_checkpoint
    from aurel.models.registry import model_info

    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    checkpoint = read_checkpoint(path)
    metadata = checkpoint.metadata
    model = load_model(path)
    info = model_info(checkpoint.model)
    trained_on = metadata.get("image_size", info.image_size)
    image_size = int(model.image_size or trained_on)
    resize = int(metadata.get("resize", image_size * 256 // 224))
    return ImageModel(model, image_size, resize, info.takes_clips)


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

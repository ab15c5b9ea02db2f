"""Load a model, and the form of its images, from a checkpoint or by the name of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from aurel.data.preprocessing import Preprocessing

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
        about: the preprocessing that came with the weights, or None for `image_size` and `resize`.
    """

    model: M_co
    image_size: int
    resize: int
    takes_clips: bool = False
    about: Preprocessing | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """The input of the model."""
        return self.about or Preprocessing(self.image_size, self.resize)

    def margin(self, chip_margin: float) -> float:
        """Return the margin with which a crop covers the same part of a face as in training.

        Args:
            chip_margin: margin around the face box in the pictures that training resized and
                center-cropped, as a fraction of the box.
        """
        return ((1 + 2 * chip_margin) * self.image_size / self.resize - 1) / 2


def load_face_model(path: Path) -> ImageModel[AUModel]:
    """Load the model in a checkpoint, and the size of its images.

    `image_size` comes from the model's config, or else from training, or else from the paper;
    `resize` comes from training, or else from the published ratio of 256 to 224. Where the
    checkpoint has a `preprocessing`, that is the input of the model.

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
    about = checkpoint.preprocessing and Preprocessing.of(checkpoint.preprocessing)
    return ImageModel(model, image_size, resize, info.takes_clips, about or None)


def load_released_model(name: str) -> ImageModel[AUModel]:
    """Load the model with the released weights of that name.

    Raises:
        ValueError: no such weights.
    """
    from aurel.models.registry import info_of
    from aurel.models.released import load_weights
    from aurel.weights import weights_info

    entry = weights_info(name)
    about = Preprocessing.of(entry.preprocessing or {})
    model = load_weights(name)
    clips = info_of(model).takes_clips
    return ImageModel(model, about.size, about.chip, clips, about)

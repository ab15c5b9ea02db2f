"""Augmentation of images together with their landmarks and labels of left and right AUs.

A sample is an image or, with a leading T in all entries but ``subject``, a clip, of which all
frames are transformed in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aurel.data.arguments import check_share
from aurel.data.imagenet import standardize
from aurel.facs import FLIP_49, AUSet

try:
    from torchvision.transforms.v2 import functional as F
except ImportError as error:
    raise ImportError("aurel.data.transforms needs: pip install 'aurel-au[models]'") from error

if TYPE_CHECKING:
    from PIL import Image

_PER_AU = ("labels", "visible", "intensity")


@dataclass(frozen=True)
class TrainTransform:
    """Resize the shorter side, crop and flip at random, change the colors at random, normalize.

    Random numbers come from torch's global generator, which a DataLoader seeds in each worker.

    Args:
        aus: the AUs of the label columns; a flip exchanges their left and right columns.
        resize: length of the shorter side in pixels before the crop.
        crop: side of the square that is cut out; at most `resize`.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: for a value v, the factor is sampled from [1 - v, 1 + v].

    Raises:
        ValueError: the crop is larger than the image, or a number is out of range.
    """

    aus: AUSet
    resize: int = 256
    crop: int = 224
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __post_init__(self) -> None:
        _check_sizes(self.resize, self.crop)
        for name in ("flip", "brightness", "contrast", "saturation"):
            check_share(name, getattr(self, name))

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        sample = resize(sample, self.resize)
        height, width = sample["image"].shape[-2:]
        top = int(torch.randint(height - self.crop + 1, ()))
        left = int(torch.randint(width - self.crop + 1, ()))
        sample = crop(sample, top, left, self.crop)
        # Else flip and colors, plane by plane, take twice as long.
        sample["image"] = sample["image"].contiguous()
        if torch.rand(()) < self.flip:
            sample = horizontal_flip(sample, self.aus)
        return normalize({**sample, "image": self._jitter(sample["image"])})

    def evaluation(self) -> EvalTransform:
        """Return the transform for validation and test: the same scale, the crop at the center."""
        return EvalTransform(self.resize, self.crop)

    def _jitter(self, image: Tensor) -> Tensor:
        changes = (
            (F.adjust_brightness, self.brightness),
            (F.adjust_contrast, self.contrast),
            (F.adjust_saturation, self.saturation),
        )
        for index in torch.randperm(len(changes)).tolist():
            change, strength = changes[index]
            if strength:
                image = change(image, 1 + strength * float(2 * torch.rand(()) - 1))
        return image


@dataclass(frozen=True)
class EvalTransform:
    """Resize the shorter side, crop the center, normalize.

    Args:
        resize: length of the shorter side in pixels before the crop.
        crop: side of the square that is cut out; at most `resize`.
    """

    resize: int = 256
    crop: int = 224

    def __post_init__(self) -> None:
        _check_sizes(self.resize, self.crop)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        sample = resize(sample, self.resize)
        height, width = sample["image"].shape[-2:]
        top, left = (height - self.crop) // 2, (width - self.crop) // 2
        return normalize(crop(sample, top, left, self.crop))


def resize(sample: dict[str, Any], size: int) -> dict[str, Any]:
    """Scale a sample so that the shorter side of its image is `size` pixels.

    Args:
        sample: ``image`` is a PIL image or a uint8 tensor (3, H, W); ``landmarks`` (L, 2) are in
            pixels, with integers at the centers of pixels.
        size: side in pixels.
    """
    image = sample["image"]
    if isinstance(image, Tensor):
        channels = image.shape[-3]
    else:
        channels = len(image.getbands())
        image = _planes(image)
    height, width = image.shape[-2:]
    scale = size / min(height, width)
    target = [round(height * scale), round(width * scale)]
    if target != [height, width]:
        image = F.resize(image, target, antialias=True)
    changed = {**sample, "image": image[..., :channels, :, :]}
    if "landmarks" in sample:
        ratio = torch.tensor([target[1] / width, target[0] / height])
        changed["landmarks"] = (sample["landmarks"] + 0.5) * ratio - 0.5
    return changed


def _planes(image: Image.Image) -> Tensor:
    """Return a PIL image as a uint8 tensor; RGB as (4, H, W), as it is in memory, 4 bytes a pixel.

    Neither Pillow nor the filter of `resize` has to pack or unpack three bytes a pixel.
    """
    if image.mode != "RGB":
        return F.pil_to_tensor(image)
    pixels = torch.frombuffer(bytearray(image.tobytes("raw", "RGBX")), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 4).permute(2, 0, 1)


def crop(sample: dict[str, Any], top: int, left: int, size: int) -> dict[str, Any]:
    """Crop the square of `size` pixels whose corner is at row `top`, column `left`."""
    changed = {**sample, "image": sample["image"][..., top : top + size, left : left + size]}
    if "landmarks" in sample:
        changed["landmarks"] = sample["landmarks"] - torch.tensor([left, top])
    return changed


def horizontal_flip(sample: dict[str, Any], aus: AUSet) -> dict[str, Any]:
    """Mirror a sample: the image, the 49 landmarks, and the columns of left and right AUs."""
    width = sample["image"].shape[-1]
    changed = {**sample, "image": sample["image"].flip(-1)}
    columns = list(aus.flip_permutation())
    for key in _PER_AU:
        if key in sample:
            changed[key] = sample[key][..., columns]
    if "landmarks" in sample:
        x, y = sample["landmarks"][..., list(FLIP_49), :].unbind(-1)
        changed["landmarks"] = torch.stack((width - 1 - x, y), dim=-1)
    return changed


def normalize(sample: dict[str, Any]) -> dict[str, Any]:
    """Convert the uint8 image to float32, normalized with ImageNet's statistics."""
    return {**sample, "image": standardize(sample["image"])}


def _check_sizes(resize: int, crop: int) -> None:
    if not 1 <= crop <= resize:
        raise ValueError(f"crop must be in 1..{resize} (resize), got {crop}")

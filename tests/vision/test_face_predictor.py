"""Predict with a detector of dark quarters and a model that returns mean colors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("cv2")

from aurel.facs import AUSet
from aurel.output import AUOutput
from aurel.vision.face_detector import Face
from aurel.vision.face_predictor import FacePredictor
from aurel.vision.image import RGBImage


class Red(nn.Module):
    """Returns the mean normalized red and green of a crop."""

    def __init__(self) -> None:
        super().__init__()
        self.aus = AUSet.of([1, 2])
        self.inputs: list[Tensor] = []

    def forward(self, images: Tensor) -> AUOutput:
        assert not self.training and not images.requires_grad
        self.inputs.append(images)
        return AUOutput(images[:, :2].mean((2, 3)), aus=self.aus)


def quarters(image: RGBImage) -> list[Face]:
    """Find a face in each dark quarter of the picture."""
    half = image.shape[0] // 2
    places = [(x, y) for x in (0, half) for y in (0, half)]
    return [Face(x, y, half, half) for x, y in places if image[y + 1, x + 1, 2] < 100]


def picture(*reds: int) -> RGBImage:
    """Return a bright picture with a dark quarter a number, that red."""
    image = np.full((40, 40, 3), 200, dtype=np.uint8)
    for number, red in enumerate(reds):
        x, y = 20 * (number // 2), 20 * (number % 2)
        image[y : y + 20, x : x + 20] = (red, 10, 10)
    return image


def test_faces_come_back_with_their_own_pictures() -> None:
    model = Red()
    predict = FacePredictor(model, 8, detector=quarters, margin=-0.25, batch_size=2)
    results = predict([picture(10, 20, 30), picture(), picture(40)])
    assert [len(result) for result in results] == [3, 0, 1]
    values = [float(p.probs[0]) for result in results for p in result]
    assert values == pytest.approx([(r / 255 - 0.485) / 0.229 for r in (10, 20, 30, 40)], abs=1e-5)
    assert [len(batch) for batch in model.inputs] == [2, 2]
    assert model.inputs[0].shape == (2, 3, 8, 8) and model.inputs[0].dtype == torch.float32


def test_no_pictures_and_no_faces_need_no_model() -> None:
    model = Red()
    predict = FacePredictor(model, 8, detector=quarters)
    assert predict([]) == [] and predict([picture()]) == [[]]
    assert model.inputs == []


def test_a_probability_at_the_threshold_is_present() -> None:
    model = Red()
    model.forward = lambda images: AUOutput(torch.tensor([[0.5, 0.4999]]))  # type: ignore
    ((face,),) = FacePredictor(model, 8, detector=quarters, threshold=0.5)([picture(90)])
    assert face.present.tolist() == [True, False]


@pytest.mark.parametrize(("option", "value"), [("threshold", -0.1), ("batch_size", 0)])
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        FacePredictor(Red(), 8, **{option: value})  # type: ignore[arg-type]

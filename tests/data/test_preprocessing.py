"""The preprocessing that travels with weights."""

from __future__ import annotations

import pytest
import torch

from aurel.data.imagenet import standardize
from aurel.data.preprocessing import Preprocessing


def test_the_default_is_that_of_training() -> None:
    image = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    about = Preprocessing()
    assert (about.size, about.chip) == (224, 256)
    torch.testing.assert_close(about.normalize(image), standardize(image))


def test_other_statistics() -> None:
    about = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0))
    white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    assert about.normalize(white).flatten().tolist() == pytest.approx([1.0, 2.0, 0.5])


def test_values_of_a_file() -> None:
    about = Preprocessing.of(
        {"size": 112, "alignment": "mtcnn", "mean": [0, 0, 0], "std": [1, 1, 1]}
    )
    assert about == Preprocessing(112, 128, "mtcnn", (0, 0, 0), (1, 1, 1))
    assert Preprocessing.of({"size": 224, "alignment": "box"}).chip == 224
    assert Preprocessing.of({"size": 224, "chip": 224}).chip == 224
    assert Preprocessing.of({}) == Preprocessing()


@pytest.mark.parametrize(
    "values", [{"size": 0}, {"chip": 0}, {"std": [1, 1, 0]}, {"mean": [1, 1]}, {"sizes": 3}]
)
def test_bad_values_are_named(values: dict[str, object]) -> None:
    (name,) = values
    with pytest.raises(ValueError, match=f"must .*{name}|{name} must"):
        Preprocessing.of(values)

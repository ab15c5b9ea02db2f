"""The mean face of the training data, near which a landmark predictor starts."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.utils.data import Subset

from aurel.data.base import AUDataset
from aurel.layers.landmark_predictor import LandmarkPredictor
from aurel.training.data_module import Splits
from aurel.training.datasets import without_augmentation

FACES = 100
"""Number of training faces of which the landmarks are averaged."""


def start_from_mean_face(predictor: LandmarkPredictor, splits: Splits) -> None:
    """Initialize `predictor` near the mean landmarks of the training faces.

    They are averaged over up to 100 faces at equal distances in the list, cut out as in a test.
    Without landmarks in the data the predictor stays as it is.
    """
    train = splits.train
    data = cast(Any, train.dataset) if isinstance(train, Subset) else None
    if not isinstance(train, Subset) or not isinstance(data, AUDataset) or not len(train):
        return
    plain = cast(Any, without_augmentation(data))
    step = max(len(train) // FACES, 1)
    faces = []
    for index in train.indices[::step][:FACES]:
        sample = plain[index]
        if "landmarks" not in sample:
            return
        height, width = sample["image"].shape[-2:]
        faces.append(sample["landmarks"] / torch.tensor([width, height]))
    mean = torch.stack(faces).nanmean(0)
    if mean.isfinite().all():
        predictor.reset_parameters(mean)

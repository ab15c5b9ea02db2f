"""Data sets of synthetic faces: single images, and clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurel.data.arguments import check_at_least, check_share
from aurel.data.base import AUDataset, Sample, Transform
from aurel.data.imagenet import standardize
from aurel.data.synthetic.actions import COLUMN, Actions
from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.faces import render
from aurel.data.synthetic.geometry import face_shape
from aurel.data.synthetic.label_model import LabelWorld, label_world
from aurel.data.synthetic.landmarks import TO_49
from aurel.data.synthetic.occluders import hidden_units
from aurel.data.synthetic.plan import Plan, join_plans, plan_clip, plan_images
from aurel.data.synthetic.statistics import statistics_for
from aurel.facs import AUSet, AUSpec


class SyntheticFaces(AUDataset):
    r"""Procedural faces with exact labels, intensities, landmarks and visibility of AUs.

    Labels are sampled from a pairwise model of the label statistics of BP4D, DISFA or EmotioNet
    (the smallest of them that contains `aus`, else their union), so that AUs occur together as in
    these data. Item k of a subject depends on (seed, subject, k) and on the options only. Scores on
    these faces cannot be compared with scores on recordings.

    Args:
        aus: the label columns: "BP4D", "DISFA", "EmotioNet", or AUs among 1, 2, 4, 5, 6, 7, 9,
            10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43; both sides together.
        subjects: numbers of the people; different numbers are different people.
        per_subject: number of images of each subject.
        size: side of an image in pixels.
        seed: seed of all random numbers.
        coupling: factor of the couplings between labels at constant rates: 0 independent, 1 as in
            the data, 2 doubled.
        occlusion: share of images in which a part of the face is covered.
        strength: strength of the variation in pose, light and camera; 0 is frontal, evenly lit and
            sharp.
        faintest: lowest intensity of a present AU.
        transform: function from a sample with a uint8 image (3, S, S) to a sample
            (`aurel.data.transforms`); by default the image is only normalized.

    Items are dicts: ``image`` float32 (3, S, S), normalized with ImageNet's statistics; ``labels``
    float32 (N,) in {0, 1}; ``landmarks`` float32 (49, 2), pixels (x, y); ``visible`` bool (N,),
    False where all evidence of the AU is covered; ``intensity`` float32 (N,) in 0..1; ``subject``
    int.

    Raises:
        ValueError: an AU that the faces do not show, or a number out of range.
    """

    def __init__(
        self,
        aus: AUSpec = "BP4D",
        subjects: Iterable[int] = range(30),
        per_subject: int = 40,
        size: int = 96,
        *,
        seed: int = 0,
        coupling: float = 1.0,
        occlusion: float = 0.9,
        strength: float = 1.0,
        faintest: float = 0.2,
        transform: Transform | None = None,
    ) -> None:
        self.aus = _checked_aus(aus)
        self.transform = transform
        world = _world(self.aus, coupling)
        self.label_world = world.name
        people = _checked_people(subjects, per_subject, size, seed, occlusion, strength, faintest)
        plan = join_plans(
            [
                plan_images(world, seed, subject, per_subject, occlusion, strength, faintest)
                for subject in people
            ]
        )
        self.subjects = [subject for subject in people for _ in range(per_subject)]
        content = _Content.of(plan, self.aus, world, size)
        self.images = torch.from_numpy(content.images)
        self.labels = torch.from_numpy(content.labels)
        self.visible = torch.from_numpy(content.visible)
        self.intensities = torch.from_numpy(content.intensities)
        self.landmarks68 = torch.from_numpy(content.landmarks)
        self.landmarks = self.landmarks68[:, TO_49.tolist()]

    def __getitem__(self, index: int) -> Sample:
        return _sample(self, index, self.transform)


class SyntheticClips(AUDataset):
    """Clips of synthetic faces, in which labels last as long as in recordings.

    Every frame has the joint distribution of single images; intensities change smoothly, and pose,
    light and gaze drift.

    Args:
        aus, subjects, size, seed, coupling, occlusion, strength, faintest, transform: as for
            `SyntheticFaces`.
        per_subject: number of clips of each subject.
        frames: length T of a clip, at 25 frames per second.
        speed: factor of the rate at which labels change; 3 to 6 for changes in short clips.

    Items are those of `SyntheticFaces` with a leading T in ``image``, ``labels``, ``landmarks``,
    ``visible`` and ``intensity``.

    Raises:
        ValueError: an AU that the faces do not show, or a number out of range.
    """

    def __init__(
        self,
        aus: AUSpec = "BP4D",
        subjects: Iterable[int] = range(30),
        per_subject: int = 2,
        frames: int = 16,
        size: int = 96,
        *,
        seed: int = 0,
        coupling: float = 1.0,
        occlusion: float = 0.4,
        strength: float = 1.0,
        faintest: float = 0.2,
        speed: float = 1.0,
        transform: Transform | None = None,
    ) -> None:
        self.aus = _checked_aus(aus)
        self.transform = transform
        world = _world(self.aus, coupling)
        self.label_world = world.name
        check_at_least("frames", frames, 1)
        if speed <= 0:
            raise ValueError(f"speed must be above 0, got {speed}")
        people = _checked_people(subjects, per_subject, size, seed, occlusion, strength, faintest)
        self.subjects = [subject for subject in people for _ in range(per_subject)]
        plan = join_plans(
            [
                plan_clip(
                    world, seed, subject, clip, frames, occlusion, strength, faintest, speed
                )
                for subject in people
                for clip in range(per_subject)
            ]
        )  # fmt: skip
        content = _Content.of(plan, self.aus, world, size)

        def clips(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).unflatten(0, (-1, frames))

        self.images = clips(content.images)
        self.labels = clips(content.labels)
        self.visible = clips(content.visible)
        self.intensities = clips(content.intensities)
        self.landmarks68 = clips(content.landmarks)
        self.landmarks = self.landmarks68[:, :, TO_49.tolist()]

    def label_runs(self, items: Sequence[int]) -> list[Tensor]:
        """Return the labels of each of these clips, (T, N)."""
        return list(self.labels[list(items)])

    def __getitem__(self, index: int) -> Sample:
        return _sample(self, index, self.transform)


@dataclass(frozen=True)
class _Content:
    """The arrays of a data set, with a row for each picture."""

    images: NDArray[np.uint8]
    labels: Array
    visible: NDArray[np.bool_]
    intensities: Array
    landmarks: Array

    @classmethod
    def of(cls, plan: Plan, aus: AUSet, world: LabelWorld, size: int) -> _Content:
        columns = [world.aus.index(number) for number in aus.numbers]
        units = [COLUMN[number] for number in aus.numbers]
        shape = face_shape(plan.people, Actions(plan.actions), plan.capture)
        faces = render(plan.people, plan.actions, plan.capture, plan.occluders, size)
        return cls(
            images=faces.images,
            labels=plan.labels[:, columns].astype(np.float32),
            visible=~hidden_units(plan.occluders, plan.people, shape)[:, units],
            intensities=plan.actions[:, units].mean(-1),
            landmarks=faces.landmarks,
        )


def _sample(
    data: SyntheticFaces | SyntheticClips,
    index: int,
    transform: Transform | None,
) -> Sample:
    sample = {
        "image": data.images[index],
        "labels": data.labels[index],
        "landmarks": data.landmarks[index],
        "visible": data.visible[index],
        "intensity": data.intensities[index],
        "subject": data.subjects[index],
    }
    if transform is not None:
        return transform(sample)
    return {**sample, "image": standardize(data.images[index])}


def _world(aus: AUSet, coupling: float) -> LabelWorld:
    return label_world(statistics_for(aus.numbers).name, coupling)


def _checked_aus(aus: AUSpec) -> AUSet:
    chosen = AUSet.of(aus)
    if not chosen.named:
        raise ValueError("aus must be named AUs, got an unnamed set")
    if any(chosen.sides):
        raise ValueError(
            f"aus must be of both sides together, got {', '.join(chosen.names)}: "
            "the synthetic faces have no lateral labels"
        )
    return chosen


def _checked_people(
    subjects: Iterable[int],
    per_subject: int,
    size: int,
    seed: int,
    occlusion: float,
    strength: float,
    faintest: float,
) -> Sequence[int]:
    people = [int(subject) for subject in subjects]
    if not people or min(people) < 0:
        raise ValueError(f"subjects must be one or more numbers from 0, got {people[:5]}")
    check_at_least("per_subject", per_subject, 1)
    check_at_least("size", size, 32)
    check_at_least("seed", seed, 0)
    check_share("occlusion", occlusion)
    check_share("strength", strength)
    check_share("faintest", faintest)
    return people

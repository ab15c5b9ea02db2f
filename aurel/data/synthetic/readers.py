"""Readers of the synthetic faces for recipes: images, clips and triplets of a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from aurel.data.base import Transform
from aurel.data.registry import NoSuchPart, Part
from aurel.data.synthetic.dataset import SyntheticClips, SyntheticFaces
from aurel.data.triplets import SyntheticTriplets

FOLDS = 3
AUS = "BP4D"


def synthetic_people(part: Part) -> list[int]:
    """Return the people of a part; fold f of 1 to 3 tests every third of them.

    Raises:
        NoSuchPart: the part is "val", which does not exist.
    """
    if part.split == "val":
        raise NoSuchPart("the synthetic faces have no val part, only train and test")
    assert part.fold is not None
    people = range(part.synthetic.subjects)
    return [p for p in people if (p % FOLDS == part.fold - 1) == (part.split == "test")]


def synthetic_images(part: Part) -> SyntheticFaces:
    """Return the faces of a part as single images."""
    options = asdict(part.synthetic)
    del options["subjects"], options["speed"]
    return SyntheticFaces(part.aus or AUS, _people(part), **options)


def synthetic_clips(part: Part) -> SyntheticClips:
    """Return the faces of a part as clips.

    Raises:
        ValueError: the part has context frames, or segments.
    """
    if part.context:
        raise ValueError(
            f"data.context must be 0, got {part.context}: an embedded clip is a whole video"
        )
    if part.segment is not None:
        raise ValueError(
            f"data.segment must be null, got {part.segment}: an embedded clip is a whole video"
        )
    assert part.frames is not None
    options = asdict(part.synthetic)
    del options["subjects"]
    return SyntheticClips(part.aus or AUS, _people(part), frames=part.frames, **options)


def synthetic_triplets(part: Part, transform: Transform, seed: int) -> SyntheticTriplets:
    """Return triplets of the faces of a part; `seed` is that of the triplets."""
    return SyntheticTriplets(synthetic_images(part), transform=transform, seed=seed)


def _people(part: Part) -> Sequence[int]:
    return synthetic_people(part) if part.people is None else part.people

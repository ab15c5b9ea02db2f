"""Options of the synthetic faces in a recipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SyntheticOptions:
    """Options of the synthetic faces, see `aurel.data.synthetic.dataset`.

    Args:
        subjects: number of people; fold f of 1 to 3 tests every third of them.
        per_subject: number of images, or clips, of each subject.
        size: side of the rendered images in pixels, before the crop.
        coupling: factor of the couplings between labels: 0 independent, 1 as in the data.
        occlusion: share of images or clips in which a part of the face is covered.
        strength: strength of the variation in pose, light and camera.
        faintest: lowest intensity of a present AU.
        seed: seed of all random numbers; other seeds give other people.
        speed: factor of the rate at which labels of clips change; 1 is that of recordings.
    """

    subjects: int = 100
    per_subject: int = 40
    size: int = 256
    coupling: float = 1.0
    occlusion: float = 0.9
    strength: float = 1.0
    faintest: float = 0.2
    seed: int = 0
    speed: float = 1.0

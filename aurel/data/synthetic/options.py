"""Options of the synthetic faces, as a recipe gives them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SyntheticOptions:
    """The embedded faces, see `aurel.data.synthetic.dataset`.

    Args:
        subjects: number of people; fold f of 1 to 3 tests every third of them.
        per_subject: images of each, or clips.
        size: pixels a side as rendered, before the crop.
        coupling: factor on the couplings between labels: 0 independent, 1 as in the data.
        occlusion: share of images or clips in which something covers a part of the face.
        strength: of the variation in pose, light and camera.
        faintest: lowest intensity of a present AU.
        seed: of everything in them; other seeds are other people.
        speed: of clips, factor on how often labels change; 1 is that of recordings.
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

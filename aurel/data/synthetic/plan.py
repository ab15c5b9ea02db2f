"""Labels, intensities, people, conditions and occluders of pictures, sampled from a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from aurel.data.synthetic import capture as captures
from aurel.data.synthetic import intensity as intensities
from aurel.data.synthetic import occluders as occlusions
from aurel.data.synthetic.actions import COLUMN
from aurel.data.synthetic.arrays import Array, DoubleArray, join, rows
from aurel.data.synthetic.capture import Capture, capture_conditions
from aurel.data.synthetic.identity import Identity, person
from aurel.data.synthetic.label_model import Labels, LabelWorld
from aurel.data.synthetic.occluders import Occluders, sample_occluders

_LABELS, _INTENSITIES, _CAPTURE, _OCCLUDERS, _CLIPS = 201, 202, 203, 204, 303
_RUN_IN = 40
_DRIFTS = {
    "roll": 0.05, "shift_x": 0.03, "shift_y": 0.03, "scale": 0.025, "yaw": 0.35, "pitch": 0.30,
    "gaze_x": 0.40, "gaze_y": 0.20, "gain": 0.03,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All values that determine n pictures.

    Args:
        labels: 1 present, 0 absent, of every unit of the label model, (n, M).
        people: n rows.
        actions: intensities, (n, 18, 2).
        capture: n rows.
        occluders: n rows.
    """

    labels: Labels
    people: Identity
    actions: Array
    capture: Capture
    occluders: Occluders


def plan_images(
    world: LabelWorld,
    seed: int,
    subject: int,
    count: int,
    occlusion: float,
    strength: float,
    faintest: float,
) -> Plan:
    """Return the plan of the images of a subject; each random table has a stream of its own."""

    def numbers(stream: int, columns: int) -> DoubleArray:
        return np.random.default_rng([seed, stream, subject]).random((count, columns))

    labels = world.sample(numbers(_LABELS, 1)[:, 0])
    actions = intensities.sample_intensities(
        labels, world.aus, numbers(_INTENSITIES, intensities.NUMBERS), faintest
    )
    return Plan(
        labels=labels,
        people=rows(person(seed, subject), np.zeros(count, int)),
        actions=actions,
        capture=capture_conditions(numbers(_CAPTURE, captures.NUMBERS), strength),
        occluders=sample_occluders(numbers(_OCCLUDERS, occlusions.NUMBERS), occlusion),
    )


def plan_clip(
    world: LabelWorld,
    seed: int,
    subject: int,
    clip: int,
    frames: int,
    occlusion: float,
    strength: float,
    faintest: float,
    speed: float,
) -> Plan:
    """Return the plan of a clip, cut from a longer one so that its ends are like its middle."""
    rng = np.random.default_rng([seed, _CLIPS, subject, clip])
    inside = slice(_RUN_IN, _RUN_IN + frames)
    labels = world.sample_clip(frames + 2 * _RUN_IN, rng, speed)
    all_present = np.ones((1, len(world.aus)), np.uint8)
    apex = intensities.sample_intensities(
        all_present, world.aus, rng.random((1, intensities.NUMBERS)), faintest
    )
    units = [COLUMN[au] for au in world.aus]
    actions = np.zeros((frames, *apex.shape[1:]), np.float32)
    wave = 1 + 0.25 * intensities.drift(rng, frames, len(units), 12)
    envelope = intensities.onset_apex_offset(labels)[inside] * wave
    actions[:, units] = np.clip(envelope[..., None] * apex[:, units], 0, 1)
    still = capture_conditions(rng.random((1, captures.NUMBERS)), 0.7 * strength)
    occluder = sample_occluders(rng.random((1, occlusions.NUMBERS)), occlusion)
    return Plan(
        labels=labels[inside],
        people=rows(person(seed, subject), np.zeros(frames, int)),
        actions=actions,
        capture=_moving(rows(still, np.zeros(frames, int)), rng, strength),
        occluders=_entering(rows(occluder, np.zeros(frames, int)), rng),
    )


def _moving(capture: Capture, rng: np.random.Generator, strength: float) -> Capture:
    """Return conditions whose pose, light and gaze drift, with new noise in every frame."""
    frames = len(capture.roll)
    columns = {column.name: getattr(capture, column.name) for column in fields(capture)}
    waves = intensities.drift(rng, frames, len(_DRIFTS), 20)
    for index, (name, reach) in enumerate(_DRIFTS.items()):
        columns[name] = columns[name] + (reach * strength * waves[:, index]).astype(np.float32)
    for name in ("noise_x", "noise_y"):
        columns[name] = (rng.random(frames) * 511.99).astype(np.float32)
    return Capture(**columns)


def _entering(occluders: Occluders, rng: np.random.Generator) -> Occluders:
    """Return occluders, half of which appear only after some frames."""
    entry, is_late = rng.random(2)
    kind = occluders.kind.copy()
    if is_late < 0.5:
        kind[: int(entry * len(kind))] = 0
    return Occluders(kind, occluders.color, occluders.form, occluders.zones)


def join_plans(plans: list[Plan]) -> Plan:
    """Return one plan with the pictures of all of them."""
    return Plan(
        labels=np.concatenate([plan.labels for plan in plans]),
        people=join([plan.people for plan in plans]),
        actions=np.concatenate([plan.actions for plan in plans]),
        capture=join([plan.capture for plan in plans]),
        occluders=join([plan.occluders for plan in plans]),
    )

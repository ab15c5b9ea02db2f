"""The facial action units of FACS: number, name, muscles, region of the face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Region = Literal["upper", "middle", "lower"]
REGIONS: tuple[Region, ...] = ("upper", "middle", "lower")


@dataclass(frozen=True)
class ActionUnit:
    """One action unit (AU) of the Facial Action Coding System.

    Args:
        number: its number in FACS.
        name: its name in English.
        region: third of the face in which it is visible.
        muscles: the muscles that contract or relax, after FACS (Ekman, Friesen and Hager 2002);
            empty where FACS describes an action (of the tongue, the cheeks) without naming any.
    """

    number: int
    name: str
    region: Region
    muscles: tuple[str, ...]


# Regions of the AUs of BP4D and DISFA follow the authors of MDHR (AU7 is upper, AU10 is lower);
# the others are placed by where they are visible.
_TABLE: tuple[tuple[int, str, Region, str], ...] = (
    (1, "Inner brow raiser", "upper", "frontalis, pars medialis"),
    (2, "Outer brow raiser", "upper", "frontalis, pars lateralis"),
    (
        4,
        "Brow lowerer",
        "upper",
        "depressor glabellae; depressor supercilii; corrugator supercilii",
    ),
    (5, "Upper lid raiser", "upper", "levator palpebrae superioris; superior tarsal muscle"),
    (6, "Cheek raiser", "middle", "orbicularis oculi, pars orbitalis"),
    (7, "Lid tightener", "upper", "orbicularis oculi, pars palpebralis"),
    (8, "Lips toward each other", "lower", "orbicularis oris"),
    (9, "Nose wrinkler", "middle", "levator labii superioris alaeque nasi"),
    (10, "Upper lip raiser", "lower", "levator labii superioris, caput infraorbitalis"),
    (11, "Nasolabial deepener", "middle", "zygomaticus minor"),
    (12, "Lip corner puller", "lower", "zygomaticus major"),
    (13, "Sharp lip puller", "lower", "levator anguli oris"),
    (14, "Dimpler", "lower", "buccinator"),
    (15, "Lip corner depressor", "lower", "depressor anguli oris"),
    (16, "Lower lip depressor", "lower", "depressor labii inferioris"),
    (17, "Chin raiser", "lower", "mentalis"),
    (18, "Lip pucker", "lower", "incisivii labii superioris; incisivii labii inferioris"),
    (19, "Tongue show", "lower", ""),
    (20, "Lip stretcher", "lower", "risorius; platysma"),
    (21, "Neck tightener", "lower", "platysma"),
    (22, "Lip funneler", "lower", "orbicularis oris"),
    (23, "Lip tightener", "lower", "orbicularis oris"),
    (24, "Lip pressor", "lower", "orbicularis oris"),
    (25, "Lips part", "lower", "depressor labii inferioris; mentalis; orbicularis oris"),
    (26, "Jaw drop", "lower", "masseter; temporalis; internal pterygoid"),
    (27, "Mouth stretch", "lower", "pterygoids; digastric"),
    (28, "Lip suck", "lower", "orbicularis oris"),
    (29, "Jaw thrust", "lower", ""),
    (30, "Jaw sideways", "lower", ""),
    (31, "Jaw clencher", "lower", "masseter"),
    (32, "Lip bite", "lower", ""),
    (33, "Cheek blow", "lower", ""),
    (34, "Cheek puff", "lower", ""),
    (35, "Cheek suck", "lower", ""),
    (36, "Tongue bulge", "lower", ""),
    (37, "Lip wipe", "lower", ""),
    (38, "Nostril dilator", "middle", "nasalis, pars alaris"),
    (39, "Nostril compressor", "middle", "nasalis, pars transversa; depressor septi nasi"),
    (41, "Lid droop", "upper", "levator palpebrae superioris"),
    (42, "Slit", "upper", "orbicularis oculi, pars palpebralis"),
    (
        43,
        "Eyes closed",
        "upper",
        "levator palpebrae superioris; orbicularis oculi, pars palpebralis",
    ),
    (44, "Squint", "upper", "orbicularis oculi, pars palpebralis"),
    (45, "Blink", "upper", "levator palpebrae superioris; orbicularis oculi, pars palpebralis"),
    (46, "Wink", "upper", "orbicularis oculi, pars palpebralis"),
)

ACTION_UNITS: Mapping[int, ActionUnit] = MappingProxyType(
    {
        number: ActionUnit(number, name, region, tuple(filter(None, muscles.split("; "))))
        for number, name, region, muscles in _TABLE
    }
)
"""Action units and descriptors of the face by FACS number.

Codes for the head, the direction of the eyes and gross behavior (40, 50 and above) are left out.
"""


def action_unit(number: int) -> ActionUnit:
    """Return the AU of that number.

    Raises:
        ValueError: FACS has no AU of that number.
    """
    try:
        return ACTION_UNITS[number]
    except KeyError:
        raise ValueError(
            f"number must be a facial AU of FACS ({_ranges(list(ACTION_UNITS))}), got {number}"
        ) from None


def _ranges(numbers: list[int]) -> str:
    """Return sorted numbers as text, such as "1-2, 4-39, 41-46"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)

"""Landmark schemes, and the center of each AU relative to the landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from aurel.facs.sets import AUSet, AUSpec

NUM_LANDMARKS = 49

LANDMARKS_68_TO_49: tuple[int, ...] = (*range(17, 60), *range(61, 64), *range(65, 68))
"""Points of the 68-point scheme in the order of the 49: no jaw (0-16), no inner mouth corners."""

LANDMARKS_66_TO_49: tuple[int, ...] = tuple(range(17, 66))
"""Points of the 66-point scheme in the order of the 49: no jaw; it has no inner mouth corners."""

LEFT_EYE: tuple[int, ...] = tuple(range(19, 25))
RIGHT_EYE: tuple[int, ...] = tuple(range(25, 31))
"""Outlines of the eyes in the 49-point scheme; left means left in the image."""

INNER_EYE_CORNERS: tuple[int, int] = (22, 25)
"""Their distance is the unit of the offsets of AU centers."""

FLIP_49: tuple[int, ...] = (
    *(9, 8, 7, 6, 5, 4, 3, 2, 1, 0),  # brows
    *(10, 11, 12, 13, 18, 17, 16, 15, 14),  # nose
    *(28, 27, 26, 25, 30, 29, 22, 21, 20, 19, 24, 23),  # eyes
    *(37, 36, 35, 34, 33, 32, 31, 42, 41, 40, 39, 38),  # outer lip
    *(45, 44, 43, 48, 47, 46),  # inner lip
)
"""Point that each point becomes in a mirrored image: x -> W - 1 - x, then this permutation."""


@dataclass(frozen=True)
class AUCenter:
    """The two centers of an AU: two landmarks, moved down by `offset` inner-eye distances.

    Args:
        points: two landmarks of the 49-point scheme, left then right in the image (for the lips:
            upper then lower).
        offset: in units of the distance between the inner eye corners; y grows downwards.
    """

    points: tuple[int, int]
    offset: float = 0.0

    def __post_init__(self) -> None:
        for point in self.points:
            if not 0 <= point < NUM_LANDMARKS:
                raise ValueError(f"points must be landmarks in 0..{NUM_LANDMARKS - 1}, got {point}")


_LIP_CORNERS = AUCenter((31, 37))
_LIPS = AUCenter((34, 40))
_CHIN = AUCenter((39, 41), 1 / 2)

AU_CENTERS: Mapping[int, AUCenter] = MappingProxyType(
    {
        1: AUCenter((4, 5), -1 / 2),
        2: AUCenter((1, 8), -1 / 3),
        4: AUCenter((2, 7), 1 / 3),
        6: AUCenter((24, 29), 1.0),
        7: AUCenter((21, 26)),
        9: AUCenter((15, 17), -1 / 2),
        10: AUCenter((43, 45)),
        12: _LIP_CORNERS,
        14: _LIP_CORNERS,
        15: _LIP_CORNERS,
        17: _CHIN,
        23: _LIPS,
        24: _LIPS,
        25: _LIPS,
        26: _CHIN,
    }
)
"""Center rules of the SACL paper, Table 2 (all of it)."""


@dataclass(frozen=True)
class AUCenterRules:
    """The regions of interest of an AU set: P pairs of centers, 2P graph nodes.

    Args:
        points: landmarks of each pair, P entries.
        offsets: downward shift of each pair in units of the inner-eye distance, P entries.
        au_nodes: the two nodes of each AU, N entries; node 2p is the first point of pair p, node
            2p + 1 the second.
    """

    points: tuple[tuple[int, int], ...]
    offsets: tuple[float, ...]
    au_nodes: tuple[tuple[int, int], ...]

    @property
    def num_nodes(self) -> int:
        """Number of graph nodes, 2P."""
        return 2 * len(self.points)


def au_center_rules(
    aus: AUSpec, extra_rules: Mapping[int, AUCenter] | None = None
) -> AUCenterRules:
    """Return the distinct pairs of AU centers, in order of first appearance, and those of each AU.

    AUs with the same rule share their nodes (12, 14 and 15; 17 and 26; 23, 24 and 25), so BP4D has
    9 pairs and 18 nodes, DISFA 8 and 16 (SACL paper, section 3.4 and Table 2). The rule of an AU
    holds for its lateral forms too.

    Args:
        aus: the AU set, anything `AUSet.of` takes.
        extra_rules: rules by AU number for AUs that the paper's table lacks, or to replace its own.

    Raises:
        ValueError: an AU has no rule; the message names all that have none.
    """
    aus = AUSet.of(aus)
    aus.require_named("au_center_rules")
    rules = {**AU_CENTERS, **(extra_rules or {})}
    missing = [name for name, n in zip(aus.names, aus.numbers, strict=True) if n not in rules]
    if missing:
        raise ValueError(
            f"aus must have a center rule for each AU, got none for {', '.join(missing)} of the "
            f"AU set {aus.name}: pass extra_rules="
            "{number: AUCenter(points=(left, right), offset=inner-eye distances downwards)}"
        )
    pairs = list(dict.fromkeys(rules[number] for number in aus.numbers))
    first = [2 * pairs.index(rules[number]) for number in aus.numbers]
    return AUCenterRules(
        points=tuple(pair.points for pair in pairs),
        offsets=tuple(pair.offset for pair in pairs),
        au_nodes=tuple((node, node + 1) for node in first),
    )

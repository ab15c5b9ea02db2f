"""Groups of AUs by region of the face, and the combination labels of the groups (MDHR)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aurel.facs.sets import AU_SETS, AUSet, AUSpec
from aurel.facs.units import REGIONS, Region

MAX_GROUP = 4
"""A group of n AUs needs a head of 2^n classes, so larger regions are split."""

REGION_SEVENTHS: dict[Region, tuple[int, int]] = {
    "upper": (0, 3),
    "middle": (2, 5),
    "lower": (4, 7),
}
"""First and last row of each region in sevenths of the feature map's height (MDHR, section 3.2)."""


@dataclass(frozen=True)
class RegionGroup:
    """AUs that share one slice of the feature map and one combination head.

    Args:
        name: the name of the group.
        region: the slice, "upper", "middle" or "lower".
        numbers: FACS numbers.

    Raises:
        ValueError: an unknown region, or no AU.
    """

    name: str
    region: Region
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.region not in REGION_SEVENTHS:
            raise ValueError(
                f"region must be one of {', '.join(REGION_SEVENTHS)}, got {self.region!r} in group "
                f"{self.name!r}"
            )
        if not self.numbers:
            raise ValueError(f"numbers must hold at least one AU, got none in group {self.name!r}")


# The paper has three regions; the authors' code splits BP4D's lower face into two groups.
_BP4D_GROUPS = (
    RegionGroup("upper", "upper", (1, 2, 4, 7)),
    RegionGroup("middle", "middle", (6,)),
    RegionGroup("lower1", "lower", (12, 14, 15)),
    RegionGroup("lower2", "lower", (10, 17, 23, 24)),
)
_DISFA_GROUPS = (
    RegionGroup("upper", "upper", (1, 2, 4)),
    RegionGroup("middle", "middle", (6, 9)),
    RegionGroup("lower", "lower", (12, 25, 26)),
)


@dataclass(frozen=True)
class RegionPlan:
    """Groups of the columns of an AU set.

    Args:
        names: name of each of the G groups.
        regions: region of the face of each group, G entries.
        columns: columns of each group, the first being the most significant bit of its label.
    """

    names: tuple[str, ...]
    regions: tuple[Region, ...]
    columns: tuple[tuple[int, ...], ...]

    @property
    def num_classes(self) -> tuple[int, ...]:
        """Number of combinations of each group, 2^n."""
        return tuple(2 ** len(columns) for columns in self.columns)

    @property
    def group_of(self) -> tuple[int, ...]:
        """Group of each column, N entries."""
        group = {c: g for g, columns in enumerate(self.columns) for c in columns}
        return tuple(group[column] for column in range(len(group)))

    @property
    def region_of(self) -> tuple[int, ...]:
        """Region of the face of each column: 0 upper, 1 middle, 2 lower, N entries."""
        return tuple(REGIONS.index(self.regions[group]) for group in self.group_of)


def region_plan(aus: AUSpec, table: Sequence[RegionGroup] | None = None) -> RegionPlan:
    """Return the AUs of a set grouped by region of the face.

    BP4D (and BP4D+) has the authors' four groups, DISFA their three; note that AU7 is upper and
    AU10 lower. Other sets are grouped by the regions of `aurel.facs.ACTION_UNITS`, in column order;
    regions with more than 4 columns are split evenly.

    Args:
        aus: the AU set, anything `AUSet.of` takes.
        table: groups to use instead; each AU of the set is in exactly one.

    Raises:
        ValueError: an AU is in no group or in two, or a group has an AU that is not in the set.
    """
    aus = AUSet.of(aus)
    aus.require_named("region_plan")
    if table is None:
        for known, groups in (("BP4D", _BP4D_GROUPS), ("DISFA", _DISFA_GROUPS)):
            if not any(aus.sides) and set(aus.numbers) == set(AU_SETS[known].numbers):
                table = groups
    return _default_plan(aus) if table is None else _plan_from(aus, table)


def _plan_from(aus: AUSet, table: Sequence[RegionGroup]) -> RegionPlan:
    listed = [number for group in table for number in group.numbers]
    for number in sorted({*listed, *aus.numbers}):
        if number not in aus.numbers:
            raise ValueError(f"table must name AUs of the AU set {aus.name}, got AU{number:02d}")
        if number not in listed:
            raise ValueError(
                f"table must hold each AU once, got AU{number:02d} 0 times: add a group with its "
                f"region of the face, such as ('mouth', 'lower', ({number},))"
            )
        if listed.count(number) > 1:
            raise ValueError(
                f"table must hold each AU once, got AU{number:02d} {listed.count(number)} times"
            )
    return RegionPlan(
        names=tuple(group.name for group in table),
        regions=tuple(group.region for group in table),
        columns=tuple(
            tuple(c for number in group.numbers for c in _columns(aus, number)) for group in table
        ),
    )


def _columns(aus: AUSet, number: int) -> list[int]:
    return [column for column, n in enumerate(aus.numbers) if n == number]


def _default_plan(aus: AUSet) -> RegionPlan:
    names: list[str] = []
    regions: list[Region] = []
    columns: list[tuple[int, ...]] = []
    for region in REGIONS:
        members = [column for column, r in enumerate(aus.regions()) if r == region]
        parts = -(-len(members) // MAX_GROUP)
        for part in range(parts):
            start, stop = (len(members) * p // parts for p in (part, part + 1))
            names.append(region if parts == 1 else f"{region}{part + 1}")
            regions.append(region)
            columns.append(tuple(members[start:stop]))
    return RegionPlan(tuple(names), tuple(regions), tuple(columns))


def region_labels(labels: Tensor, plan: RegionPlan) -> Tensor:
    r"""Return the combination label of each group of AUs.

    .. math:: c_g = \sum_{m=1}^{n_g} 2^{n_g - m} y_{g_m}

    where :math:`g_m` is the m-th column of group g: the first is the most significant bit.

    Args:
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        plan: the groups, from `region_plan`.

    Returns:
        :math:`(..., G)` int64; -1 where a member of the group is unknown.
    """
    combined = []
    for columns in plan.columns:
        label = torch.zeros_like(labels[..., 0], dtype=torch.long)
        unknown = torch.zeros_like(label, dtype=torch.bool)
        for column in columns:
            label = 2 * label + labels[..., column].long()
            unknown = unknown | (labels[..., column] < 0)
        combined.append(label.masked_fill(unknown, -1))
    return torch.stack(combined, dim=-1)


def labels_from_regions(combined: Tensor, plan: RegionPlan) -> Tensor:
    """Return the labels of all AUs for the combinations of their groups: undo `region_labels`.

    Args:
        combined: :math:`(..., G)` integer combination labels; -1 unknown.
        plan: the groups, from `region_plan`.

    Returns:
        :math:`(..., N)` int64 in {1, 0, -1}, in the column order of the AU set.
    """
    labels = combined.new_empty((*combined.shape[:-1], len(plan.group_of)), dtype=torch.long)
    for group, columns in enumerate(plan.columns):
        label = combined[..., group].long()
        for shift, column in enumerate(reversed(columns)):
            labels[..., column] = torch.where(label < 0, -1, label >> shift & 1)
    return labels

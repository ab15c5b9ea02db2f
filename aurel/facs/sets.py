"""AU sets: the AU, and the side, of each column; the AU sets of the data sets."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, SupportsIndex, TypeAlias

from aurel.facs.units import Region, action_unit

_SIDES = ("", "L", "R")
_SWAPPED = {"": "", "L": "R", "R": "L"}
_AU_TEXT = re.compile(r"(?:AU)?([LR]?)0*([0-9]+)([LR]?)", re.IGNORECASE)


@dataclass(frozen=True)
class AUSet:
    """AUs in the order of the columns of labels, predictions and graph nodes.

    Two sets are equal where their AUs, sides and order are; the name is only for display.

    Args:
        name: the name of the set, such as "BP4D".
        numbers: FACS numbers, one a column; 0 in every column of an unnamed set.
        sides: "" (both sides), "L" or "R", one a column; all "" when left out.

    Raises:
        ValueError: no AU, an AU unknown to FACS, an AU twice, or sides that do not fit.
    """

    name: str = field(compare=False)
    numbers: tuple[int, ...]
    sides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", tuple(map(operator.index, self.numbers)))
        object.__setattr__(self, "sides", tuple(self.sides) or ("",) * len(self.numbers))
        if not self.numbers:
            raise ValueError("numbers must hold at least one AU, got none")
        if len(self.sides) != len(self.numbers):
            raise ValueError(
                f"sides must have one entry an AU ({len(self.numbers)}), got {len(self.sides)}"
            )
        for side in self.sides:
            if side not in _SIDES:
                raise ValueError(f"sides must be '', 'L' or 'R', got {side!r}")
        if not self.named:
            return
        for number in self.numbers:
            action_unit(number)
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise ValueError(
                f"numbers must hold each AU once, got {_listed(sorted(repeated))} twice"
            )

    @classmethod
    def of(cls, spec: AUSpec) -> AUSet:
        """Return the set that `spec` names.

        Args:
            spec: an AUSet; the name of a data set in any spelling ("BP4D", "disfa", "aff-wild2",
                see `AU_SETS`); or AUs in order, each 12, "12", "AU12", "AU12L" or "L12".

        Raises:
            ValueError: an unknown name, or an AU unknown to FACS.
        """
        if isinstance(spec, AUSet):
            return spec
        if isinstance(spec, str):
            try:
                return _BY_KEY[_key(spec)]
            except KeyError:
                raise ValueError(
                    f"aus must be one of {_listed(AU_SETS)}, or a sequence of AUs, got {spec!r}"
                ) from None
        if isinstance(spec, int):
            raise ValueError(f"aus must name AUs, got the count {spec}: use default_au_set({spec})")
        parsed = [_parse(au) for au in spec]
        return cls("custom", tuple(n for n, _ in parsed), tuple(s for _, s in parsed))

    @classmethod
    def unnamed(cls, num_aus: int) -> AUSet:
        """Return a set of `num_aus` columns whose AUs are unknown."""
        if num_aus < 1:
            raise ValueError(f"num_aus must be at least 1, got {num_aus}")
        return cls("unnamed", (0,) * num_aus)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AUSet:
        """Return the set that `to_dict` described."""
        return cls(str(data["name"]), tuple(data["numbers"]), tuple(data["sides"]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, for JSON and checkpoints."""
        return {"name": self.name, "numbers": list(self.numbers), "sides": list(self.sides)}

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def named(self) -> bool:
        """Whether the columns are known to be AUs (False for `unnamed` sets)."""
        return any(self.numbers)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names: "AU01", "AU12L"; "column00" in an unnamed set."""
        if not self.named:
            return tuple(f"column{index:02d}" for index in range(len(self)))
        return tuple(f"AU{n:02d}{s}" for n, s in zip(self.numbers, self.sides, strict=True))

    @property
    def titles(self) -> tuple[str, ...]:
        """Names in English: "Lip corner puller", "Left lip corner puller"."""
        if not self.named:
            return self.names
        prefix = {"L": "Left ", "R": "Right "}
        titles = []
        for number, side in zip(self.numbers, self.sides, strict=True):
            title = action_unit(number).name
            titles.append(prefix[side] + title[0].lower() + title[1:] if side else title)
        return tuple(titles)

    def index(self, au: SupportsIndex | str) -> int:
        """Return the column of an AU, given as 12, "AU12", "AU12L" or "L12".

        Raises:
            ValueError: the set does not hold that AU.
        """
        number, side = _parse(au)
        name = f"AU{number:02d}{side}"
        if name not in self.names:
            raise ValueError(
                f"au must be in the AU set {self.name} ({_listed(self.names)}), got {name}"
            )
        return self.names.index(name)

    def columns_from(self, other: AUSet) -> tuple[int, ...]:
        """Return, for each AU of this set, its column in `other`.

        `labels[:, a.columns_from(b)]` puts the columns of labels in the order of b into that of a.

        Raises:
            ValueError: an AU is not in `other`; the message names all that are not.
        """
        if self == other:
            return tuple(range(len(self)))
        if not (self.named and other.named):
            raise ValueError(
                f"both AU sets must name their AUs, got {self.name} ({len(self)} columns) and "
                f"{other.name} ({len(other)} columns): name them by aus=..."
            )
        missing = [name for name in self.names if name not in other.names]
        if missing:
            raise ValueError(
                f"other must hold {_listed(missing)}, got the AU set {other.name} with "
                f"{_listed(other.names)}"
            )
        return tuple(other.names.index(name) for name in self.names)

    def regions(self) -> tuple[Region, ...]:
        """Return the region of the face of each AU: "upper", "middle" or "lower"."""
        self.require_named("regions")
        return tuple(action_unit(number).region for number in self.numbers)

    def flip_permutation(self) -> tuple[int, ...]:
        """Return the column that each column becomes in a mirrored image.

        Left and right AUs change places; all others, and unnamed columns, stay. The permutation is
        its own inverse: `mirrored_labels = labels[:, permutation]`.

        Raises:
            ValueError: a lateral AU without its other side.
        """
        if not self.named:
            return tuple(range(len(self)))
        partners = [
            f"AU{n:02d}{_SWAPPED[s]}" for n, s in zip(self.numbers, self.sides, strict=True)
        ]
        missing = [name for name in partners if name not in self.names]
        if missing:
            raise ValueError(
                f"an AU set must hold both sides of an AU to be mirrored, got {self.name} without "
                f"{_listed(missing)}"
            )
        return tuple(self.names.index(name) for name in partners)

    def require_named(self, what: str) -> None:
        """Raise ValueError where the AUs, which `what` requires, are unknown."""
        if not self.named:
            raise ValueError(
                f"aus must name the AUs for {what}, got {len(self)} unnamed columns: pass the name "
                f"of a data set ({_listed(AU_SETS)}) or a sequence of AU numbers"
            )


AUSpec: TypeAlias = AUSet | str | Sequence[SupportsIndex | str]
"""An AU set, the name of a data set, or AUs in order: the argument of `AUSet.of`."""


def _parse(au: SupportsIndex | str) -> tuple[int, str]:
    """Return (12, side) for 12, "12", "AU12", "AU12L", "AUL12" or "L12"."""
    if isinstance(au, str):
        match = _AU_TEXT.fullmatch(au.strip())
        if match is None or (match[1] and match[3]):
            raise ValueError(f"au must be written 12, 'AU12', 'AU12L' or 'L12', got {au!r}")
        return action_unit(int(match[2])).number, (match[1] or match[3]).upper()
    return action_unit(operator.index(au)).number, ""


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


_OPENGRAPHAU_MAIN = (
    *(1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16),
    *(17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 32, 38, 39),
)
_OPENGRAPHAU_LATERAL = (1, 2, 4, 6, 10, 12, 14)
_BP4D = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)

AU_SETS: Mapping[str, AUSet] = MappingProxyType(
    {
        aus.name: aus
        for aus in (
            AUSet("BP4D", _BP4D),
            AUSet("BP4D+", _BP4D),
            AUSet("DISFA", (1, 2, 4, 6, 9, 12, 25, 26)),
            AUSet("DISFA+", (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)),
            AUSet("EmotioNet", (1, 2, 4, 5, 6, 9, 12, 17, 20, 25, 26, 43)),
            AUSet("Aff-Wild2", (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)),
            AUSet("RAF-AU", (1, 2, 4, 5, 6, 9, 10, 12, 16, 17, 25, 26, 27)),
            AUSet("CASME II", (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 24, 25, 26, 38)),
            AUSet(
                "OpenGraphAU",
                _OPENGRAPHAU_MAIN + tuple(n for n in _OPENGRAPHAU_LATERAL for _ in "LR"),
                ("",) * len(_OPENGRAPHAU_MAIN) + ("L", "R") * len(_OPENGRAPHAU_LATERAL),
            ),
            AUSet("OpenGraphAU-main", _OPENGRAPHAU_MAIN),
        )
    }
)
"""AUs of the data sets in the order of the authors' label files, by name."""

_BY_KEY = {_key(name): aus for name, aus in AU_SETS.items()}

OPENGRAPHAU_PARENTS_RELEASED: tuple[int, ...] = tuple(
    index for index in (0, 1, 2, 4, 7, 8, 11) for _ in "LR"
)
"""Main node from which each of OpenGraphAU's 14 lateral outputs is computed, in released weights.

AU12L and AU12R have node 8, which is AU11 (nasolabial deepener), not AU12: an error of the authors
that is in their label tool, too. Weights trained with it require it.
"""

OPENGRAPHAU_PARENTS_CORRECTED: tuple[int, ...] = tuple(
    _OPENGRAPHAU_MAIN.index(number) for number in _OPENGRAPHAU_LATERAL for _ in "LR"
)
"""The same with AU12 (node 9) for AU12L and AU12R, for training from scratch."""


def default_au_set(num_aus: int) -> AUSet:
    """Return the set for a number of AUs: 12 is BP4D, 8 DISFA, 41 OpenGraphAU, others unnamed.

    BP4D+, EmotioNet and Aff-Wild2 have 12 AUs too: name them (`AUSet.of`) rather than count them.
    """
    name = {12: "BP4D", 8: "DISFA", 41: "OpenGraphAU"}.get(num_aus)
    return AUSet.unnamed(num_aus) if name is None else AU_SETS[name]

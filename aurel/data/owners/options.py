"""The options of the readers of owners' layouts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class OwnerOptions:
    """Options of the owners' layouts; the defaults are the papers'.

    Args:
        present: lowest intensity, in 1..5, that counts as present, where the owner gives
            intensities; none for 2, as in all papers but OpenGraphAU's, whose lists have 1.
        unknown: codes of an AU that was not coded; a missing file is unknown, too.
        picture_offset: number that is added to the number of a frame in the annotation for the
            number in the name of its picture; none for -1 where the pictures count from 0 and the
            annotation does not, and 0 elsewhere.
    """

    present: int | None = None
    unknown: list[int] = field(default_factory=lambda: [9, 999, -1])
    picture_offset: int | None = None

    def __post_init__(self) -> None:
        if self.present is not None and not 1 <= self.present <= 5:
            raise ValueError(f"data.owner.present must be in 1..5, got {self.present}")
        coded = [code for code in self.unknown if 0 <= code <= 5]
        if coded:
            raise ValueError(f"data.owner.unknown must be codes that are no labels, got {coded}")

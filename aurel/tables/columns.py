"""Which column of a table is which AU, and which tool wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["presence", "probability", "intensity"]
Tool = Literal[
    "openface", "openface3", "pyfeat", "libreface", "facereader", "imotions", "aurel", "other"
]
TOOLS: tuple[Tool, ...] = (
    *("openface", "openface3", "pyfeat", "libreface", "facereader", "imotions", "aurel", "other"),
)
OPENFACE3_AUS = (1, 2, 4, 6, 9, 12, 25, 26)
"""AUs of the eight outputs of OpenFace 3, which writes no names, in their order."""

_AU = re.compile(r"(AU|au)([LR]?)_?0*(\d{1,2})(?:_?([LR]))?(?:[_ ]([A-Za-z]+))?")
_FACEREADER = re.compile(r"\bAction Unit 0*(\d{1,2})\b", re.IGNORECASE)
_SUFFIXES: dict[str | None, str] = {
    None: "plain",
    **dict.fromkeys(("r", "intensity"), "intensity"),
    **dict.fromkeys(("c", "presence", "present", "occurrence"), "presence"),
    **dict.fromkeys(("p", "prob", "probability"), "probability"),
    "evidence": "evidence",
}
# iMotions names what Affectiva measures without numbers; the numbers are Affectiva's own mapping.
_AFFECTIVA = {
    "inner brow raise": 1,
    "brow raise": 2,
    "brow furrow": 4,
    "eye widen": 5,
    "cheek raise": 6,
    "lid tighten": 7,
    "nose wrinkle": 9,
    "upper lip raise": 10,
    "smile": 12,
    "dimpler": 14,
    "lip corner depressor": 15,
    "chin raise": 17,
    "lip pucker": 18,
    "lip stretch": 20,
    "lip press": 24,
    "mouth open": 25,
    "jaw drop": 26,
    "lip suck": 28,
    "eye closure": 43,
}
_FEWEST_AFFECTIVA = 3  # "smile" alone may be anything
_MEANINGS = {
    "frame": ("frame", "frame_idx", "frame_number", "frameno", "frame_no"),
    "time": ("timestamp", "time", "video_time", "frame_time_in_ms", "time_s", "seconds"),
    "confidence": ("confidence", "facescore", "face_score", "face_detection_score"),
    "success": ("success",),
    "face": ("face_id", "face", "track", "track_id", "identity"),
    "person": ("person", "subject", "subject_id", "participant", "participant_id", "respondent")
    + ("respondent_name",),
    "condition": ("condition", "task"),
    "source": ("input", "source", "video", "file", "filename"),
}


@dataclass(frozen=True)
class AUColumn:
    """A column that holds an AU.

    Args:
        index: number of the column.
        number: FACS number.
        side: "", "L" or "R".
        form: "presence", "probability", "intensity", "plain" (the name does not say which),
            "letters" (FaceReader), "percent" or "evidence" (iMotions).
    """

    index: int
    number: int
    side: str
    form: str

    @property
    def name(self) -> str:
        """The AU as `AUSet` names it, such as "AU12L"."""
        return f"AU{self.number:02d}{self.side}"


def au_columns(header: Sequence[str]) -> list[AUColumn]:
    """Return the columns of a header that hold AUs, in its order."""
    found = []
    affectiva = [name.lower() in _AFFECTIVA for name in header]
    for index, name in enumerate(header):
        match = _AU.fullmatch(name)
        if match and _suffix(match[5]) in _SUFFIXES:
            side = match[2] or match[4] or ""
            found.append(AUColumn(index, int(match[3]), side, _SUFFIXES[_suffix(match[5])]))
        elif match := _FACEREADER.search(name):
            words = set(re.findall(r"[a-z]+", name.lower()))
            side = "L" if "left" in words else "R" if "right" in words else ""
            found.append(AUColumn(index, int(match[1]), side, "letters"))
        elif affectiva[index] and sum(affectiva) >= _FEWEST_AFFECTIVA:
            found.append(AUColumn(index, _AFFECTIVA[name.lower()], "", "percent"))
    return found


def _suffix(text: str | None) -> str | None:
    return None if text is None else text.lower()


def tool_of(header: Sequence[str], columns: Sequence[AUColumn]) -> Tool:
    """Return the tool whose names a header has."""
    names = {_plain(name) for name in header}
    forms = {column.form for column in columns}
    if "letters" in forms:
        return "facereader"
    if forms & {"percent", "evidence"}:
        return "imotions"
    if columns and [column.number for column in columns] == list(range(len(OPENFACE3_AUS))):
        return "openface3"
    if any(name.endswith("_present") for name in header):
        return "aurel"
    if "facescore" in names:
        return "pyfeat"
    if any(header[column.index].startswith("au_") for column in columns):
        return "libreface"
    if any(header[column.index].endswith(("_r", "_c")) for column in columns):
        return "openface"
    return "other"


def meanings(header: Sequence[str], tool: Tool = "other") -> dict[str, int]:
    """Return the columns for "frame", "time", "confidence", "success", "face", "person" and so on.

    Of several names for one thing the first of the list above is taken. A "person" of `aurel
    predict` is the number of a face in its own video, and its faces are those that the detector
    was sure of.
    """
    names = [_plain(name) for name in header]
    found = {}
    for meaning, known in _MEANINGS.items():
        for name in known:
            if name in names:
                found[meaning] = names.index(name)
                break
    if tool == "aurel":
        found.pop("confidence", None)
        if "person" in names:
            found["face"] = names.index("person")
            others = [name for name in _MEANINGS["person"][1:] if name in names]
            del found["person"]
            if others:
                found["person"] = names.index(others[0])
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")

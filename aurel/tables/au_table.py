"""A table of AUs: rows are faces in frames, of people under conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aurel.facs import AUSet
from aurel.tables.cells import Numbers
from aurel.tables.columns import Kind
from aurel.tables.kinds import labels_of

Names = NDArray[np.str_]


@dataclass(frozen=True)
class Account:
    """One file that was read: its kind, and how many rows are unknown and why.

    Args:
        source: the file.
        tool: who wrote it, as far as its columns say.
        kind: "presence", "probability" or "intensity".
        threshold: the value from which an AU counts as present.
        rows: rows of the file.
        failed: rows in which the tool says that it failed (`success` 0).
        unsure: rows of lower confidence than asked for.
        empty: other rows without any AU, in which there was no face.
        notes: anything else that a reader should know.
    """

    source: str
    tool: str
    kind: Kind
    threshold: float
    rows: int
    failed: int = 0
    unsure: int = 0
    empty: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AUTable:
    """AUs of M rows, each a face in a frame.

    Rows are in order of person, condition, track and time, so that each person and each track
    takes consecutive rows. Make one by `read`, `from_frame` or `concat`.

    Args:
        aus: the N AUs.
        values: (M, N) float64, NaN where unknown.
        labels: (M, N) int8: 1 present, 0 absent, -1 unknown.
        person: (M,) names of people.
        condition: (M,) names of conditions, "" where there is none.
        track: (M,) int64; rows of one track are one face in one recording.
        frame: (M,) int64; a gap is a gap.
        time: (M,) seconds, NaN where unknown.
        source: (M,) the recording of each row.
        accounts: what was read, by file.
    """

    aus: AUSet
    values: Numbers
    labels: NDArray[np.int8]
    person: Names
    condition: Names
    track: NDArray[np.int64]
    frame: NDArray[np.int64]
    time: Numbers
    source: Names
    accounts: tuple[Account, ...] = ()

    def __post_init__(self) -> None:
        rows, count = len(self.person), len(self.aus)
        for name, expected in (
            *((name, (rows, count)) for name in ("values", "labels")),
            *((name, (rows,)) for name in ("condition", "track", "frame", "time", "source")),
        ):
            if getattr(self, name).shape != expected:
                raise ValueError(
                    f"{name} must have shape {expected}, got {getattr(self, name).shape}"
                )

    def __len__(self) -> int:
        return len(self.person)

    @classmethod
    def read(cls, paths: Path | str | Iterable[Path | str], **options: Any) -> AUTable:
        """Return the table in a file, or in several one below the other.

        Reads CSV of OpenFace 2 and 3, py-feat, LibreFace and `aurel predict`, text exports of
        FaceReader and iMotions, and other tables with columns such as "AU12"; Parquet by pandas.
        Encoding, separator and decimal comma are detected.

        Args:
            paths: a file or files.
            options: keywords of `ReadOptions`: tool, au_kind, min_confidence, threshold, person,
                condition, fps.

        Raises:
            ValueError: no table of AUs, or a cell that cannot be read; names file and line.
            ImportError: Parquet without pandas.
        """
        from aurel.tables.reading import ReadOptions, read_file

        files = [paths] if isinstance(paths, str | Path) else list(paths)
        if not files:
            raise ValueError("paths must name at least one file, got none")
        chosen = ReadOptions(**options)
        return cls.concat([read_file(Path(file), chosen) for file in files])

    @classmethod
    def from_frame(
        cls, frame: Mapping[str, Sequence[Any]] | Any, *, source: str = "frame", **options: Any
    ) -> AUTable:
        """Return the table in a DataFrame of pandas or polars, or in a dict of columns.

        Args:
            frame: columns by name, called as in a file of one of the tools.
            source: what to call it.
            options: as for `read`.

        Raises:
            ValueError: no columns of AUs, or a cell that cannot be read.
        """
        from aurel.tables.reading import ReadOptions, read_frame

        return read_frame(frame, source, ReadOptions(**options))

    @classmethod
    def concat(cls, tables: Sequence[AUTable]) -> AUTable:
        """Return tables one below the other; an AU that a table lacks is unknown in its rows.

        Raises:
            ValueError: no table.
        """
        if not tables:
            raise ValueError("tables must hold at least one table, got none")
        if len(tables) == 1:
            return tables[0]
        names = sorted({name for table in tables for name in table.aus.names})
        aus = next((t.aus for t in tables if sorted(t.aus.names) == names), AUSet.of(names))
        values, labels, tracks, used = [], [], [], 0
        for table in tables:
            own = [aus.names.index(name) for name in table.aus.names]
            values.append(np.full((len(table), len(aus)), np.nan))
            values[-1][:, own] = table.values
            labels.append(np.full((len(table), len(aus)), -1, dtype=np.int8))
            labels[-1][:, own] = table.labels
            tracks.append(table.track + used)
            used += int(table.track.max(initial=-1)) + 1

        def joined(name: str) -> Any:
            return np.concatenate([getattr(table, name) for table in tables])

        return cls(
            aus,
            np.concatenate(values),
            np.concatenate(labels),
            person=joined("person"),
            condition=joined("condition"),
            track=np.concatenate(tracks),
            frame=joined("frame"),
            time=joined("time"),
            source=joined("source"),
            accounts=tuple(account for table in tables for account in table.accounts),
        ).sorted()

    def sorted(self) -> AUTable:
        """Return the rows in order of person, condition, track and time."""
        moment = np.where(np.isnan(self.time), self.frame, self.time)
        order = np.lexsort((moment, self.track, self.condition, self.person))
        return self.take(order)

    def take(self, rows: NDArray[Any]) -> AUTable:
        """Return some of the rows, given by number or as a mask."""
        names = ("values", "labels", "person", "condition", "track", "frame", "time", "source")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def with_threshold(self, threshold: float) -> AUTable:
        """Return the table with labels that are 1 where a value is `threshold` or more."""
        accounts = tuple(replace(account, threshold=threshold) for account in self.accounts)
        return replace(self, labels=labels_of(self.values, threshold), accounts=accounts)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the table as columns by name, which `from_frame` reads again."""
        fixed = {
            "source": self.source,
            "person": self.person,
            "condition": self.condition,
            "track": self.track,
            "frame": self.frame,
            "time": self.time,
        }
        values = dict(zip(self.aus.names, self.values.T, strict=True))
        present = {
            f"{name}_present": column
            for name, column in zip(self.aus.names, self.labels.T, strict=True)
        }
        return fixed | values | present

    def to_frame(self) -> Any:
        """Return the table as a pandas DataFrame with `columns`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install 'aurel-au[tables]'") from error
        return pandas.DataFrame(self.columns())

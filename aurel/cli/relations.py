"""`aurel relations`: the relations between AUs in tables of any tool, as a report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aurel.tables import AUTable

_SMOOTH = "smooth"
_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq")
_DESCRIPTION = """\
Read tables of action units (AUs), one file or many, and write a report on which AUs occur together,
which follow each other and which differ between conditions, with intervals from resampled people.

Tables of OpenFace 2 and 3, py-feat, LibreFace and `aurel predict`, text exports of FaceReader and
iMotions, and other CSV with columns such as AU12. Of a folder, all tables in it are read.

  aurel relations processed/ --out report/
  aurel relations P*.csv --group 'file:(P[0-9]+)' --condition 'file:_([a-z]+)' --out report/

  aurel relations smooth processed/ --labels coded.csv --out smoothed.csv

The last one writes probabilities of the AUs of a table, coupled with each other and smoothed along
time by a model fitted to labels of some of its frames, and its gain on people held out.

The folder DIR gets the report, pictures, all numbers as CSV files, and relations.graphml for graph
programs.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel relations`."""
    parser = subparsers.add_parser(
        "relations",
        help="which AUs go together in tables of OpenFace, py-feat, FaceReader, ...",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("tables", nargs="+", metavar="TABLE", help="files or folders; ./smooth for a file smooth")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the report; of smooth, a .csv file",
    )
    add(
        "--labels",
        nargs="+",
        metavar="FILE",
        help="of smooth: tables of labels, 1 present, 0 absent",
    )
    add(
        "--group",
        metavar="COLUMN",
        help="column that names people, or file:REGEX whose first group in the file's name does "
        "(a column such as person or subject, else each recording is a person)",
    )
    add("--condition", metavar="COLUMN", help="the same for conditions, which are then compared")
    add(
        "--level",
        type=float,
        default=0.95,
        help="of intervals; 1 - level is the rate of false discoveries (0.95)",
    )
    add("--resamples", type=int, default=1000, help="resamples of people (1000)")
    add("--seed", type=int, default=0, help="of the random numbers (0)")
    add("--lag", type=float, default=1.0, help="seconds, for relations in time (1)")
    add("--fps", type=float, help="frames a second, where times are missing or wrong")
    add("--min-confidence", type=float, default=0.75, help="of the face, where it is given (0.75)")
    add("--kind", default="auto", help="presence, probability or intensity (auto)")
    add("--threshold", type=float, help="value from which an AU is present (by kind)")
    add("--tool", default="auto", help="which tool wrote the tables (auto)")
    add(
        "--patterns",
        nargs="+",
        metavar="AUS",
        help="combinations to count, such as 6+12 1+2+5 (those of handbooks)",
    )
    add("--format", choices=("html", "md"), default="html", help="of the report (html)")


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    from aurel.cli.relation_report.files import write_files
    from aurel.cli.relation_report.report import write_report
    from aurel.cli.relation_report.words import counted
    from aurel.tables.patterns import PATTERNS
    from aurel.tables.relations import find_relations

    if args.tables[0] == _SMOOTH:
        return _smooth(args)
    if args.labels is not None:
        raise ValueError("--labels must be left out but for aurel relations smooth")
    table = _read(args, args.tables)
    people = counted(len(set(table.person.tolist())), "person", "people")
    print(f"{counted(len(table), 'row')} of {people} read")
    found = find_relations(
        table,
        level=args.level,
        resamples=args.resamples,
        seed=args.seed,
        lag=args.lag,
        patterns=PATTERNS if args.patterns is None else [_pattern(text) for text in args.patterns],
    )
    write_files(found, args.out)
    path = write_report(found, args.out, args.format)
    print(f"{path} and {len(list(args.out.glob('*.csv')))} tables in {args.out}")
    return 0


def _smooth(args: argparse.Namespace) -> int:
    """Write the smoothed probabilities of a table."""
    from aurel.cli.relation_report.files import write_csv
    from aurel.tables.smoothing import smooth

    if args.labels is None or len(args.tables) < 2:
        raise ValueError("aurel relations smooth must have TABLE and --labels FILE")
    if args.out.suffix.lower() != ".csv":
        raise ValueError(f"--out must be a .csv file for smooth, got {args.out}")
    table = _read(args, args.tables[1:])
    found = smooth(table, _read(args, args.labels, kind="presence"), seed=args.seed)
    gain, low, high = found.gain(args.level, args.resamples, args.seed)
    columns = {
        "source": table.source,
        "person": table.person,
        "condition": table.condition,
        "track": table.track,
        "frame": table.frame,
        "time": table.time,
        **dict(zip(found.aus.names, found.probabilities.T, strict=True)),
    }
    write_csv(args.out, tuple(columns), zip(*columns.values(), strict=True))
    print(
        f"{len(table)} rows; labels of {found.frames.sum()} frames of {len(found.people)} people, "
        f"{', '.join(found.aus.names)}\n"
        f"log-likelihood of held-out people: {gain:+.3f} nats a frame over each AU and frame by "
        f"itself ({low:+.3f} to {high:+.3f}); evidence weakened to {found.temper:g}\n"
        f"{args.out}"
    )
    return 0


def _read(args: argparse.Namespace, names: Sequence[str], kind: str | None = None) -> AUTable:
    from aurel.tables import AUTable

    paths: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise FileNotFoundError(2, "No such file or folder", name)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _ENDINGS)
            if not inside:
                raise ValueError(f"{name}: no {', '.join(_ENDINGS)} in this folder")
            paths += inside
        else:
            paths.append(path)
    return AUTable.read(
        paths,
        tool=args.tool,
        au_kind=kind or args.kind,
        min_confidence=args.min_confidence,
        threshold=args.threshold if kind is None else None,
        person=args.group,
        condition=args.condition,
        fps=args.fps,
    )


def _pattern(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.upper().replace("AU", "").split("+"))
    except ValueError:
        numbers = ()
    if len(set(numbers)) < 2:
        raise ValueError(f"--patterns must be AUs joined by +, such as 6+12, got {text!r}")
    return numbers

"""Compare the ratios of a run with those of a committed one; absolute times are not compared.

    python benchmarks/regression.py new.json benchmarks/results/cpu.json

The exit status is 1 if a ratio of a peer to AUREL decreased by more than the allowed factor.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from table import AUREL, ratio, size_text

Key = tuple[str, str, str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("new", type=Path)
    parser.add_argument("committed", type=Path)
    parser.add_argument("--allowed", type=float, default=1.5, help="largest factor of noise")
    options = parser.parse_args()
    new, committed = (ratios(json.loads(p.read_text())) for p in (options.new, options.committed))
    shared = [key for key in new if key in committed]
    if not shared:
        print("the two runs have no row in common", file=sys.stderr)
        return 1
    worse = [key for key in shared if new[key] * options.allowed < committed[key]]
    for key in worse:
        print(f"{' | '.join(key)}: {committed[key]:.2f}x before, {new[key]:.2f}x now")
    print(
        f"{len(shared)} ratios compared, {len(worse)} decreased by more than {options.allowed}x; "
        f"{len(committed) - len(shared)} of the committed run were not measured now"
    )
    return 1 if worse else 0


def ratios(run: dict[str, Any]) -> dict[Key, float]:
    """Return the ratio of each peer in each row."""
    return {
        (row["op"], size_text(row), row["mode"], side): value
        for row in run["rows"]
        for side in row["ms"]
        if side != AUREL and (value := ratio(row, side)) is not None
    }


if __name__ == "__main__":
    sys.exit(main())

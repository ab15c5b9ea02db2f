"""The file of events that a run of benchmarks writes, and the order of its rows.

A journal has a line of JSON for each event, written at once: the names of all rows ("collected"),
the "start" of a row, its measurement ("row"), its "end", or that it "fail"s or is "interrupted" by
the time limit. A later process continues the file. It does not start rows again that were started,
so a row that hangs or breaks the device does not stop other rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Test function and number of nodes of the rows that come first.
HEADLINES = (
    ("test_knn_max_relative", 41),
    ("test_knn_max_relative", 12),
    ("test_knn_max_relative", 784),
    ("test_knn_max_relative", 3136),
    ("test_graph_attention", 41),
    ("test_pair_pool", 27),
    ("test_gated_edge_aggregate", 41),
    ("test_edge_update", 41),
    ("test_neighbor_aggregate", 784),
    ("test_knn_max_relative", 196),
)


class Journal:
    """A file of events, one per line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, about: dict[str, Any] | None = None, **values: Any) -> None:
        """Append an event, after the conditions of the run, if given."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [] if about is None else [{"event": "run", "run": about}]
        lines.append({"event": event, "time": round(time.time(), 1), **values})
        with self.path.open("a") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> list[dict[str, Any]]:
        """Return all events, without incomplete lines."""
        if not self.path.exists():
            return []
        events = []
        for line in self.path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                events.append(json.loads(line))
        return events

    def read(self, event: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [each for each in self.events() if each["event"] == event]

    def ids(self, event: str) -> set[str]:
        """Return the rows of the events of one kind."""
        return {each["id"] for each in self.read(event)}

    def collected(self) -> list[str]:
        """Return the names of all rows, in the order in which they run."""
        return list(dict.fromkeys(i for each in self.read("collected") for i in each["ids"]))

    def started(self) -> list[str]:
        """Return the rows that were started and not interrupted, in order."""
        rows: dict[str, None] = {}
        for each in self.events():
            if each["event"] == "start":
                rows[each["id"]] = None
            elif each["event"] == "interrupted":
                rows.pop(each["id"], None)
        return list(rows)

    def close_last(self, failure: str | None) -> None:
        """Write the end of a row whose process was killed: failed, or to be started again."""
        open_rows = [i for i in self.started() if i not in self.ids("end") | self.ids("fail")]
        for name in open_rows:
            if failure is None:
                self.write("interrupted", id=name)
            else:
                self.write("fail", id=name, error=failure)

    def run(self) -> dict[str, Any] | None:
        """Return conditions and rows so far, for `write_run`, or None without a row."""
        runs, rows = self.read("run"), self.read("row")
        return {"run": runs[-1]["run"], "rows": [each["row"] for each in rows]} if rows else None


def write_run(path: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write conditions and rows as one JSON file, one row per line, by replacing the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(map(json.dumps, rows))
    text = f'{{\n"run": {json.dumps(about)},\n"rows": [\n  {lines}\n]\n}}\n'
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def in_order(items: Sequence[Any]) -> list[Any]:
    """Return test items: headlines first, then the first size of each function, the second, ..."""
    seen: Counter[tuple[str, str]] = Counter()
    ranked = []
    for place, item in enumerate(items):
        name = item.originalname
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        headline = (name, parameters.get("size", {}).get("N"))
        if headline in HEADLINES:
            rank = (0, HEADLINES.index(headline), place)
        else:
            # Keep both modes of a size together.
            kind = (item.path.name, name)
            turn = seen[kind] // 2 if "mode" in parameters else seen[kind]
            seen[kind] += 1
            rank = (1, turn, place)
        ranked.append((rank, item))
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]

"""Format the rows of a run: op, size, times and ratios, floor, share that differs, memory."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
Run = dict[str, Any]
AUREL = "aurel"


def sides(rows: list[Row]) -> list[str]:
    """Return the peers that occur, in order of appearance."""
    return [side for side in dict.fromkeys(s for row in rows for s in row["ms"]) if side != AUREL]


def ratio(row: Row, side: str, measure: str = "ms") -> float | None:
    """Return the value of a peer divided by that of aurel, or None if it was not measured."""
    values = row[measure]
    return values[side] / values[AUREL] if side in values and values[AUREL] else None


def size_text(row: Row) -> str:
    return " ".join(f"{name}={value}" for name, value in row["size"].items())


def headline(run: Run) -> str:
    """Return one line with the conditions of the measurement."""
    about = run["run"]
    threads = "" if about["threads"] is None else f", {about['threads']} threads"
    ceilings = [
        f"{about['bytes_per_second'] / 1e9:.0f} GB/s",
        f"{about['operations_per_second'] / 1e12:.2f} TFLOP/s float32",
    ]
    if about.get("cache_size"):
        ceilings += [
            f"{about['tensor_operations_per_second'] / 1e12:.1f} TFLOP/s by three tf32 products",
            f"{about['cache_bytes_per_second'] / 1e9:.0f} GB/s in L2 up to "
            f"{about['cache_size'] / 2**20:.0f} MiB",
        ]
    return (
        f"{about['device']}{threads}, torch {about['torch']}, {about['date']}, {about['clock']} "
        f"clock; ceilings {', '.join(ceilings)}"
    )


def cells(row: Row, peers: list[str]) -> list[str]:
    """Return the cells of a row for the header of `grid`, empty for missing values."""
    out = [row["op"], size_text(row), row["mode"], milliseconds(row["ms"][AUREL])]
    for side in peers:
        times = ratio(row, side)
        out.append("" if times is None else f"{milliseconds(row['ms'][side])} ({times:.1f}x)")
    level = " (L2)" if row.get("floor_level") == "L2" else ""
    out.append(f"{row['ms'][AUREL] / row['floor_ms']:.1f}{level}" if row["floor_ms"] else "")
    differing = row.get("differing", {})
    out.append(" / ".join(f"{differing[side]:.1g}" for side in peers if side in differing))
    memory = [f"{row['peak_mib'][side]:.1f}" for side in (AUREL, *peers) if side in row["peak_mib"]]
    return [*out, " / ".join(memory), str(row.get("launches", ""))]


def milliseconds(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def grid(rows: list[Row]) -> list[list[str]]:
    """Return the cells of a table, its header first, without empty columns."""
    peers = sides(rows)
    ratios = [f"{side} ms (ratio)" for side in peers]
    head = ["op", "size", "mode", "aurel ms", *ratios, "x floor", "differ", "peak MiB", "launches"]
    lines = [cells(row, peers) for row in rows]
    used = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return [[line[i] for i in used] for line in (head, *lines)]


def text_table(run: Run) -> str:
    """Return the table for a terminal."""
    lines = grid(run["rows"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return f"{headline(run)}\n{body}"


def markdown_table(rows: list[Row]) -> str:
    """Return the table of one op for a page."""
    head, *body = (line[1:] for line in grid(rows))
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

"""Turn result files into plots and a page.

python benchmarks/report.py benchmarks/results/*.json --page docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from table import OURS, Run, headline, markdown_table, sides

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

COLORS = {OURS: "#0072b2", "eager": "#d55e00", "plain": "#d55e00", "definition": "#d55e00"}
COLORS |= {"cluster": "#009e73", "compile": "#cc79a7", "floor": "#888888"}
LEAST_POINTS = 4  # of a curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, required=True, help="a Markdown file")
    options = parser.parse_args()
    sections = [section(path, options.page.parent) for path in options.results]
    options.page.write_text("\n".join([INTRODUCTION, *sections]))
    print(f"wrote {options.page}")


INTRODUCTION = """# Benchmarks

Every figure here is printed again by one command: `make bench` on a processor, `make gpu` on a
GPU. Both sides of a row are first checked to compute the same thing, then they take turns in one
process, and medians are given. A ratio above 1 means that the other side takes so many times
longer than AUREL. "x floor" is the time over the least that this machine could take: the bytes
that must be moved, each once, or the operations that must be done, at rates measured in the same
run. Memory is the most held at once beyond inputs and parameters, AUREL first.

- *eager*: what one writes without a library: bmm, topk, gather, amax, softmax.
- *compile*: the same under `torch.compile`.
- *cluster*: torch-cluster and torch-scatter on ragged graphs.
- *definition*, *plain*: the layer or model as its paper and published code describe it.

On a GPU, steps are replayed as CUDA graphs where they can be captured: times are those of the
device, without Python. Inputs of AU-sized rows fit into its cache.
"""


def section(path: Path, folder: Path) -> str:
    """Return the part of the page about one result file; its plots go beside the page."""
    run: Run = json.loads(path.read_text())
    lines = [f"## {path.stem}", "", headline(run), ""]
    for name, figure in plots(run):
        file = folder / "images" / "benchmarks" / f"{path.stem}_{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110)
        plt.close(figure)
        lines += [f"![{name.replace('_', ' ')}]({file.relative_to(folder)})", ""]
    return "\n".join([*lines, markdown_table(run), ""])


def plots(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield a figure for each op and mode: time and memory against each size that varies."""
    for op, mode in dict.fromkeys((row["op"], row["mode"]) for row in run["rows"]):
        rows = [row for row in run["rows"] if (row["op"], row["mode"]) == (op, mode)]
        curves = list(series(rows))
        if curves:
            yield f"{op}_{mode}".replace(" ", "_"), draw(op, mode, curves)


def series(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Yield (varying size, what is fixed, rows): the longest run of rows for each size."""
    for name in rows[0]["size"]:
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            fixed = " ".join(f"{k}={v}" for k, v in row["size"].items() if k != name)
            groups.setdefault(fixed, []).append(row)
        fixed, longest = max(groups.items(), key=lambda item: len(item[1]))
        if len(longest) >= LEAST_POINTS:
            yield name, fixed, sorted(longest, key=lambda row: row["size"][name])


def draw(op: str, mode: str, curves: list[tuple[str, str, list[dict[str, Any]]]]) -> Any:
    """Return a figure with time above and memory below, one column a varying size, log axes."""
    figure, axes = plt.subplots(
        2, len(curves), figsize=(3.6 * len(curves), 5.6), squeeze=False, layout="constrained"
    )
    for column, (name, fixed, rows) in enumerate(curves):
        sizes = [row["size"][name] for row in rows]
        for axis, measure, unit in zip(
            axes[:, column], ("ms", "peak_mib"), ("milliseconds", "peak MiB"), strict=True
        ):
            for side in (OURS, *sides(rows)):
                known = [row for row in rows if side in row[measure]]
                axis.plot(
                    [row["size"][name] for row in known],
                    [row[measure][side] for row in known],
                    marker="o",
                    markersize=3,
                    color=COLORS[side],
                    label=side,
                )
            if measure == "ms" and all(row["floor_ms"] for row in rows):
                floor = [row["floor_ms"] for row in rows]
                axis.plot(sizes, floor, "--", color=COLORS["floor"], label="floor")
            axis.set(xscale="log", yscale="log", xlabel=name, ylabel=unit)
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[0, column].set_title(fixed, fontsize=9)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{op}, {mode}", fontsize=11)
    return figure


if __name__ == "__main__":
    main()

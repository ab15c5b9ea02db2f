"""Write plots and a page from result files.

python benchmarks/report.py benchmarks/results/*.json --page docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from table import AUREL, Row, Run, headline, markdown_table, sides

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

COLORS = {AUREL: "#0072b2", "eager": "#d55e00", "plain": "#d55e00", "definition": "#d55e00"}
COLORS |= {"cluster": "#009e73", "pyg": "#009e73", "compile": "#cc79a7", "floor": "#888888"}
LEAST_POINTS = 4  # least number of points of a curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, required=True, help="a Markdown file")
    options = parser.parse_args()
    sections = [section(path, options.page.parent) for path in options.results]
    options.page.write_text("\n".join([INTRODUCTION, *sections]))
    print(f"wrote {options.page}")


INTRODUCTION = """# Benchmarks

One command measures all numbers on this page again: `make bench` on a processor, `make gpu` on a
GPU. All sides of a row are measured in turns in one process, and medians are given. A side that
takes less than five milliseconds is repeated for that long at each turn. A ratio above 1 means that
the other side takes so many times as long as AUREL. "differ" is the share of results in
which a side and AUREL differ by more than a thousandth of the largest (a hundredth for whole
models), because rounding changes the choice at near-ties between neighbors or the sign at a ReLU.
Memory is the peak beyond inputs and parameters, AUREL first.

"x floor" is the time divided by the least time that is possible on this machine: that of the bytes
that must be moved, each once, or of the operations that must be done, at rates measured in the same
run. On a GPU a step is repeated on the same tensors. If these fit into half of the L2 cache, the
floor uses the rate of L2 and is marked, otherwise that of memory. Operations use the rate of a
float32 matrix product, in float32 or as three tf32 products on tensor cores, whichever is faster.

- *eager*: the usual code without a library: bmm, topk, gather, amax, softmax.
- *compile*: the same under `torch.compile`.
- *cluster*: torch-cluster and torch-scatter on ragged graphs.
- *pyg*: PyTorch Geometric's own layer, with the same weights, on the graph that AUREL finds.
- *torchvision*: the reader and transforms of torchvision.
- *definition*, *plain*: the layer or model as described by its paper and published code.

On a GPU, up to twenty steps are replayed as one CUDA graph if they can be captured: times are
those of the device, without Python and with a twentieth of a launch. `torch.compile` is measured at
two sizes of an op at most.
"""


def section(path: Path, folder: Path) -> str:
    """Return the section of the page for one result file, and write its plots."""
    run: Run = json.loads(path.read_text())
    lines = [f"## {path.stem}", "", headline(run), ""]
    for op, rows in grouped(run["rows"], "op"):
        lines += [f"### {op}", ""]
        for mode, of_mode in grouped(rows, "mode"):
            curves = list(series(of_mode))
            if curves:
                file = folder / "images" / "benchmarks" / f"{path.stem}_{op}_{mode}.png"
                file = file.with_name(file.name.replace(" ", "_"))
                save(draw(f"{op}, {mode}", curves), file)
                lines += [f"![{op}, {mode}]({file.relative_to(folder)})", ""]
        lines += [markdown_table(rows), ""]
    return "\n".join(lines)


def grouped(rows: list[Row], key: str) -> list[tuple[str, list[Row]]]:
    """Return the rows grouped by their value of `key`, in order of appearance."""
    values = dict.fromkeys(row[key] for row in rows)
    return [(value, [row for row in rows if row[key] == value]) for value in values]


def save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def series(rows: list[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield (varying size, fixed sizes, rows): the longest series of rows for each size."""
    for name in rows[0]["size"]:
        groups: dict[str, list[Row]] = {}
        for row in rows:
            fixed = " ".join(f"{k}={v}" for k, v in row["size"].items() if k != name)
            groups.setdefault(fixed, []).append(row)
        fixed, longest = max(groups.items(), key=lambda item: len(item[1]))
        if len(longest) >= LEAST_POINTS:
            yield name, fixed, sorted(longest, key=lambda row: row["size"][name])


def draw(title: str, curves: list[tuple[str, str, list[Row]]]) -> Figure:
    """Return a figure with time on the left and memory on the right, a row for each series."""
    figure, axes = plt.subplots(
        len(curves), 2, figsize=(7.2, 0.8 + 2.4 * len(curves)), squeeze=False, layout="constrained"
    )
    for (time, memory), (name, fixed, rows) in zip(axes, curves, strict=True):
        sizes = [row["size"][name] for row in rows]
        shown = ticks(sizes)
        for side in (AUREL, *sides(rows)):
            for axis, measure in ((time, "ms"), (memory, "peak_mib")):
                known = [row for row in rows if side in row[measure]]
                axis.plot(
                    [row["size"][name] for row in known],
                    [row[measure][side] for row in known],
                    marker="o",
                    markersize=3,
                    color=COLORS[side],
                    label=side,
                )
        if all(row["floor_ms"] for row in rows):
            floor = [row["floor_ms"] for row in rows]
            time.plot(sizes, floor, "--", color=COLORS["floor"], label="floor")
        for axis, unit in ((time, "milliseconds"), (memory, "peak MiB")):
            axis.set(xscale="log", yscale="log", xlabel=name, ylabel=unit)
            axis.set_title(fixed, fontsize=9)
            axis.set_xticks(shown, map(str, shown))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def ticks(sizes: list[int]) -> list[int]:
    """Return the sizes, in ascending order, whose labels do not overlap on a log axis."""
    shown = sizes[:1]
    for size in sizes[1:]:
        if size >= 1.3 * shown[-1]:
            shown.append(size)
    return shown


if __name__ == "__main__":
    main()

"""Write the tables, pictures and lists of public names that the pages include."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from aurel.data import dataset_info, list_datasets
from aurel.data.synthetic import SHOWN_AUS, label_world
from aurel.data.synthetic.label_model import all_states
from aurel.facs import AUSet, action_unit
from aurel.models import list_models, model_info
from aurel.viz.face_diagram import anchors, draw_face, spread
from aurel.viz.face_graph import draw_face_graph
from aurel.viz.figure import GREEN, ORANGE, SKY, new_figure, save_figure

COLORS = {"upper": SKY, "middle": GREEN, "lower": ORANGE}
DATA_SETS = ("BP4D", "DISFA", "EmotioNet")
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "models_on_faces.md"
STAGED = ("me_graphau", "open_graphau")  # pages that also describe a first stage
# Public names of a package that another page describes.
REFERENCE = {
    "aurel.ops": ("use_backend", "Backend"),
    "aurel.layers": (),
    "aurel.models": ("AUOutput",),
    "aurel.weights": (),
    "aurel.backbones": (),
    "aurel.losses": (),
    "aurel.metrics": (),
    "aurel.facs": (),
    "aurel.data": (),
    "aurel.data.synthetic": ("SyntheticFaces", "SyntheticClips"),
    "aurel.tables": (),
    "aurel.pyg": (),
}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def generate(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for module, elsewhere in REFERENCE.items():
        write(folder / f"{module}.rst", reference(module, elsewhere))
    write(folder / "models.md", models_table())
    write(folder / "datasets.md", datasets_table())
    write(folder / "layouts.md", layouts())
    for page in sorted((Path(app.srcdir) / "models").glob("[!i]*.md")):
        stages = (f"{page.stem}_stage1",) if page.stem in STAGED else ()
        write(folder / f"measured_{page.stem}.md", measured_table((*stages, page.stem)))
    write(folder / "rates.md", rates_table())
    write(folder / "information.md", information_table())
    for name in DATA_SETS:
        write(folder / f"pairs_{name}.md", pairs_table(name))
    faces(folder)


def write(path: Path, text: str) -> None:
    """Write a file if its text changes, so that pages that include it are not built again."""
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def reference(module: str, elsewhere: tuple[str, ...]) -> str:
    """Return a table of the public names of a module, and directives for their docstrings."""
    public = import_module(module)
    names = [name for name in public.__all__ if name not in elsewhere and name[0] != "_"]
    objects = {name: getattr(public, name) for name in names}
    described = [n for n, o in objects.items() if inspect.isclass(o) or inspect.isroutine(o)]
    lines = [f".. py:currentmodule:: {module}", "", ".. autosummary::", "   :nosignatures:", ""]
    lines += [f"   {name}" for name in described]
    for name in described:
        kind = "autoclass" if inspect.isclass(objects[name]) else "autofunction"
        lines += ["", f".. {kind}:: {name}"]
    for name in [name for name in names if name not in described]:
        lines += ["", f".. py:data:: {name}", ""]
        lines += [f"   {line}" for line in constant_text(module, name)]
    return "\n".join(lines) + "\n"


def constant_text(module: str, name: str) -> list[str]:
    """Return the text below a constant, from the file of the package that defines it."""
    folder = Path(import_module(module).__file__ or "").parent
    for file in sorted(folder.glob("*.py")):
        analyzer = ModuleAnalyzer.for_module(f"{module}.{file.stem}")
        analyzer.analyze()
        if text := analyzer.attr_docs.get(("", name)):
            return text
    return []


def models_table() -> str:
    rows = ["| model | takes | image | paper |", "|---|---|--:|---|"]
    for name in list_models():
        info = model_info(name)
        takes = "clips, `(B, T, 3, S, S)`" if info.takes_clips else "images, `(B, 3, S, S)`"
        rows.append(f"| `{name}` | {takes} | {info.image_size} | {info.paper} |")
    return "\n".join(rows) + "\n"


def datasets_table() -> str:
    """Return a row for each registered data set."""
    rows = ["| `data.dataset` | AUs | `data.fold` | |", "|---|---|---|---|"]
    for name in list_datasets():
        info = dataset_info(name)
        aus = (
            "" if info.aus is None else f"{len(info.aus)}: {', '.join(map(short, info.aus.names))}"
        )
        folds = {None: "as in the file names", 0: "null"}.get(info.folds, f"1 to {info.folds}")
        rows.append(f"| {name} | {aus} | {folds} | {info.summary} |")
    return "\n".join(rows) + "\n"


def layouts() -> str:
    """Return the files of each data set that is read in the layout of its owner."""
    parts = []
    for name in list_datasets():
        owner = dataset_info(name).owner
        if owner is not None:
            parts += [
                f"### {name}",
                "",
                "```",
                owner.tree,
                "```",
                "",
                f"{owner.parts[0].upper()}{owner.parts[1:]}.",
                "",
            ]
    return "\n".join(parts)


def short(name: str) -> str:
    """Return an AU's name without "AU" and zeros: "1" for "AU01", "12L" for "AU12L"."""
    return name.removeprefix("AU").lstrip("0")


def measured_table(models: tuple[str, ...]) -> str:
    """Return the lines of the results on the synthetic faces for these models."""
    lines = RESULTS.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| model |"))
    shown = tuple(f"| {name} |" for name in ("backbone alone", *models))
    rows = [*lines[start : start + 2], *(line for line in lines if line.startswith(shown))]
    notes = [line for line in lines if line.startswith(tuple(f"- `{name}`: " for name in models))]
    return "\n".join([*rows, "", "*without* means, for each model:", "", *notes, ""])


def rates_table() -> str:
    rates = {name: dict(zip(w.aus, w.statistics.rates, strict=True)) for name, w in worlds()}
    rows = [f"| AU | name | {' | '.join(DATA_SETS)} |", "|---|---|" + "--:|" * len(DATA_SETS)]
    for number in SHOWN_AUS:
        cells = [f"{rates[s][number]:.1%}" if number in rates[s] else "" for s in DATA_SETS]
        rows.append(f"| {number} | {action_unit(number).name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def information_table() -> str:
    rows = ["| data set | AUs | independent | with couplings | difference |"]
    rows.append("|---|--:|--:|--:|--:|")
    for name, world in worlds():
        r, p = world.statistics.rates, world.probabilities
        alone = -(r * np.log2(r) + (1 - r) * np.log2(1 - r)).sum()
        together = -(p[p > 0] * np.log2(p[p > 0])).sum()
        saved = alone - together
        rows.append(
            f"| {name} | {len(r)} | {alone:.2f} bits | {together:.2f} bits | {saved:.2f} bits |"
        )
    return "\n".join(rows) + "\n"


def pairs_table(name: str, most: int = 10) -> str:
    """Return a table of the pairs with the strongest positive or negative correlation."""
    world = label_world(name)
    joint, correlation = moments(name)
    rates = np.diag(joint)
    pairs = np.column_stack(np.triu_indices(len(rates), 1))
    strongest = sorted(pairs, key=lambda pair: -abs(correlation[tuple(pair)]))[:most]
    rows = ["| a, b | correlation | P(b given a) | P(a given b) |", "|---|--:|--:|--:|"]
    for i, j in strongest:
        rows.append(
            f"| {world.aus[i]}, {world.aus[j]} | {correlation[i, j]:+.2f} "
            f"| {joint[i, j] / rates[i]:.2f} | {joint[i, j] / rates[j]:.2f} |"
        )
    return "\n".join(rows) + "\n"


def moments(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that both AUs of a pair are present, and the correlation."""
    world = label_world(name)
    states = all_states(len(world.aus))
    joint = (states * world.probabilities[:, None]).T @ states
    rates = np.diag(joint)
    spread = np.sqrt(rates * (1 - rates))
    return joint, (joint - np.outer(rates, rates)) / np.outer(spread, spread)


def worlds() -> list[tuple[str, Any]]:
    return [(name, label_world(name)) for name in DATA_SETS]


def faces(folder: Path) -> None:
    names = AUSet.of("BP4D").names
    correlation = moments("BP4D")[1] - np.eye(len(names))
    draw_face_graph(correlation, names, folder / "relations.png", title="BP4D: correlations")

    aus = AUSet.of(list(SHOWN_AUS))
    figure = new_figure(6, 6.6)
    axes = figure.add_subplot()
    draw_face(axes)
    labels = zip(aus.numbers, aus.regions(), strict=True)
    points = anchors(aus)
    nodes = [label for label, own in zip(labels, points, strict=True) for _ in own]
    places = spread([point for own in points for point in own], 0.19)
    for (number, region), (x, y) in zip(nodes, places, strict=True):
        round_box = {"boxstyle": "circle", "facecolor": COLORS[region], "edgecolor": "white"}
        axes.text(x, y, f"{number:02d}", ha="center", va="center", fontsize=12, bbox=round_box)
    save_figure(figure, folder / "face.png")

"""Compare CONTRIBUTING.md with the registries, files and make targets."""

from __future__ import annotations

import inspect
import json
import re
from functools import cache
from pathlib import Path

import pytest

import aurel.layers
import aurel.ops
from aurel.models.registry import list_models, model_info
from aurel.ops.registration import OPERATORS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()

PARTS = ["chain_scan"]  # operators that only other operators call
OPS = [name for name in OPERATORS if not name.endswith("_backward") and name not in PARTS]
PUBLIC_OPS = [name for name in aurel.ops.__all__ if inspect.isfunction(getattr(aurel.ops, name))]
PUBLIC_OPS.remove("use_backend")
TRITON = [name for name in (*OPS, *PARTS) if "triton" in OPERATORS[name].kernels]
NUMBA = [name for name in OPS if "numba" in OPERATORS[name].kernels]
LAYERS = list(aurel.layers.__all__)
MASKED = [
    name
    for name in LAYERS
    if "mask" in inspect.signature(getattr(aurel.layers, name).forward).parameters
]


def sides_in_plots() -> list[str]:
    """Return the sides of the committed results that have a plot."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())["rows"]
    return sorted({side for row in rows if row["floor_ms"] for side in row["ms"]} - {"aurel"})


# For each path at the start of an item of a checklist: the names that have such a file, if the path
# has a <placeholder>, or that the file (or a file of the folder) mentions.
CHECKS = {
    "Add an op": {
        "aurel/ops/<op>.py": OPS,
        "aurel/ops/__init__.py": OPS,
        "tests/ops/test_<op>.py": OPS,
        "tests/helpers/operator_calls.py": OPS,
        "tests/properties/test_ops.py": OPS,
        "tests/mutation/selection.py": OPS,
        "benchmarks/bench_ops.py": OPS,
    },
    "Add a kernel": {
        "aurel/kernels/triton/<op>.py": TRITON,
        "tests/kernels/": TRITON,
        "tests/kernels/every_kernel.py": TRITON,
        "tests/kernels/test_triton_dispatch.py": TRITON,
        "tests/kernels/test_cuda.py": TRITON,
        "aurel/kernels/cpu/<op>.py": NUMBA,
    },
    "Add a layer": {
        "aurel/layers/<layer>.py": LAYERS,
        "aurel/layers/__init__.py": LAYERS,
        "tests/layers/": LAYERS,
        "tests/helpers/node_layers.py": MASKED,
        "tests/pyg/test_ragged.py": MASKED,
        "tests/helpers/map_layers.py": [name for name in LAYERS if name not in MASKED],
    },
    "Add a benchmark": {
        "benchmarks/bench_ops.py": [f"test_{name}" for name in PUBLIC_OPS],
        "benchmarks/report.py": sides_in_plots(),
    },
}


def section(title: str) -> str:
    """Return the text of CONTRIBUTING.md under a heading."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def checked_paths(title: str) -> list[str]:
    """Return the paths at the start of the items of a checklist."""
    return re.findall(r"^- \[ \] `([\w/<>.]+/[\w<>.]*)`", section(title), re.MULTILINE)


@pytest.mark.parametrize("title", CHECKS)
def test_every_path_of_a_checklist_is_compared(title: str) -> None:
    assert checked_paths(title) == list(CHECKS[title])


@pytest.mark.parametrize(
    ("path", "names"),
    [pair for paths in CHECKS.values() for pair in paths.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_registered_names_have_the_parts_of_their_checklist(path: str, names: list[str]) -> None:
    assert names and [name for name in names if not has_part(path, name)] == []


def has_part(path: str, name: str) -> bool:
    """Return whether the file of `name` exists, or the file or folder mentions `name`."""
    if "<" in path:
        return (ROOT / re.sub(r"<\w+>", file_stem(name), path)).is_file()
    return re.search(rf"\b(test_)?{name}\b", source(path)) is not None


def file_stem(name: str) -> str:
    """Return the name of the file of an op or a layer."""
    layer = getattr(aurel.layers, name, None)
    return name if layer is None else layer.__module__.rpartition(".")[2]


@cache
def source(path: str) -> str:
    """Return the text of a file, or of all Python files of a folder."""
    files = sorted((ROOT / path).glob("*.py")) if path.endswith("/") else [ROOT / path]
    return "\n".join(file.read_text() for file in files)


@pytest.mark.parametrize("name", list_models())
def test_a_model_has_its_parts(name: str) -> None:
    info = model_info(name)
    module = info.model.__module__.rpartition(".")[2]
    assert (ROOT / "tests" / "models" / f"test_{module}.py").is_file()
    assert (ROOT / "docs" / "models" / f"{module}.md").is_file()
    assert list((ROOT / "aurel" / "recipes").glob(f"{name}_*.yaml"))
    keys = ROOT / "aurel" / "models" / "author_keys" / f"{module}.py"
    assert keys.is_file() == (info.author_layout is not None)
    assert f"`{name}`" in source("README.md")


def test_paths_and_targets_that_are_named_exist() -> None:
    paths = re.findall(r"(?:`|\]\()((?:[\w.-]+/)+[\w.-]*|\w+\.md)(?:`|\))", TEXT)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    named = re.findall(r"`make ([a-z -]+)", TEXT) + re.findall(r"^make ([a-z -]+)", TEXT, re.M)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {target for line in named for target in line.split()} <= targets


def test_the_test_that_shows_how_to_run_one_exists() -> None:
    commands = re.findall(r"pytest -q (\S+?)(?:::(\w+))?(?: .*)?$", TEXT, re.MULTILINE)
    assert len(commands) == 3
    for path, test in commands:
        assert (ROOT / path).exists() and (not test or f"def {test}(" in source(path))

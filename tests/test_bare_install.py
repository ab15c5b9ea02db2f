"""Install the wheel in an environment with torch and numpy only."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

USE = """
import time, torch
start = time.process_time()
import aurel, aurel.kernels.triton
assert time.process_time() - start < 1.0, "import aurel is slow"
import sys
assert "triton" not in sys.modules and "timm" not in sys.modules
import aurel.layers, aurel.ops, aurel.losses, aurel.facs, aurel.metrics
layer = aurel.layers.TopKGraphConv(8, num_nodes=5, k=3)
out = layer(torch.randn(2, 5, 8))
assert out.shape == (2, 5, 8)
neighbors = aurel.ops.knn_graph(torch.randn(2, 5, 8), 3)
assert neighbors.shape == (2, 5, 3)
out.sum().backward()
try:
    import aurel.models
    aurel.models.create_model("me_graphau_stage1")
except ImportError as error:
    assert "aurel-au[models]" in str(error), error
else:
    raise AssertionError("no extra is missing")
"""


def closure(roots: list[str], without: set[str]) -> set[str]:
    """Return the installed distributions that `roots` need, without `without`."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found or name in without:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for line in requires:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
    return found


def link(distribution: str, target: Path) -> None:
    """Make `distribution` importable from `target` by links to its installation."""
    dist = metadata.distribution(distribution)
    for top in {file.parts[0] for file in dist.files or [] if file.parts[0] not in ("..", "/")}:
        source = Path(str(dist.locate_file(top)))
        place = target / top
        if source.exists() and not place.exists():
            place.symlink_to(source)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(ROOT)], check=True)
    return next(folder.glob("aurel_au-*.whl"))


@pytest.fixture(scope="module", params=[True, False], ids=["triton", "no-triton"])
def bare(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in closure(["torch", "numpy"], set() if request.param else {"triton"}):
        link(name, site)
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "-q", "--no-deps"]
    subprocess.run([*command, "--no-index", str(wheel)], check=True)
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AUREL"))}
    return subprocess.run(
        [str(folder / "bin" / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )


@pytest.mark.slow
def test_layers_work_and_a_missing_extra_is_named(bare: Path) -> None:
    done = run(bare, "python", "-c", USE)
    assert done.returncode == 0, done.stderr


def test_help_works_without_extras(bare: Path) -> None:
    done = run(bare, "aurel", "--help")
    assert done.returncode == 0, done.stderr
    for command in ("demo", "fit", "test", "predict", "graph", "models", "recipes"):
        assert command in done.stdout


def test_recipes_are_in_the_wheel(bare: Path) -> None:
    done = run(bare, "aurel", "recipes")
    listed = {line.split()[0] for line in done.stdout.partition("\n\n")[0].splitlines()}
    assert listed == {path.stem for path in (ROOT / "aurel" / "recipes").glob("*.yaml")}


@pytest.mark.slow
def test_fit_finds_a_recipe_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    packages = sysconfig.get_paths()["purelib"]
    fit = (
        f"import sys; sys.path[:0] = [{str(tmp_path / 'site')!r}]; sys.path.append({packages!r});"
        "from aurel.cli.main import main; sys.exit(main(['fit', '--config', 'sacl_bp4d']))"
    )
    command = [sys.executable, "-I", "-S", "-c", fit]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "data.root must be the folder of BP4D, got None" in done.stderr
    )  # because the recipe was read

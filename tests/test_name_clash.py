"""The distribution `aurel`, which installs into the folder of `aurel-au`, is named in errors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
OTHER = '"""Numerical relativity."""\n__version__ = "0.10.0"\n'
CURE = "pip uninstall aurel, then pip install --force-reinstall --no-deps aurel-au"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages with `aurel-au`."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "aurel", tmp_path / "aurel", ignore=skip)
    (tmp_path / "aurel_au-0.1.0.dist-info").mkdir()
    return tmp_path


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with `site` first and no other installation of `aurel-au` on the path."""
    packages = str(Path(torch.__file__).parents[1])
    code = f"import sys; sys.path[:0] = [{str(site)!r}]; sys.path.append({packages!r})\n{code}"
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=site)


def install_other(site: Path) -> None:
    (site / "aurel-0.10.0.dist-info").mkdir()
    (site / "aurel" / "__init__.py").write_text(OTHER)


def uninstall_other(site: Path) -> None:
    (site / "aurel-0.10.0.dist-info").rmdir()
    (site / "aurel" / "__init__.py").unlink()


def test_aurel_au_alone_gives_no_warning(site: Path) -> None:
    done = run(site, "import aurel, aurel.layers, aurel.cli, aurel.facs; print(aurel.__file__)")
    assert done.stdout.strip() == str(site / "aurel" / "__init__.py") and not done.stderr


IMPORT_EACH = """
import importlib, sys
for part in ("layers", "facs", "cli.main"):
    try:
        importlib.import_module(f"aurel.{part}")
    except ImportError as error:
        print(part, error)
    for name in [name for name in sys.modules if name.partition(".")[0] == "aurel"]:
        del sys.modules[name]
"""


def test_a_package_replaced_or_removed_is_an_error(site: Path) -> None:
    install_other(site)
    replaced = run(site, IMPORT_EACH).stdout.splitlines()
    uninstall_other(site)
    removed = run(site, IMPORT_EACH).stdout.splitlines()
    for word, errors in (("replaced", replaced), ("removed", removed)):
        assert [error.split()[0] for error in errors] == ["layers", "facs", "cli.main"]
        for error in errors:
            assert f"aurel-au was {word} by another distribution, 'aurel'" in error
            assert CURE in error


def test_a_package_installed_over_the_other_warns_and_works(site: Path) -> None:
    install_other(site)
    shutil.copy(ROOT / "aurel" / "__init__.py", site / "aurel")
    done = run(site, "import aurel.layers; print(aurel.__version__, aurel.layers.TopKGraphConv)")
    assert done.stdout.startswith("0.1.0 <class") and done.returncode == 0
    assert "UserWarning: another distribution, 'aurel', shares the folder" in done.stderr
    assert CURE in " ".join(done.stderr.split())


def test_the_warning_costs_less_than_a_millisecond(site: Path) -> None:
    code = (
        "import aurel.name_clash as n, timeit;"
        "print(min(timeit.repeat(n.warn_of_other, number=10, repeat=5)) / 10)"
    )
    for number in range(1000):  # a large environment
        (site / f"package_{number}-1.0.dist-info").mkdir()
    assert float(run(site, code).stdout) < 1e-3

"""The version, addresses and supported versions agree in all files of the project."""

from __future__ import annotations

import ast
import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import aurel

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GITHUB = sorted((ROOT / ".github").rglob("*.yml"))
OLDEST = dict(
    line.split("==")
    for line in (ROOT / "constraints-oldest.txt").read_text().split()
    if "==" in line
)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def pythons() -> list[str]:
    """Return the versions of Python that the classifiers name."""
    found = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    return sorted(found, key=lambda version: int(version[2:]))


def test_the_citation_has_the_version_and_the_authors() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == PROJECT["version"] == aurel.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]


def test_every_address_of_the_project_is_the_same() -> None:
    home = PROJECT["urls"]["Source"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())
    owner_and_name = re.escape(home.partition("github.com/")[2])
    for path in (ROOT / "SECURITY.md", ROOT / "CITATION.cff", *GITHUB):
        for found in re.findall(r"github\.com/([\w-]+/aurel\b)", path.read_text()):
            assert re.fullmatch(owner_and_name, found), path


def test_links_of_the_readme_are_absolute_and_lead_to_files() -> None:
    """The package index shows README.md without the files of the repository."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)\s]+)\)|<img[^>]*src=\"([^\"]+)", text)
    targets = [inline or image for inline, image in links]
    assert targets and [target for target in targets if not target.startswith("https://")] == []
    owner_and_name = PROJECT["urls"]["Source"].partition("github.com/")[2]
    address = (
        rf"https://(?:raw\.githubusercontent|github)\.com/{owner_and_name}/(?:blob/)?main/(.+)"
    )
    paths = [found[1] for target in targets if (found := re.fullmatch(address, target))]
    assert paths and [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    extras = chain.from_iterable(PROJECT["optional-dependencies"].values())
    needs = [Requirement(line) for line in (*PROJECT["dependencies"], *extras)]
    bounds = {
        need.name: spec.version
        for need in needs
        for spec in need.specifier
        if spec.operator == ">=" and need.name in OLDEST
    }
    assert {"torch", "numpy", "numba", "timm"} == set(bounds)
    for name, bound in bounds.items():
        assert f"{OLDEST[name]}.".startswith(f"{bound}."), name


def test_ci_runs_every_python_and_the_oldest_versions() -> None:
    jobs = read_yaml(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    runs = jobs["linux"]["strategy"]["matrix"]["include"]
    assert {run["python"] for run in runs} == set(pythons())
    assert PROJECT["requires-python"] == f">={pythons()[0]}"
    pins = {run["versions"]: run.get("pins", "").removeprefix("-c ") for run in runs}
    assert pins["oldest"] == "constraints-oldest.txt" and pins["newest"] == ""
    assert (ROOT / pins["pinned"]).is_file()
    systems = jobs["without-triton"]["strategy"]["matrix"]["os"]
    assert systems == ["macos-latest", "windows-latest"]


def test_the_install_page_states_the_oldest_versions() -> None:
    page = (ROOT / "docs" / "start.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", page, re.MULTILINE))
    assert rows["Python"] == pythons()[0]
    for name in ("torch", "numpy", "triton", "numba"):
        assert f"{OLDEST[name]}.".startswith(f"{rows[name]}."), name


@pytest.mark.parametrize("path", GITHUB, ids=lambda path: path.stem)
def test_templates_and_workflows_can_be_read(path: Path) -> None:
    content = read_yaml(path)
    if path.parent.name == "ISSUE_TEMPLATE" and path.stem != "config":
        assert content["name"] and content["description"]
        assert all(field["attributes"]["label"] for field in content["body"])


def test_commits_are_checked_by_ruff() -> None:
    hooks = [hook["id"] for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
             for hook in repo["hooks"]]  # fmt: skip
    assert {"ruff-check", "ruff-format"} <= set(hooks)


def test_files_and_functions_of_the_package_are_short() -> None:
    """At most 350 lines a file and 60 a function, as the style says."""
    long = []
    for path in sorted((ROOT / "aurel").rglob("*.py")):
        text = path.read_text()
        if len(text.splitlines()) > 350:
            long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:  # type: ignore[operator]
                long.append(f"{path.name}: {node.name}")
    assert long == []

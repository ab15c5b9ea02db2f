"""Which small faults in the ops and losses do the tests notice? `make mutants`.

Every mutant is written into a copy of the tree and tested in a fork of this process, which has
torch loaded already. Tests that compile or export are left out; hypothesis draws few examples.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import is_hypothesis_test, settings
from mutate import mutants_of
from selection import ROOT, tests_of

COPIED = ("aurel", "tests")
LOADED = ("torch.export", "torch._dynamo", "torch.testing._internal.optests", "numpy.testing")
OPTIONS = ["-x", "-q", "-p", "_hypothesis_pytestplugin"]
SURVIVED = "survived"
MEMORY = 24 * 2**30


class FewExamples:
    """A plugin: no test draws more than these."""

    most = 20

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        functions = {item.function for item in items if isinstance(item, pytest.Function)}
        for function in filter(is_hypothesis_test, functions):
            own = function._hypothesis_internal_use_settings
            few = settings(own, max_examples=min(self.most, own.max_examples))
            function._hypothesis_internal_use_settings = few


def start(tree: Path, tests: list[tuple[str, list[str]]], seconds: int) -> int:
    """Run tests in a fork, limited in processor time; return its process."""
    process = os.fork()
    if process:
        return process
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sink = os.open(tree / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for wanted, files in tests:
        selection = f"({wanted or 'test'}) and not compile and not export"
        code = pytest.main([*OPTIONS, "-k", selection, *files], plugins=[FewExamples()])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            os._exit(1)
    os._exit(0)


def outcome(status: int) -> str:
    """Name what the status of a test process says."""
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return SURVIVED if os.WEXITSTATUS(status) == 0 else "killed"


def put(tree: Path, path: str, code: str, second: int) -> None:
    """Write a file of an age of its own, by which Python knows what it has compiled."""
    (tree / path).write_text(code)
    os.utime(tree / path, (second, second))


def drawn(path: str, most: int | None) -> dict[str, str]:
    """Return mutants of a file by what tells them apart, or at most so many, always the same."""
    mutants = dict[str, str]()
    for line, code in mutants_of((ROOT / path).read_text()):
        name = f"{path}: {line}"
        while name in mutants:
            name += " (again)"
        mutants[name] = code
    return dict(random.Random(0).sample(list(mutants.items()), len(mutants))[:most])


def tested(path: str, mutants: dict[str, str], trees: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield what becomes of mutants of a file, by their names."""
    tests = tests_of(path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    _, status = os.waitpid(start(trees[0], tests, 1000), 0)
    if outcome(status) != SURVIVED:
        raise RuntimeError(f"the tests of {path} fail:\n{(trees[0] / 'output').read_text()}")
    limit = 20 + 5 * int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    waiting, free, running = list(mutants), list(trees), dict[int, tuple[Path, str]]()
    age = itertools.count(1)
    while waiting or running:
        while waiting and free:
            name, tree = waiting.pop(0), free.pop()
            put(tree, path, mutants[name], next(age))
            running[start(tree, tests, limit)] = tree, name
        process, status = os.wait()
        tree, name = running.pop(process)
        put(tree, path, (ROOT / path).read_text(), 0)
        free.append(tree)
        yield name, outcome(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="those to mutate; all ops and losses if none")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=ROOT / "build/mutants")
    parser.add_argument("--sample", type=int, help="how many mutants of a file, at most")
    parser.add_argument("--again", action="store_true", help="only those that survived before")
    args = parser.parse_args()
    all_files = sorted([*ROOT.glob("aurel/losses/*.py"), *ROOT.glob("aurel/ops/*.py")])
    files = args.files or [str(file.relative_to(ROOT)) for file in all_files]
    args.results.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in LOADED:
        import_module(name)
    gc.freeze()
    known, unknown, total = read_survivors(), [], Counter[str]()
    print("| file | mutants | killed | survived | score |\n| --- | --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as room:
        trees = [plant(Path(room) / str(job)) for job in range(args.jobs)]
        for path in files:
            report = args.results / f"{Path(path).stem}.json"
            mutants = drawn(path, args.sample)
            became = json.loads(report.read_text()) if args.again else {}
            asked = {
                name: mutants[name] for name in mutants if became.get(name, SURVIVED) == SURVIVED
            }
            became |= tested(path, asked, trees)
            report.write_text(json.dumps(became, indent=1) + "\n")
            count = Counter(became[name] for name in mutants)
            total += count
            print(row(path, count), flush=True)
            unknown += [name for name in mutants if became[name] == SURVIVED and name not in known]
    print(row("all", total))
    if unknown:
        sys.exit("\n".join(["Not in survivors.txt:", *unknown]))


def plant(tree: Path) -> Path:
    """Copy what tests need to `tree`, and return it."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy2(ROOT / "pyproject.toml", tree)
    return tree


def read_survivors() -> set[str]:
    """Return the mutants that have been read and found to stay."""
    lines = (Path(__file__).parent / "survivors.txt").read_text().splitlines()
    return {line for line in lines if "=>" in line}


def row(name: str, count: Counter[str]) -> str:
    """Return what became of a file's mutants as a row of a table."""
    killed = count.total() - count[SURVIVED]
    share = f"{100 * killed / count.total():.0f} %"
    return f"| {name} | {count.total()} | {killed} | {count[SURVIVED]} | {share} |"


if __name__ == "__main__":
    main()

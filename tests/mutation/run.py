"""Count the small faults in ops and losses that the tests detect: `make mutants`.

Every mutant is written into a copy of the tree and tested in a fork of this process, which has
torch loaded already. Tests that compile or export are left out; hypothesis runs few examples.
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
    """A plugin that limits the examples of every test."""

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
    for names, files in tests:
        selection = f"({names or 'test'}) and not compile and not export"
        code = pytest.main([*OPTIONS, "-k", selection, *files], plugins=[FewExamples()])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            os._exit(1)
    os._exit(0)


def outcome(status: int) -> str:
    """Return the result of a test process, by its exit status."""
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return SURVIVED if os.WEXITSTATUS(status) == 0 else "killed"


def write_mutant(tree: Path, path: str, code: str, second: int) -> None:
    """Write a file with a time of its own, by which Python notices the change."""
    (tree / path).write_text(code)
    os.utime(tree / path, (second, second))


def sampled(path: str, most: int | None) -> dict[str, str]:
    """Return the mutants of a file by unique names; at most `most`, always the same sample."""
    mutants = dict[str, str]()
    for line, code in mutants_of((ROOT / path).read_text()):
        name = f"{path}: {line}"
        while name in mutants:
            name += " (again)"
        mutants[name] = code
    return dict(random.Random(0).sample(list(mutants.items()), len(mutants))[:most])


def tested(path: str, mutants: dict[str, str], trees: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield the result of each mutant of a file, by its name."""
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
            write_mutant(tree, path, mutants[name], next(age))
            running[start(tree, tests, limit)] = tree, name
        process, status = os.wait()
        tree, name = running.pop(process)
        write_mutant(tree, path, (ROOT / path).read_text(), 0)
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
    with tempfile.TemporaryDirectory() as folder:
        trees = [copy_tree(Path(folder) / str(job)) for job in range(args.jobs)]
        for path in files:
            report = args.results / f"{Path(path).stem}.json"
            mutants = sampled(path, args.sample)
            results = json.loads(report.read_text()) if args.again else {}
            remaining = {
                name: mutants[name] for name in mutants if results.get(name, SURVIVED) == SURVIVED
            }
            results |= tested(path, remaining, trees)
            report.write_text(json.dumps(results, indent=1) + "\n")
            count = Counter(results[name] for name in mutants)
            total += count
            print(row(path, count), flush=True)
            unknown += [name for name in mutants if results[name] == SURVIVED and name not in known]
    print(row("all", total))
    if unknown:
        sys.exit("\n".join(["Not in survivors.txt:", *unknown]))


def copy_tree(tree: Path) -> Path:
    """Copy what tests need to `tree`, and return it."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy2(ROOT / "pyproject.toml", tree)
    return tree


def read_survivors() -> set[str]:
    """Return the mutants that were examined and are accepted."""
    lines = (Path(__file__).parent / "survivors.txt").read_text().splitlines()
    return {line for line in lines if "=>" in line}


def row(name: str, count: Counter[str]) -> str:
    """Return the results of a file's mutants as a row of a table."""
    killed = count.total() - count[SURVIVED]
    share = f"{100 * killed / count.total():.0f} %"
    return f"| {name} | {count.total()} | {killed} | {count[SURVIVED]} | {share} |"


if __name__ == "__main__":
    main()

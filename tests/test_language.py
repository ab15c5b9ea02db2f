"""Search identifiers, comments, docstrings, messages and pages for words outside the glossary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Patterns of the files and folders to search.
COVERED = (
    "aurel",
    "benchmarks",
    "docs",
    "examples",
    "tests",
    ".ci",
    ".github",
    "*.cff",
    "*.md",
    "*.toml",
    "*.txt",
    "Makefile",
)
SUFFIXES = {"", ".cff", ".md", ".py", ".rst", ".toml", ".txt", ".yaml", ".yml"}
SKIPPED = (
    # generated files
    "docs/_build",
    "docs/_generated",
    "docs/gallery",
    # the words of this test
    "tests/test_language.py",
)

METAPHORS = (
    "absentees?|deaf(en|ened)?|deserted|doors?|hear(s|d|ing)?|house|listen(s|ed|ing|ers?)?|"
    "mend(s|ed|ing)?|nobody|ours|rooms?|tell(s|ing)?|theirs|told|wanted|wants"
)
BRITISH = (
    "analys(e|ed|ing)|artefacts?|(behavi|col|fav|hon|neighb)our\\w*|cancell(ed|ing)|catalogues?|"
    "(re|de)?centr(e|es|ed|ing)|defence|grey\\w*|labell(ed|ing)|learnt|licen(ce|ces|ced)|metres?|"
    "modell(ed|ing)|programmes?|spoilt|towards|travell(ed|ing)|whilst|"
    "(categor|custom|discret|equal|factor|final|general|initial|local|material|maxim|minim|normal|"
    "optim|organ|parallel|parametr|penal|quant|random|real|recogn|regular|serial|special|standard|"
    "summar|symmetr|synchron|synthes|token|util|vector|visual)is(e|es|ed|ers?|ing|ations?)"
)
DRAW = "draws?|drawn|drew|drawing"  # weights are initialized, values are sampled
WORDS = re.compile(rf"(?<![a-z])({METAPHORS}|{BRITISH}|{DRAW})(?![a-z])", re.ASCII)
# Files and folders with pictures, which may be drawn.
PICTURES = (
    "aurel/cli",
    "aurel/data/synthetic",
    "aurel/vision",
    "aurel/viz",
    "benchmarks/bench_data.py",
    "benchmarks/report.py",
    "docs",
    "examples",
    "tests/cli",
    "tests/data",
    "tests/test_examples.py",
    "tests/vision",
    "tests/viz",
)
ALLOWED = {
    "CHANGELOG.md": re.compile("listen"),  # the old name of a method
    "CONTRIBUTING.md": WORDS,  # the glossary
    "aurel/layers/self_adjusting_gcn.py": re.compile("listen"),  # the old name of a method
    "aurel/vision/videos.py": re.compile("tell"),  # a method of files
    "tests/layers/test_self_adjusting_gcn.py": re.compile("listen"),  # the old name of a method
}


def covered(suffixes: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each covered file with one of the suffixes."""
    for pattern in COVERED:
        for start in ROOT.glob(pattern):
            for file in sorted(start.rglob("*")) if start.is_dir() else [start]:
                path = file.relative_to(ROOT).as_posix()
                if file.is_file() and file.suffix in suffixes and not path.startswith(SKIPPED):
                    yield path, file.read_text(encoding="utf-8")


def excluded_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the word for each excluded word of a text."""
    separate = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    for match in WORDS.finditer(separate):
        yield separate.count("\n", 0, match.start()) + 1, match[0]


def is_allowed(path: str, word: str) -> bool:
    """Return whether a file may contain an excluded word."""
    if re.fullmatch(DRAW, word) and path.startswith(PICTURES):
        return True
    if word == "draw" and path.startswith("tests/"):  # a function of hypothesis
        return True
    return path in ALLOWED and ALLOWED[path].fullmatch(word) is not None


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each docstring of a source file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                yield getattr(node, "lineno", 1), docstring


def test_words_of_the_glossary() -> None:
    found = [
        f"{path}:{line}: {word}"
        for path, text in covered(SUFFIXES)
        for line, word in excluded_words(text)
        if not is_allowed(path, word)
    ]
    assert found == []


def test_docstrings_do_not_open_with_what_and_have_several_words() -> None:
    found = [
        f"{path}:{line}: {docstring.splitlines()[0]}"
        for path, text in covered({".py"})
        for line, docstring in docstrings(text)
        if re.match(r"What\b", docstring) or len(docstring.split()) < 2
    ]
    assert found == []


def test_headings_do_not_open_with_what() -> None:
    found = [
        f"{path}: {heading}"
        for path, text in covered({".md", ".rst"})
        for heading in re.findall(r"^#+ What\b.*|^What\b.*(?=\n[-=~]{4})", text, re.MULTILINE)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class DeafAttention: neighbour_list = 1", ["deaf", "neighbour_list"]),
        (
            "# Node i listens\nCOLOUR, getCentre(), wanted",
            ["listens", "colour", "centre", "wanted"],
        ),
        ("normalised drawn labels, nobody's", ["normalised", "drawn", "nobody"]),
        ("yours, hours, raise, precise, classroom, backward, withdrawn, center, headers", []),
    ],
)
def test_words_are_found_in_identifiers_and_text(text: str, words: list[str]) -> None:
    assert [word for _, word in excluded_words(text)] == words
    assert [line for line, _ in excluded_words("\n" + text)][:1] == ([2] if words else [])

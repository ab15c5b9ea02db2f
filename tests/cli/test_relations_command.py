"""`aurel relations`: files of the report, what it says, and errors in one line."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import networkx
import numpy as np
import pytest

from aurel.cli.main import main
from aurel.cli.relation_report.document import (
    Bullets,
    Heading,
    Paragraph,
    Picture,
    Table,
    to_html,
    to_markdown,
)
from aurel.data.synthetic import label_world

QUICK = ["--resamples", "30", "--lag", "0.2"]


def write_study(folder: Path, people: int, rows: int = 150) -> None:
    """Write OpenFace tables of people at rest and under stress, in which AU04 is commoner."""
    world, rng = label_world("BP4D"), np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    header = ["frame", " timestamp", " confidence", " success"]
    header += [f" AU{au:02d}_c" for au in world.aus] + [" AU45_c"]
    for person in range(people):
        for condition in ("rest", "stress"):
            labels = world.sample_clip(rows, rng, speed=5)
            if condition == "stress":
                labels[:, 2] = rng.random(rows) < 0.8
            with (folder / f"P{person:02d}_{condition}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                for row, label in enumerate(labels.tolist()):
                    writer.writerow([row + 1, row / 25, 0.2 if row == 7 else 0.9, 1, *label, 0])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Checker(HTMLParser):
    """Counts elements, and finds those that are not closed or reach outside the file."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "href" not in dict(attrs)
        if tag == "img":
            self.pictures.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relations")
    write_study(folder / "tables", people=8)
    groups = ["--group", r"file:(P\d+)", "--condition", "file:_([a-z]+)"]
    out = folder / "out"
    assert main(["relations", str(folder / "tables"), *groups, "--out", str(out), *QUICK]) == 0
    return out


def test_the_report_is_one_file_with_its_pictures_inside(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(checker.pictures) == 4
    for picture in checker.pictures:
        assert picture["alt"] and str(picture["src"]).startswith("data:image/png;base64,")


def test_the_report_says_what_was_read_and_what_was_found(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    for said in (
        "8 people, 2,384 frames with a known AU, 13 AUs",
        "resampling 8 people",
        "rest and stress compared",
        "8 people are seen under both conditions and 0 under one",
        "never present",
        "P00_rest.csv",
    ):
        assert said in text, said
    assert "nan" not in text.split("base64")[0].lower()


def test_all_statistics_are_in_csv_files(report: Path) -> None:
    rates = {row["au"]: row for row in rows_of(report / "rates.csv")}
    assert len(rates) == 13 and rates["AU45"]["rate"] == "0" and rates["AU45"]["low"] == ""
    pairs = rows_of(report / "pairs.csv")
    assert len(pairs) == 13 * 12 // 2
    first = pairs[0]
    assert (first["au"], first["other_au"]) == ("AU01", "AU02")
    assert float(first["phi_low"]) < float(first["phi"]) < float(first["phi_high"])
    assert float(first["phi_p"]) <= float(first["phi_q"])
    assert all(row["phi"] == "" for row in pairs if row["other_au"] == "AU45")
    assert len(rows_of(report / "lagged.csv")) == 13 * 12
    assert len(rows_of(report / "starts.csv")) == 13 * 12 // 2
    assert {row["aus"] for row in rows_of(report / "patterns.csv")} >= {"AU06+AU12"}
    files = rows_of(report / "files.csv")
    assert len(files) == 16 and all(row["low_confidence"] == "1" for row in files)
    changes = {row["au"]: row for row in rows_of(report / "compare_rest_stress_rates.csv")}
    assert float(changes["AU04"]["difference"]) > 0.3
    assert float(changes["AU04"]["difference_p"]) < 0.02 <= float(changes["AU45"]["difference_p"])


def test_the_graph_holds_what_survives(report: Path) -> None:
    graph = networkx.read_graphml(report / "relations.graphml")
    assert not graph.is_directed() and len(graph) == 13
    assert graph.nodes["AU12"]["title"] == "Lip corner puller"
    survivors = {
        (row["au"], row["other_au"])
        for row in rows_of(report / "pairs.csv")
        if row["phi_q"] and float(row["phi_q"]) <= 0.05
    }
    assert {tuple(sorted(edge)) for edge in graph.edges} == survivors and survivors
    assert all(abs(data["weight"]) <= 1 for *_, data in graph.edges(data=True))


def test_markdown_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "tables", people=1)
    tables = sorted(map(str, (tmp_path / "tables").iterdir()))
    options = ["--format", "md", "--level", "0.8", "--patterns", "6+12+45", "AU6+AU12"]
    out = tmp_path / "out"
    assert main(["relations", *tables, "--out", str(out), *options, *QUICK]) == 0
    assert "report.md" in capsys.readouterr().out
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "fewer than six people" in text and "80 % intervals" in text
    assert [row["aus"] for row in rows_of(out / "patterns.csv")] == ["AU06+AU12+AU45", "AU06+AU12"]
    for name in ("together.png", "couplings.png", "matrix.png", "following.png"):
        assert f"({name})" in text and (out / name).stat().st_size > 0


@pytest.mark.parametrize("cell", ["0", "1", ""])
def test_a_table_without_any_relation_has_a_report(tmp_path: Path, cell: str) -> None:
    rows = [f"{n},{cell},{cell},{n % 2}" for n in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["frame,AU01_c,AU02_c,AU12_c", *rows]))
    out = tmp_path / "out"
    assert main(["relations", str(tmp_path / "a.csv"), "--out", str(out), *QUICK]) == 0
    assert "No pair survives" in (out / "report.html").read_text(encoding="utf-8")
    assert len(networkx.read_graphml(out / "relations.graphml").edges) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.csv"], "missing.csv"),
        (["empty"], "empty: no .csv, .tsv"),
        (["smooth"], "smooth must have TABLE and --labels FILE"),
        (["a.csv", "--patterns", "6"], "--patterns must be AUs joined by +"),
        (["a.csv", "--patterns", "six+12"], "got 'six+12'"),
        (["a.csv", "--kind", "loud"], "au_kind must be auto"),
        (["a.csv", "--group", "who"], "person must be a column of the table, got 'who'"),
        (["bad.csv"], "bad.csv, line 2: AU01_c must be a number"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("frame,AU01_c\n0,1\n1,0\n")
    (tmp_path / "bad.csv").write_text("frame,AU01_c\n0,yes\n")
    (tmp_path / "empty").mkdir()
    assert main(["relations", *arguments, "--out", "out", *QUICK]) == 2
    stderr = capsys.readouterr().err
    assert said in stderr and stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_called_smooth_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{n},{n % 2},{n // 2 % 2}" for n in range(40)]
    (tmp_path / "smooth").write_text("\n".join(["frame,AU01_c,AU12_c", *rows]))
    assert main(["relations", "./smooth", "--out", "out", *QUICK]) == 0


def test_real_tables(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "real"
    openface = [str(folder / "OpenFace_Test.csv")]
    pyfeat = sorted(map(str, folder.glob("pyfeat_news_0*.csv")))
    for number, tables in enumerate((openface, pyfeat)):
        out = tmp_path / f"{number}"
        assert main(["relations", *tables, "--fps", "30", "--out", str(out), *QUICK]) == 0
        assert "nan" not in (out / "report.html").read_text().split("base64")[0].lower()
    assert main(["relations", str(folder), "--out", str(tmp_path / "all"), *QUICK]) == 2


def test_documents(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    blocks = [
        Heading("A & B"),
        Paragraph("x < y"),
        Bullets(["one", "two"]),
        Table(("name", "n"), [("a|b", "1.5"), ("c", "–")]),
        Picture("a.png", "What it shows. And how."),
    ]
    page = to_html("T", blocks, tmp_path)
    assert "<h2>A &amp; B</h2>" in page and "x &lt; y" in page and "<li>two</li>" in page
    assert '<td class="number">1.5</td>' in page and "<td>a|b</td>" in page
    assert 'alt="What it shows"' in page and "base64,cG5n" in page
    text = to_markdown("T", blocks)
    assert "| a\\|b | 1.5 |" in text and "| --- | --: |" in text and "- two" in text
    assert "![What it shows](a.png)" in text

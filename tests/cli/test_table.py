"""`aurel table` on written result files, and its formats."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from aurel.cli.main import main
from aurel.cli.table_formats import as_latex, latex_escaped, short_name
from aurel.training.comparison import Line, ResultTable, collect, compare

AUS = [f"AU{au:02}" for au in (1, 2, 4, 6, 9, 12, 25, 26)]
RECIPE = "seed: 0\nmodel: {name: sacl}\ndata: {dataset: DISFA, fold: 1}\nout: null\n"


def result(folder: Path, fold: int = 1, seed: int = 0, **changes: Any) -> float:
    """Write a result file into ``folder/fold...``; return its mean F1."""
    f1 = {name: 0.5 + 0.01 * index + 0.02 * fold + 0.001 * seed for index, name in enumerate(AUS)}
    f1["mean"] = statistics.fmean(f1.values())
    scores = {name: {"f1": v, "accuracy": 0.9, "auc": 0.8, "ece": 0.1} for name, v in f1.items()}
    tuned = {name: {**row, "f1": row["f1"] + 0.1} for name, row in scores.items()}
    content = {
        "format": 1,
        "model": "sacl",
        "backbone": "rest_lite",
        "dataset": "DISFA",
        "fold": fold,
        "trained_on": {"dataset": "DISFA", "fold": fold},
        "seed": seed,
        "protocol": "held-out",
        "select_on": "validation",
        "selection": "the epoch with the best mean F1 on the validation part",
        "aus": AUS,
        "people": {"train": 15, "validation": 3, "test": 9},
        "split_checksum": f"s{fold}",
        "test_checksum": f"t{fold}",
        "scores": scores,
        "tuned_scores": tuned,
        "recipe": RECIPE.replace("fold: 1", f"fold: {fold}").replace("seed: 0", f"seed: {seed}"),
        **changes,
    }
    if content["tuned_scores"] is None:
        del content["tuned_scores"]
    file = folder / f"seed{seed}" / f"fold{fold}" / "results.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    return 100 * f1["mean"]


def test_means_and_spreads_over_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    means = [result(tmp_path / "a_b", fold) for fold in (1, 2, 3)]
    command = ["table", str(tmp_path / "a_b"), "--format", "csv", "--each"]
    assert main(command) == 0
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert float(rows["a_b"]["mean"]) == pytest.approx(statistics.fmean(means), abs=1e-4)
    assert rows["a_b"]["AU04"] == "56.0000" and rows["a_b"]["kind"] == "mean"
    assert float(rows["std"]["mean"]) == pytest.approx(statistics.stdev(means), abs=1e-4)
    assert float(rows["a_b, fold 2, seed 0"]["mean"]) == pytest.approx(means[1], abs=1e-4)
    assert float(rows["a_b, tuned thresholds"]["AU04"]) == pytest.approx(66)
    reported = rows["reported: SACL, Liu et al. 2024"]
    assert reported["kind"] == "reported" and reported["AU25"] == "95.6000"
    assert reported["mean"] == "65.5000"


def test_the_spread_over_seeds_is_that_of_their_means(tmp_path: Path) -> None:
    by_seed = [[result(tmp_path / "run", fold, seed) for fold in (1, 2)] for seed in (0, 1, 2)]
    (table,) = compare([collect(tmp_path / "run")], "f1")
    mean, std = table.lines[:2]
    assert mean.kind == "mean" and std.kind == "std"
    averages = [statistics.fmean(folds) for folds in by_seed]
    assert mean.values[-1] == pytest.approx(statistics.fmean(averages))
    assert std.values[-1] == pytest.approx(statistics.stdev(averages))
    assert any("folds 1, 2 of 3; seeds 0, 1, 2; std over 3 seeds" in note for note in table.notes)


def test_scores_that_are_not_defined_are_left_out_of_the_mean(tmp_path: Path) -> None:
    for fold in (1, 2):
        result(tmp_path / "run", fold)
    file = tmp_path / "run/seed0/fold1/results.json"
    content = json.loads(file.read_text())
    content["scores"]["AU09"]["f1"] = None
    file.write_text(json.dumps(content))
    (table,) = compare([collect(tmp_path / "run")], "f1")
    index = AUS.index("AU09")
    assert table.lines[0].values[index] == pytest.approx(100 * (0.5 + 0.04 + 0.04))
    assert "-" in main_output(["table", str(tmp_path / "run"), "--each"])


def main_output(command: list[str]) -> str:
    out = Path(command[1]) / "out.txt"
    assert main([*command, "--out", str(out)]) == 0
    return out.read_text()


def test_metrics_without_a_threshold_have_no_tuned_row(tmp_path: Path) -> None:
    result(tmp_path / "run")
    (table,) = compare([collect(tmp_path / "run")], "auc")
    assert [line.kind for line in table.lines] == ["run"] and "tuned" not in str(table.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "published"}, "one recipe, got protocol held-out in .* and published in"),
        ({"model": "macg"}, "got model sacl in .* and macg in"),
        ({"test_checksum": "other"}, "one split, got other test people or labels of fold 1 in"),
        ({"recipe": RECIPE + "losses: {dice: 2}\n"}, "got another losses.dice in"),
        ({"tested_with": RECIPE.replace("fold", "crop: 9, fold")}, "got another data.crop in"),
    ],
)
def test_a_mixture_in_one_folder_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    result(tmp_path, 1, 0)
    result(tmp_path, 1, 1, **changes)
    with pytest.raises(ValueError, match=message):
        collect(tmp_path)


def test_one_result_twice_is_refused(tmp_path: Path) -> None:
    result(tmp_path / "a")
    result(tmp_path / "b")
    with pytest.raises(ValueError, match="must hold a result once, got"):
        collect(tmp_path)


def test_rows_on_other_data_and_protocols_are_marked(tmp_path: Path) -> None:
    result(tmp_path / "first")
    result(tmp_path / "same")
    result(tmp_path / "other", test_checksum="x", protocol="published", tuned_scores=None)
    sources = [collect(tmp_path / name) for name in ("first", "same", "other")]
    (table,) = compare(sources, "f1")
    labels = [line.label for line in table.lines]
    assert "same, fold 1, seed 0" in labels and "other, fold 1, seed 0*" in labels
    notes = "\n".join(table.notes)
    assert "* people or labels of a fold differ from those of first" in notes
    assert "the rows are of different protocols: held-out, published" in notes


def test_why_there_is_no_tuned_row(tmp_path: Path) -> None:
    people = {"train": 18, "validation": 0, "test": 9}
    result(tmp_path / "a", tuned_scores=None, people=people)
    result(tmp_path / "b", tuned_scores=None)
    (table,) = compare([collect(tmp_path / "a"), collect(tmp_path / "b")], "f1")
    notes = "\n".join(table.notes)
    assert "a: no tuned thresholds, since its protocol has no validation people" in notes
    assert "b: thresholds not tuned (`aurel test --tune`)" in notes


def test_files_that_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(tmp_path)]) == 2
    assert "holds no results.json" in capsys.readouterr().err
    for text, message in (("{", "got no JSON"), ("{}", "got another one"), ("[]", "another one")):
        (tmp_path / "results.json").write_text(text)
        assert main(["table", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "results.json").write_text('{"format": 1, "model": "sacl"}')
    assert main(["table", str(tmp_path)]) == 2
    assert "must hold dataset, fold," in capsys.readouterr().err


def test_scores_of_intensities_are_no_percentages(tmp_path: Path) -> None:
    for fold in (1, 2):
        scores = {name: {"f1": 0.5, "icc": 0.1 * fold} for name in (*AUS, "mean")}
        result(tmp_path / "run", fold, scores=scores, tuned_scores=None)
    (table,) = compare([collect(tmp_path / "run")], "icc")
    assert table.title == "DISFA, ICC(3,1)" and table.lines[0].values[-1] == pytest.approx(0.15)
    assert "0.15" in main_output(["table", str(tmp_path / "run"), "--metric", "icc"])
    with pytest.raises(ValueError, match="metric must be a score of the AUs of run, got 'auc'"):
        compare([collect(tmp_path / "run")], "auc")


def test_options_of_the_test_are_named(tmp_path: Path) -> None:
    result(tmp_path / "run", tested_with=RECIPE.replace("fold", "resize: 224, fold"))
    (table,) = compare([collect(tmp_path / "run")], "f1")
    assert "tested with another data.resize" in "\n".join(table.notes)


def test_nothing_is_reported_for_the_f1_of_intensities(tmp_path: Path) -> None:
    scores = {name: {"f1": 0.5, "icc": 0.1} for name in (*AUS, "mean")}
    result(tmp_path / "run", scores=scores, tuned_scores=None)
    (table,) = compare([collect(tmp_path / "run")], "f1")
    assert [line.kind for line in table.lines] == ["run"]


def test_latex() -> None:
    table = ResultTable(
        "A&B, F1 in percent",
        ("AU01", "AU12L"),
        (
            Line("my_run 50% #1 {x} ~ ^ \\ $", (10.04, float("nan"), 12.2), "mean"),
            Line("reported: P", (1.0, 2.0, 3.0), "reported"),
        ),
        ("a note",),
    )
    lines = as_latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}" and lines[-1] == "% a note"
    assert lines[2] == r"A\&B, F1 in percent & 1 & 12L & Avg. \\"
    escaped = r"my\_run 50\% \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$"
    assert lines[4] == rf"{escaped} & 10.0 & - & 12.2 \\"
    assert lines[5] == r"\midrule" and lines[6].startswith("reported")
    assert latex_escaped("<a>") == r"\textless{}a\textgreater{}"
    assert [short_name(name) for name in ("AU01", "AU12L", "AU43")] == ["1", "12L", "43"]


def test_markdown_and_text(tmp_path: Path) -> None:
    result(tmp_path / "run")
    markdown = main_output(["table", str(tmp_path / "run"), "--format", "markdown"])
    assert markdown.startswith("| DISFA, F1 in percent | 1 | 2 | 4 | 6 | 9 | 12 | 25 | 26 | Avg. |")
    assert "| reported: SACL, Liu et al. 2024 | 62.0 | 65.7 |" in markdown
    text = main_output(["table", str(tmp_path / "run"), "--metric", "f1", "accuracy"])
    assert "DISFA, accuracy in percent" in text and "reported: by the papers" in text

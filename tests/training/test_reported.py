"""The reported scores are those of the pages."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from aurel.data import dataset_info
from aurel.models.registry import model_info
from aurel.training.reported import Reported, reported_for, reported_rows

PAGES = Path(__file__).resolve().parents[2] / "docs" / "models"
NUMBER = r"\d+(?:\.\d+)?"

TABLE_OF_AUS = re.compile(r"^\|[^\n]*\| mean \|\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)


def page_of(row: Reported) -> str:
    return (PAGES / f"{row.model.removesuffix('_stage1')}.md").read_text()


@pytest.mark.parametrize(
    "row", reported_rows(), ids=lambda row: f"{row.model}-{row.dataset}-{row.metric}"
)
def test_every_row_is_on_the_page_of_its_model(row: Reported) -> None:
    assert model_info(row.model) and dataset_info(row.dataset).name == row.dataset
    page = page_of(row)
    cells = [*row.values.values(), row.mean]
    tables = [
        [float(cell) for cell in re.findall(NUMBER, line.split("|", 2)[2])]
        for line in page.splitlines()
        if line.startswith("| ") and line.count("|") > 2 and re.search(r"\d", line)
    ]
    if row.values:
        assert cells in tables
    else:
        assert re.search(rf"(?<![\d.]){row.mean:g}0?(?![\d.]\d)", page)


def test_every_row_of_aus_on_the_pages_is_registered() -> None:
    known = [[*row.values.values(), row.mean] for row in reported_rows()]
    for page in sorted(PAGES.glob("[!i]*.md")):
        for table in TABLE_OF_AUS.findall(page.read_text().split("## Ablations")[0]):
            for line in table.splitlines():
                numbers = [float(cell) for cell in re.findall(NUMBER, line.split("|", 2)[2])]
                assert numbers in known, line


def test_means_are_about_those_of_their_values() -> None:
    for row in reported_rows():
        if row.values:
            mean = math.fsum(row.values.values()) / len(row.values)
            assert abs(mean - row.mean) < 0.11, row


def test_rows_are_chosen_by_the_backbone() -> None:
    aus = dataset_info("BP4D").aus
    assert aus is not None
    name = "swin_base_patch4_window7_224"
    (row,) = reported_for("me_graphau", "BP4D", "f1", name, aus.names)
    assert row.backbone == "swin_base" and row.mean == 65.5
    assert len(reported_for("mdhr", "BP4D", "f1", "vgg16", aus.names)) == 2
    assert reported_for("sacl", "BP4D", "f1", None, aus.names)[0].values["AU10"] == 84.0
    assert reported_for("sacl", "BP4D", "f1", None, ["AU01"]) == []
    assert reported_for("sacl", "BP4D", "auc", None, aus.names) == []

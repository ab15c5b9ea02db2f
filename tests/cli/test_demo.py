"""Run the demo and list the models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from aurel.cli.main import main
from aurel.models import list_models, load_model


def test_a_quick_demo_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--out", str(out), "--seed", "1"]) == 0
    output = capsys.readouterr().out
    for name in ("graph.png", "curves.png", "predictions.png", "metrics.json"):
        assert str(out / name) in output and (out / name).is_file()
    for picture in out.glob("*.png"):
        Image.open(picture).verify()
    metrics = json.loads((out / "metrics.json").read_text())
    for run in ("with_relations", "without_relations"):
        parts = metrics[run]
        known = [parts[part]["AU12"]["known"] for part in ("visible", "hidden", "all")]
        assert known[0] + known[1] == known[2] > 0
        assert f"{parts['hidden']['mean']['f1']:.3f}" in output
    relations, baseline = (
        load_model(out / run / "checkpoints" / "best.ckpt")
        for run in ("with_relations", "without_relations")
    )
    assert (relations.config.graph, baseline.config.graph) == ("knn", "self")
    shapes = [{key: v.shape for key, v in m.state_dict().items()} for m in (relations, baseline)]
    assert shapes[0] == shapes[1]


def test_models_lists_all_with_their_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    output = capsys.readouterr().out
    for name in list_models():
        assert name in output
    row = next(line for line in output.splitlines() if line.startswith("sacl"))
    assert "27.14 M" in row and "2.53 G" in row  # the paper's table 8 has 27.1 M and 2.57 G
    assert main(["models", "me_*"]) == 0
    assert "sacl" not in capsys.readouterr().out
    assert main(["models", "nothing*"]) == 2
    assert "pattern must match a model, got 'nothing*'; models: " in capsys.readouterr().err

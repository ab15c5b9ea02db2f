"""ONNX files give the numbers of their models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from helpers.small_models import REPEATED, evaluate_after_one_step, small_input, small_model
from torch import nn

from aurel.cli.main import main
from aurel.models import export
from aurel.models.checkpoint import save_model
from aurel.models.registry import list_models, model_info


def tiny_model(name: str) -> Any:
    """Return a model with few operators, which take time to trace; one has a relation head."""
    options: dict[str, dict[str, Any]] = {
        "sacl": {"dims": (16,), "depths": (1,), "landmark_widths": (8,)},
        "au_windows": {"relation_head": "pairwise"},
    }
    model = small_model(name, **options.get(name, {}))
    if model.relation_head is not None:
        nn.init.normal_(model.relation_head.inference.couplings)
    evaluate_after_one_step(model)
    return model


# Of the others, `test_export_command_and_a_file_that_differs` exports one.
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*list_models()} - REPEATED))
def test_an_onnx_file_gives_the_models_numbers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "there" / "model.onnx"
    model = tiny_model(name).train()
    differences = export.export_onnx(model, path, image_size=64, frames=3)
    assert model.training
    model.eval()
    images = small_input(name, batch=1)
    expected = {key: value.detach() for key, value in export.named_outputs(model(images)).items()}
    assert list(differences) == list(expected)
    assert all(0 <= difference <= 1e-4 for difference in differences.values())

    session = onnxruntime.InferenceSession(path)
    key = model_info(name).inputs
    for reference, value in zip(
        expected.values(), session.run(list(expected), {key: images.numpy()}), strict=True
    ):
        scale = max(1.0, float(reference.abs().max()))
        torch.testing.assert_close(torch.from_numpy(value), reference, rtol=0.0, atol=1e-4 * scale)

    content = onnx.load(path)
    assert {node.domain for node in content.graph.node} <= {""}
    about = json.loads({prop.key: prop.value for prop in content.metadata_props}["aurel"])
    assert about["model"] == name and about["image_size"] == 64
    assert about["aus"] == model.aus.to_dict()
    assert about["names"] == list(model.aus.names)
    assert about["titles"] == list(model.aus.titles)
    assert about["preprocessing"] == {
        "alignment": "crop",
        "size": 64,
        "chip": 73,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


def test_a_chain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="relation_head must be None or 'pairwise'"):
        export.export_onnx(small_model("mdhr", relation_head="chain"), tmp_path / "model.onnx")


def test_export_command_and_a_file_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, out = tmp_path / "best.ckpt", tmp_path / "model.onnx"
    save_model(tiny_model("me_graphau_stage1"), checkpoint, image_size=64, resize=80)
    assert main(["export", "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "probs: largest difference" in printed and f"5 AUs, images of 64 x 64: {out}" in printed
    session = onnxruntime.InferenceSession(out)
    (images,) = session.get_inputs()
    assert images.shape == ["batch", 3, 64, 64]
    about = json.loads(session.get_modelmeta().custom_metadata_map["aurel"])
    assert about["preprocessing"]["size"] == 64 and about["preprocessing"]["chip"] == 80
    assert main(["export", "--checkpoint", str(tmp_path / "no"), "--out", str(out)]) == 2
    assert "no checkpoint at" in capsys.readouterr().err

    # A file of other weights, in place of the file of this model.
    other, path = tiny_model("me_graphau_stage1"), tmp_path / "other.onnx"
    program = SimpleNamespace(
        model=SimpleNamespace(metadata_props={}), save=lambda target, **_: shutil.copy(out, target)
    )
    monkeypatch.setattr(export, "_onnx_program", lambda *_: program)
    before = set(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match=r"model's by 0\.0001 at most, got .*probs"):
        export.export_onnx(other, path, image_size=64)
    assert set(tmp_path.iterdir()) == before

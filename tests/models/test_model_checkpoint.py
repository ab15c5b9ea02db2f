"""Files of models: round trips, metadata, and files that are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_input, small_model
from safetensors.torch import save_file

from aurel.facs import AUSet
from aurel.models.checkpoint import (
    describe,
    load_model,
    read_checkpoint,
    save_model,
)
from aurel.models.registry import list_models

STAGE1 = "me_graphau_stage1"


def lightning_file(model: torch.nn.Module, path: Path) -> Path:
    """Write the file of a training framework: the model under "model.", and buffers of the loss."""
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state["loss.weight"] = torch.ones(3)
    content = {
        "pytorch-lightning_version": "2.5",
        "epoch": 3,
        "optimizer_states": [{"state": {}}],
        "state_dict": state,
        "aurel": describe(model),
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("form", ["own", "safetensors", "training"])
def test_round_trip(name: str, form: str, tmp_path: Path) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pth")
    if form == "training":
        lightning_file(model, path)
    else:
        save_model(model, path)
    loaded = load_model(path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config and loaded.aus == model.aus
    assert not loaded.training
    images = small_input(name)
    assert torch.equal(loaded(images).probs, model(images).probs)


def test_metadata_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    saved: dict[str, Any] = {"fold": 2, "f1": {"AU01": 0.5}, "threshold": torch.tensor([0.4])}
    save_model(small_model(STAGE1, aus="DISFA"), path, **saved)
    checkpoint = read_checkpoint(path)
    assert checkpoint.metadata == saved
    assert checkpoint.model == STAGE1
    assert checkpoint.aus == AUSet.of("DISFA") and checkpoint.aus.name == "DISFA"


def test_metadata_in_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved = {"fold": 2, "f1": {"AU01": 0.5, "AU02": None}, "people": ["a", "b"]}
    save_model(small_model(STAGE1, aus="DISFA"), path, **saved)
    checkpoint = read_checkpoint(path)
    assert checkpoint.metadata == saved
    assert checkpoint.aus == AUSet.of("DISFA") and checkpoint.aus.name == "DISFA"
    with pytest.raises(ValueError, match=r"\['threshold'\] must be .*got torch.Tensor"):
        save_model(small_model(STAGE1), path, threshold=torch.tensor(0.4))
    assert read_checkpoint(path).metadata == saved


def test_metadata_that_could_not_be_read_back_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metadata\['f1'\]\[0\] must .*got numpy.float64"):
        save_model(small_model(STAGE1), tmp_path / "model.pth", f1=[np.float64(0.5)])
    assert not os.listdir(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "model.pth"
    save_model(small_model(STAGE1), path, epoch=1)

    def write_half(content: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(OSError, match="no space left"):
        save_model(small_model(STAGE1), path, epoch=2)
    monkeypatch.undo()
    assert read_checkpoint(path).metadata == {"epoch": 1}
    assert os.listdir(tmp_path) == ["model.pth"]


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_the_umask_decides_who_may_read(name: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_model(small_model(STAGE1), tmp_path / name)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("opened",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "extra": Trap()}, "can run any code.*mkdir"),
        ({"state_dict": {}, "epoch": 1}, "be a checkpoint of aurel, .*holds state_dict, epoch"),
        ([1, 2], "must hold a dict, got list"),
        ({"aurel": {"format": 9}, "state_dict": {}}, "must be 1, .*got 9"),
    ],
)
def test_other_files_are_refused(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "file.pth")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_model("file.pth")
    assert not Path("opened").exists()


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match="notes.pth cannot be read"):
        load_model(path)
    path.write_text("hello")  # an instruction of pickles that refers to what is not there
    with pytest.raises(ValueError, match="notes.pth cannot be read.*: it is no torch file"):
        load_model(path)
    path = tmp_path / "notes.safetensors"
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match="notes.safetensors cannot be read as a safetensors file"):
        load_model(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="must be a checkpoint of aurel, .*holds state_dict"):
        load_model(path)
    for name in ("missing.pth", "missing.safetensors"):
        with pytest.raises(FileNotFoundError):
            load_model(tmp_path / name)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    model = small_model(STAGE1)
    path = lightning_file(model, tmp_path / "model.ckpt")
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["model.head.classifier.prototypes"]
    torch.save(content, path)
    with pytest.raises(ValueError, match="(?s)must fit me_graphau_stage1.*prototypes"):
        load_model(path)

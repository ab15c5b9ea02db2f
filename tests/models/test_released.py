"""Models by the names of released weights: downloaded, converted, described."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aurel.models import create_model, load_model, load_weights, save_model
from aurel.models.author_keys.open_graphau import STAGE1
from aurel.weights.load import load_weights as same_function

NAME = "open_graphau_stage1_resnet18"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache, with a file of OpenGraphAU's keys that a test wrote."""
    monkeypatch.setenv("AUREL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("AUREL_OFFLINE", "1")
    monkeypatch.delenv("AUREL_AGREE", raising=False)
    with torch.device("meta"):
        shapes = STAGE1.shapes(create_model("open_graphau_stage1", backbone="resnet18"))
    state = {f"module.{key}": torch.full(shape, 0.5) for key, shape in shapes.items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "OpenGraphAU-ResNet18_first_stage.pth")
    return tmp_path


def test_a_model_with_released_weights(cached: Path) -> None:
    model = load_weights(NAME, agree=True)
    assert not model.training
    assert model.aus.name == "OpenGraphAU" and model.config.lateral_parents == "released"
    assert model.preprocessing["size"] == 224 and "BP4D" in model.trained_on
    assert all((p == 0.5).all() for p in model.head.parameters())
    assert same_function is load_weights
    save_model(model, cached / "saved.safetensors")
    loaded = load_model(cached / "saved.safetensors")
    assert (loaded.preprocessing, loaded.trained_on) == (model.preprocessing, model.trained_on)


def test_create_model_with_weights(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="license .* must be agreed to"):
        create_model("open_graphau_stage1", weights=NAME)
    monkeypatch.setenv("AUREL_AGREE", "1")
    model = create_model("open_graphau_stage1", weights=NAME)
    assert model.config.backbone == "resnet18"


@pytest.mark.parametrize(
    "call",
    [
        lambda: create_model("open_graphau", weights=NAME),
        lambda: create_model("sacl", weights=NAME),
        lambda: create_model("open_graphau_stage1", weights=NAME, aus="BP4D"),
        lambda: create_model("open_graphau_stage1", weights=NAME, k=3),
        lambda: create_model("open_graphau_stage1", weights=NAME, pretrained=True),
    ],
)
def test_weights_fit_one_model_and_its_options(cached: Path, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="weights of .* must be one of"):
        call()


def test_a_file_that_does_not_fit_is_named(cached: Path) -> None:
    file = cached / "OpenGraphAU-ResNet18_first_stage.pth"
    torch.save({"state_dict": {"module.head.sc": torch.zeros(1)}}, file)
    with pytest.raises(ValueError, match=rf"{file.name}: [\s\S]*missing: head.main_sc"):
        load_weights(NAME, agree=True)


def test_a_file_of_no_model(cached: Path) -> None:
    with pytest.raises(ValueError, match="weights of a model, got 'centerface'"):
        load_weights("centerface")

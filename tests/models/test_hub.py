"""Models in folders and on the hub, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from helpers.file_server import FileServer, sends, serving
from helpers.small_models import evaluate_after_one_step, small_images, small_model

from aurel.models import AUModel, VotingEnsemble, from_pretrained, warning_of
from aurel.models.hub import WEIGHTS
from aurel.models.me_graphau import MEGraphAUStage1


@pytest.fixture
def model() -> Any:
    made = small_model("me_graphau_stage1")
    evaluate_after_one_step(made)
    made.trained_on = ("BP4D", "DISFA")
    return made


def test_a_folder(model: Any, tmp_path: Path) -> None:
    scores = {"F1 AU12": 0.78}
    model.save_pretrained(tmp_path / "net", protocol="Fold 1 of 3.", scores=scores, license="mit")
    assert {file.name for file in (tmp_path / "net").iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    loaded = AUModel.from_pretrained(tmp_path / "net")
    images = small_images()
    assert torch.equal(loaded(images).probs, model(images).probs)
    assert loaded.trained_on == model.trained_on
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert config["model"] == "me_graphau_stage1" and config["trained_on"] == ["BP4D", "DISFA"]
    card = (tmp_path / "net" / "README.md").read_text()
    for text in ("license: mit", "| AU12 | Lip corner puller |", "BP4D, DISFA", "Fold 1 of 3."):
        assert text in card
    assert "| F1 AU12 | 0.78 |" in card and "synthetic faces" not in card


def test_the_class_must_fit(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert isinstance(MEGraphAUStage1.from_pretrained(tmp_path), MEGraphAUStage1)
    with pytest.raises(ValueError, match="must hold a model of class SACL, got MEGraphAUStage1"):
        type(small_model("sacl")).from_pretrained(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=f"a folder with {WEIGHTS}"):
        from_pretrained(tmp_path)


def test_a_pickle_with_another_name_is_refused(tmp_path: Path) -> None:
    torch.save({"aurel": {}}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        from_pretrained(tmp_path)


def test_synthetic_faces_only(model: Any, tmp_path: Path) -> None:
    assert warning_of(model) is None
    model.trained_on = ()
    assert warning_of(model) is None
    model.trained_on = ("synthetic",)
    assert "synthetic faces only" in (warning_of(model) or "")
    other = small_model("me_graphau_stage1")
    assert warning_of(VotingEnsemble([model, model])) == warning_of(model)
    other.trained_on = ("DISFA",)
    assert warning_of(VotingEnsemble([model, other])) is None
    model.save_pretrained(tmp_path)
    assert "synthetic faces only" in (tmp_path / "README.md").read_text()
    assert warning_of(AUModel.from_pretrained(tmp_path)) == warning_of(model)


class FakeApi:
    """The calls of HfApi, written down."""

    calls: list[tuple[str, dict[str, Any]]]

    def create_repo(self, repo: str, **options: Any) -> str:
        self.calls.append((repo, options))
        return f"https://hub/{repo}"

    def upload_folder(self, **options: Any) -> None:
        names = {file.name for file in Path(options["folder_path"]).iterdir()}
        self.calls.append((options["repo_id"], {"names": names}))


def test_push(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeApi.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    assert model.push_to_hub("lab/net") == "https://hub/lab/net"
    (_, created), (repo, uploaded) = FakeApi.calls
    assert created == {"private": True, "exist_ok": True} and repo == "lab/net"
    assert uploaded["names"] == {"model.safetensors", "config.json", "README.md"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Return a local server in place of the hub."""
    constants = huggingface_hub.constants
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def test_a_repository(model: Any, tmp_path: Path, hub: FileServer) -> None:
    model.save_pretrained(tmp_path / "net")
    content = (tmp_path / "net" / WEIGHTS).read_bytes()
    headers = {"X-Repo-Commit": "a" * 40}
    hub.answers["/lab/net/resolve/v1/model.safetensors"] = sends(content, headers=headers)
    loaded = from_pretrained("lab/net", revision="v1")
    images = small_images()
    assert torch.equal(loaded(images).probs, model(images).probs)


@pytest.mark.parametrize("source", ["lab/gone", "not a repository at all"])
def test_a_repository_that_is_not_there(source: str, hub: FileServer) -> None:
    with pytest.raises(FileNotFoundError, match="source must be a folder or a repository"):
        from_pretrained(source)

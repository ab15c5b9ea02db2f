"""Checkpoints from strangers: whatever their header says, one ValueError that names the file."""

from __future__ import annotations

import copy
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_models import small_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from aurel.models import header
from aurel.models.checkpoint import describe, load_model, read_checkpoint
from aurel.models.registry import create_model
from aurel.training.start import load_backbone_weights, start_from

SLOWEST = 5.0


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 20),
    st.sampled_from([-(2**70), 2**31, 1e308, float("nan"), float("-inf"), "\0", "../x"]),
    st.sampled_from(["a deep list", "a long text", "a long list", "a huge number"]),
    st.text(max_size=5),
    st.lists(st.integers(-(2**40), 2**40), max_size=4),
    st.sampled_from([deep(4), {"a": {"b": 1}}, [[1, "a"]], {1: 2}]),
    st.sampled_from(["hf_hub:a/b", "hf-hub:a/b", "local-dir:/", "https://a.b/c", "resnet18"]),
)
LARGE: dict[Any, Any] = {
    "a deep list": deep(300),
    "a long text": "x" * 100_000,
    "a long list": [0] * 5000,
    "a huge number": 10**4000,
}


def enlarged(value: Any) -> Any:
    """Return `value` with the names of large values, which hypothesis could not print, replaced."""
    if isinstance(value, dict):
        return {key: enlarged(part) for key, part in value.items()}
    return LARGE.get(value, value) if isinstance(value, str) else value


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid header of which one to three entries are lacking, superfluous or changed."""
    header = copy.deepcopy(describe(small_model("me_graphau_stage1")))
    for _ in range(draw(st.integers(1, 3))):
        part: Any = header
        while True:
            key = draw(st.sampled_from([*part, "more"]))
            if isinstance(part.get(key), dict) and draw(st.integers(0, 3)):
                part = part[key]
                continue
            if draw(st.integers(0, 4)) == 0:
                part.pop(key, None)
            else:
                part[key] = draw(VALUES)
            break
        if not all(isinstance(header.get(key), dict) for key in ("config", "aus")):
            break
    return header


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(about=headers(), safe=st.booleans())
def test_any_header_is_read_or_refused_in_one_way(
    about: dict[str, Any], safe: bool, tmp_path: Path
) -> None:
    about, state = enlarged(about), small_model("me_graphau_stage1").state_dict()
    path = tmp_path / ("stranger.safetensors" if safe else "stranger.pth")
    if safe:
        try:
            text = json.dumps(about)
        except (RecursionError, ValueError):
            text = '{"model": ' + "[" * 50_000 + "]" * 50_000 + "}"
        save_file(state, path, metadata={"aurel": text})
    else:
        torch.save({"aurel": about, "state_dict": state, "metadata": {}}, path)
    start = time.monotonic()
    try:
        load_model(path)
    except ValueError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 2500
    assert time.monotonic() - start < SLOWEST


def stranger(tmp_path: Path, **changes: Any) -> Path:
    model = small_model("me_graphau_stage1")
    content: dict[str, Any] = {
        "aurel": describe(model),
        "state_dict": model.state_dict(),
        "metadata": {},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if section in ("config", "aus"):
            content["aurel"][section][name] = value
        elif name:
            content[section][name] = value
        else:
            content[section] = value
    path = tmp_path / "stranger.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config__channels": 10_000}, "must fit me_graphau_stage1, which has"),
        ({"config__channels": 10**12}, "numbers of at most 10000"),
        ({"config__backbone": "vit_gigantic_patch14_clip_224"}, "."),
        ({"config__backbone": "resnet18"}, "must fit"),
        ({"config__k": float("nan")}, "numbers of at most"),
        ({"aus__numbers": [0] * 100_000, "aus__sides": [""] * 100_000}, "at most 2000 values"),
        ({"aus__numbers": ["1"]}, "numbers of its AUs must be a list of int"),
        ({"aurel__model": "sacl"}, "options of sacl|unexpected|must"),
        ({"aurel__config": [1]}, "config of its header must be a mapping, got list"),
        ({"state_dict__extra": torch.ones(1)}, "has no extra, got extra of shape"),
        ({"state_dict__extra": 3}, "must hold tensors, got int"),
        ({"metadata": 3}, "metadata must be a dict"),
        ({"metadata__image_size": 10**9}, "image_size of its metadata must be in 1..4096"),
        ({"metadata__train_subjects": 3}, "train_subjects of its metadata must be a list"),
        ({"metadata__train_subjects": [], "metadata__validation_subjects": []}, "dataset and fold"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_with_its_reason(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = stranger(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"(?s)stranger.pth.*({message})"):
        load_model(path)


def test_a_model_of_more_than_two_billion_numbers_is_not_made(tmp_path: Path) -> None:
    model = small_model("sacl")
    about = describe(model)
    about["config"] |= {"dims": [10_000] * 4, "depths": [9999] * 4}
    torch.save({"aurel": about, "state_dict": model.state_dict()}, tmp_path / "stranger.pth")
    start = time.monotonic()
    with pytest.raises(ValueError, match="stranger.pth: its model must have at most 2000000000"):
        load_model(tmp_path / "stranger.pth")
    assert time.monotonic() - start < SLOWEST


@pytest.mark.parametrize("name", ["hf_hub:a/b", "hf-hub:a/b", "local-dir:/etc", "https://a.b/c"])
def test_a_backbone_does_not_reach_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        pytest.fail("the network was reached")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    path = stranger(tmp_path, config__backbone=name)
    with pytest.raises(ValueError, match="stranger.pth: backbone must be a name of timm, got"):
        load_model(path)


def test_other_threads_may_make_models_meanwhile() -> None:
    with header._bounded(0):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.nn.Linear, 2, 2).result().in_features == 2
        with pytest.raises(ValueError, match="at most"):
            torch.nn.Linear(2, 2)
    assert torch.nn.Linear(2, 2).in_features == 2


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pipe_a_folder_and_a_device_are_refused_at_once(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"stranger{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    model = create_model("me_graphau_stage1", backbone="test_resnet", channels=8)
    for read in (
        read_checkpoint,
        load_model,
        lambda file: start_from(model, file),
        lambda file: load_backbone_weights(model, file),
    ):
        with pytest.raises(ValueError, match=f"stranger{suffix} must be a regular file, got a"):
            read(path)


def test_bad_backbone_weights_name_their_file(tmp_path: Path) -> None:
    model = create_model("me_graphau_stage1", backbone="test_resnet", channels=8)
    path = tmp_path / "bad.safetensors"
    for content in (b"", b"not a safetensors file", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="bad.safetensors cannot be read as a safetensors"):
            load_backbone_weights(model, path)
    save_file({"blocks.0.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="bad.safetensors must fit the backbone test_resnet"):
        load_backbone_weights(model, path)

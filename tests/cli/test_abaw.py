"""The file of predictions for the AU challenge of ABAW, and the scores of a vote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aurel.cli.checkpoints import load_image_model
from aurel.cli.main import main
from aurel.data.abaw import HEADER, ChallengeFrames
from aurel.data.aff_wild2 import AffWild2Faces, last_with_picture
from aurel.data.transforms import EvalTransform
from aurel.models import create_model
from aurel.models.checkpoint import Checkpoint, read_checkpoint, save_model
from aurel.training.scoring import _metadata

AUS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


def picture(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(0, 256, (36, 36, 3), generator=torch.Generator().manual_seed(seed))
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(file)


def checkpoint(file: Path, seed: int, **options: Any) -> Path:
    torch.manual_seed(seed)
    model = create_model(
        "me_graphau_stage1", backbone="test_resnet", channels=8, **{"aus": "Aff-Wild2", **options}
    )
    save_model(model, file, image_size=32, resize=36)
    return file


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    for video, frames in {"a": [2, 3, 5], "b_left": [1]}.items():
        for frame in frames:
            picture(tmp_path / "faces" / video / f"{frame:05d}.jpg", 10 * frame)
    frames = [f"a/{frame:05d}.jpg" for frame in range(1, 7)]
    frames += ["b_left/00001.jpg", "b_left/00002.jpg", "c/00001.jpg"]
    (tmp_path / "frames.txt").write_text("\n".join([HEADER, *(f"{f},0" for f in frames)]) + "\n")
    return tmp_path


def test_frames_without_a_picture_take_the_last_one() -> None:
    assert last_with_picture([False, True, True, False, True, False]) == [1, 1, 2, 2, 4, 4]
    assert last_with_picture([False, False]) == [-1, -1]
    assert last_with_picture([]) == []


@pytest.mark.slow
def test_every_frame_of_the_list_has_a_line(
    challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoint(challenge / "model.safetensors", 0)
    out = challenge / "predictions.txt"
    arguments = ["--images", str(challenge / "faces"), "--out", str(out), "--num-workers", "0"]
    command = ["abaw", str(challenge / "frames.txt"), "--checkpoint", str(model), *arguments]
    assert main([*command, "--threshold", "0.2", "--device", "cpu"]) == 0
    assert "9 frames, 5 without a picture" in capsys.readouterr().out
    header, *lines = out.read_text().splitlines()
    assert header == f"image_location,{AUS}"
    rows = {line.split(",")[0]: line.split(",")[1:] for line in lines}
    assert list(rows)[:2] == ["a/00001.jpg", "a/00002.jpg"] and len(rows) == 9
    loaded = load_image_model(model)
    frames = ChallengeFrames(challenge / "frames.txt", challenge / "faces", EvalTransform(36, 32))
    with torch.no_grad():
        probs = loaded.model.eval()(torch.stack([frames[i]["image"] for i in range(4)])).probs
    expected = (probs >= 0.2).int().tolist()
    for name, item in {"1": 0, "2": 0, "3": 1, "4": 1, "5": 2, "6": 2}.items():
        assert rows[f"a/0000{name}.jpg"] == [str(value) for value in expected[item]]
    assert rows["b_left/00002.jpg"] == rows["b_left/00001.jpg"]
    assert rows["c/00001.jpg"] == ["0"] * 12


def test_bad_lists_and_models_are_named(
    challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = checkpoint(challenge / "other.safetensors", 0, aus="BP4D")
    shared = ["--images", str(challenge / "faces"), "--out", str(challenge / "p.txt")]
    frames = challenge / "frames.txt"
    assert main(["abaw", str(frames), "--checkpoint", str(other), *shared]) == 2
    assert "checkpoint must be for the AUs AU01, AU02" in capsys.readouterr().err
    model = checkpoint(challenge / "model.safetensors", 0)
    frames.write_text("a/00001.jpg\n00002.jpg\n")
    assert main(["abaw", str(frames), "--checkpoint", str(model), *shared]) == 2
    assert "frames.txt, line 2: a line must begin with video/" in capsys.readouterr().err
    frames.write_text("d/00001.jpg\n")
    assert main(["abaw", str(frames), "--checkpoint", str(model), *shared]) == 2
    assert "must hold a picture of a frame" in capsys.readouterr().err
    assert not (challenge / "p.txt").exists()


@pytest.fixture
def aff_wild2(tmp_path: Path) -> Path:
    root = tmp_path / "Aff-Wild2"
    file = root / "AU_Detection_Challenge" / "Validation_Set" / "v.txt"
    file.parent.mkdir(parents=True)
    rows = [",".join([str(frame % 2)] * 12) for frame in range(5)]
    file.write_text("\n".join([AUS, *rows]) + "\n")
    for frame in (2, 4):
        picture(root / "cropped_aligned" / "v" / f"{frame:05d}.jpg", frame)
    return root


def test_all_labeled_frames_count_in_the_test(aff_wild2: Path) -> None:
    data = AffWild2Faces(aff_wild2, "test")
    assert [path[-5] for path in data.paths] == ["2", "2", "2", "4", "4"]
    assert data.labels[:, 0].tolist() == [0, 1, 0, 1, 0]


def test_the_vote_of_several_checkpoints_is_scored(
    aff_wild2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [checkpoint(tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "model: {name: me_graphau_stage1, backbone: test_resnet, options: {channels: 8}}\n"
        f"data: {{dataset: Aff-Wild2, root: {aff_wild2}, fold: null, batch_size: 2, "
        "num_workers: 0, resize: 36, crop: 32}\n"
        "trainer: {accelerator: cpu, devices: 1}\n"
    )
    command = ["test", "--config", str(recipe), "--out", str(tmp_path / "run")]
    votes = [word for file in files for word in ("--ckpt_path", str(file))]
    assert main([*command, *votes]) == 0
    assert "the vote of 3 checkpoints" in capsys.readouterr().out
    (file,) = (tmp_path / "run").glob("results*_vote_*.json")
    metrics = json.loads(file.read_text())
    assert [*metrics["checkpoints"]] == [str(file) for file in files]
    data = AffWild2Faces(aff_wild2, "test", transform=EvalTransform(36, 32))
    images = torch.stack([item["image"] for item in (data[i] for i in range(5))])
    with torch.no_grad():
        probs = torch.stack([load_image_model(f).model.eval()(images).probs for f in files])
    right = ((probs >= 0.5).sum(0) >= 2) == (data.labels == 1)
    for column, name in enumerate(data.aus.names):
        expected = pytest.approx(right[:, column].double().mean().item())
        assert metrics["scores"][name]["accuracy"] == expected
        assert metrics["scores"][name]["known"] == 5
    assert main(["fit", "--config", str(recipe), *votes]) == 2
    assert "ckpt_path must be given once" in capsys.readouterr().err


def test_a_vote_states_what_its_models_have_in_common(tmp_path: Path) -> None:
    def content(seed: int, people: list[str], **changes: Any) -> Checkpoint:
        metadata = {"seed": seed, "protocol": "held-out", "select_on": "validation"}
        metadata |= {"train_subjects": people, "validation_subjects": ["z"], "thresholds": {}}
        return replace(read_checkpoint(checkpoint(tmp_path / f"{seed}.safetensors", seed)),
                       metadata={**metadata, **changes})  # fmt: skip

    one, other = content(0, ["a", "b"]), content(1, ["b", "c"])
    assert _metadata([one], "test") == {**one.metadata, "scored_part": "test"}
    both = _metadata([one, other], "test")
    assert both["seed"] is None and both["protocol"] == "held-out" and "thresholds" not in both
    assert both["train_subjects"] == ["a", "b", "c"] and both["validation_subjects"] == ["z"]
    mixed = _metadata([one, content(2, [], protocol="published", select_on="test")], "test")
    assert mixed["protocol"] is None and mixed["select_on"] == "test"

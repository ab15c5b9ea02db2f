"""Files of `aurel graph`, with the numbers of the model."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from aurel.cli import checkpoints, graph
from aurel.cli.errors import guarded
from aurel.cli.graph import agreement
from aurel.cli.main import main
from aurel.data.preprocessing import Preprocessing
from aurel.facs import AUSet, au_center_rules
from aurel.graph import RelationGraph
from aurel.models import create_model, save_model
from aurel.output import AUOutput

Call = Callable[..., int]


class Relations(nn.Module):
    """A model with two graphs: edges from AU i + 1 to AU i, and a dense one of the brightness."""

    def __init__(self, aus: str = "DISFA") -> None:
        super().__init__()
        self.aus = AUSet.of(aus)
        self.center_rules = au_center_rules(self.aus)
        self.seen: list[int] = []

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        batch, count = len(images), len(self.aus)
        self.seen.append(batch)
        following = (torch.arange(count) + 1) % count
        ring = RelationGraph(neighbors=following.view(1, count, 1).expand(batch, count, 1))
        level = (images[:, 0].mean((1, 2)) * 0.229 + 0.485).view(batch, 1, 1)
        dense = RelationGraph(weights=level.expand(batch, count, count))
        probs = torch.zeros(batch, count)
        return AUOutput(probs, graphs=(ring, dense) if return_graph else None, aus=self.aus)


def command(folder: Path) -> Call:
    def call(*arguments: Any, out: str = "g.png") -> int:
        parser = argparse.ArgumentParser()
        graph.add_parser(parser.add_subparsers())
        words = ["graph", "--out", str(folder / out), *map(str, arguments)]
        args, args.rest = parser.parse_known_args(words)
        return guarded(lambda: graph.run(args))

    return call


@pytest.fixture
def model() -> Relations:
    return Relations()


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Relations) -> Call:
    loaded = checkpoints.ImageModel(model, image_size=32, resize=32)
    monkeypatch.setattr(checkpoints, "load_image_model", lambda path: loaded)
    run = command(tmp_path)
    return lambda *arguments, **options: run("--checkpoint", "c.ckpt", *arguments, **options)


def matrix(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    values = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    return rows[0][1:], [row[0] for row in rows[1:]], values


def test_everything_is_written_and_agrees(tmp_path: Path, call: Call, model: Relations) -> None:
    assert call("--samples", 5, "--batch-size", 2, "--layer", 0) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("g.csv", "g.graphml", "g.png", "g_matrix.png")
    ]
    assert model.seen == [2, 2, 1]
    columns, rows, values = matrix(tmp_path / "g.csv")
    assert columns == rows == list(model.aus.names)
    assert np.array_equal(values, np.roll(np.eye(8), 1, axis=1))
    read = networkx.read_graphml(tmp_path / "g.graphml")
    assert list(read.nodes) == rows
    assert read.nodes["AU12"] == {"title": "Lip corner puller", "region": "lower"}
    assert {(b, a) for a, b in read.edges} == {(rows[i], rows[(i + 1) % 8]) for i in range(8)}
    assert read["AU02"]["AU01"]["weight"] == 1.0
    for name in ("g.png", "g_matrix.png"):
        assert min(Image.open(tmp_path / name).size) > 500


def test_of_several_checkpoints_the_mean_is_written_and_their_agreement_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model = create_model("au_windows", relation_head="pairwise")
        with torch.no_grad():
            model.relation_head.inference.couplings.fill_(1.0).add_(0.1 * seed)
            model.relation_head.inference.couplings[0, 1] = 4.0
        save_model(model, tmp_path / f"{seed}.pt")
    files = [str(tmp_path / f"{seed}.pt") for seed in range(3)]
    out = tmp_path / "mean.png"
    command = ["graph", "--checkpoint", *files, "--out", str(out), "--samples", "2"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "graph 0 (of 0 to 0)" in said and "two checkpoints: mean 1.00, 1.00 to 1.00" in said
    _, _, values = matrix(tmp_path / "mean.csv")
    assert values[5, 7] == pytest.approx(1.1, abs=1e-3)
    assert values[0, 1] == values[1, 0] == pytest.approx(2.55, abs=1e-3)
    save_model(create_model("au_windows", aus="DISFA", relation_head="pairwise"), files[1])
    assert main(command) == 2
    assert "must name checkpoints of one model and its AUs" in capsys.readouterr().err


def test_correlations_are_of_the_weights_between_different_nodes() -> None:
    first = torch.tensor([[9.0, 1.0, 2.0], [3.0, 9.0, 4.0], [5.0, 6.0, 9.0]])
    second = -first + 20 * torch.eye(3)
    assert agreement(torch.stack([first, second, 2 * first])) == pytest.approx([-1, 1, -1])


def test_the_last_graph_is_the_default_and_photographs_are_averaged(
    tmp_path: Path, call: Call
) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for name, level in (("a.png", 51), ("b.png", 153), ("c.png", 153)):
        Image.new("RGB", (40, 50), (level, 0, 0)).save(folder / name)
    assert call("--data", folder, "--cropped", "--batch-size", 2) == 0
    _, _, values = matrix(tmp_path / "g.csv")
    assert values == pytest.approx(np.full((8, 8), (0.2 + 0.6 + 0.6) / 3), abs=1e-3)


def test_photographs_are_normalized_as_the_weights_ask_for(
    tmp_path: Path, call: Call, model: Relations, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = Preprocessing(32, 32, "box", mean=(0.1, 0.1, 0.1), std=(0.5, 0.5, 0.5))
    loaded = checkpoints.ImageModel(model, image_size=32, resize=32, about=about)
    monkeypatch.setattr(checkpoints, "load_image_model", lambda path: loaded)
    Image.new("RGB", (40, 50), (153, 0, 0)).save(tmp_path / "a.png")
    assert call("--data", tmp_path / "a.png", "--cropped") == 0
    normalized = (0.6 - 0.1) / 0.5 * 0.229 + 0.485
    assert matrix(tmp_path / "g.csv")[2] == pytest.approx(np.full((8, 8), normalized), abs=1e-3)


def test_an_unreadable_photograph_is_named_and_the_others_used(
    tmp_path: Path, call: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    Image.new("RGB", (40, 50), (51, 0, 0)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"junk")
    assert call("--data", folder, "--cropped") == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "b.png" in line
    assert matrix(tmp_path / "g.csv")[2] == pytest.approx(np.full((8, 8), 0.2), abs=1e-3)


def test_videos_in_the_folder_are_counted(
    tmp_path: Path, call: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("a.mp4", "b.avi"):
        (folder / name).write_bytes(b"unread")
    assert call("--data", folder, "--cropped") == 2
    assert f"skipped 2 videos in {folder}" in capfd.readouterr().err
    (folder / "b.avi").unlink()
    Image.new("RGB", (40, 50), (51, 0, 0)).save(folder / "c.png")
    assert call("--data", folder, "--cropped") == 0
    assert f"skipped 1 video in {folder}" in capfd.readouterr().err


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe over six images of two folds; the red of subject F00f in fold f is 51 f."""
    pytest.importorskip("lightning")
    pytest.importorskip("jsonargparse")
    for fold in (1, 2):
        paths = [f"F00{fold}/T1/{frame}.png" for frame in range(3)]
        for path in paths:
            file = tmp_path / "disfa" / "img" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (51 * fold, 0, 0)).save(file)
        lists = tmp_path / "disfa" / "list"
        lists.mkdir(exist_ok=True)
        (lists / f"DISFA_test_img_path_fold{fold}.txt").write_text("\n".join(paths))
        (lists / f"DISFA_test_label_fold{fold}.txt").write_text("0 1 0 0 1 0 0 0\n" * 3)
    file = tmp_path / "recipe.yaml"
    # The size differs from that of the checkpoint, which is used.
    data = "{dataset: DISFA, fold: 1, num_workers: 0, resize: 64, crop: 48}"
    file.write_text(f"model: {{name: me_graphau}}\ndata: {data}\n")
    return file


def test_the_test_images_of_a_recipe_are_averaged(
    tmp_path: Path, call: Call, model: Relations, recipe: Path
) -> None:
    place = ["--config", recipe, "--data.root", tmp_path / "disfa", "--batch-size", 2]
    for options, level in ([], 0.2), (["--data.fold", 2], 0.4):
        model.seen.clear()
        assert call(*place, *options) == 0
        assert model.seen == [2, 1]
        assert matrix(tmp_path / "g.csv")[2] == pytest.approx(np.full((8, 8), level), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "data.root must be the folder"),
        (["--data.root", "gone"], "gone"),
        (
            ["--data.root", "disfa", "--data.frames", "4"],
            "data.frames must be null for a model of single images, got 4",
        ),
        (["--data.root", "disfa", "--ckpt_path", "best"], "ckpt_path"),
        (["--data.rot", "disfa"], "data.rot"),
    ],
)
def test_a_recipe_that_names_no_images_is_refused(
    call: Call,
    recipe: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(recipe.parent)
    assert call("--config", recipe, *options) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert message in line
    assert not (recipe.parent / "g.png").exists()


def test_options_of_a_recipe_need_one(
    call: Call, model: Relations, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("--data.fold", "2") == 2
    assert "unrecognized arguments without --config: --data.fold 2" in capfd.readouterr().err
    assert model.seen == []


def test_a_model_of_clips_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from aurel.models.checkpoint import save_model
    from aurel.models.registry import create_model

    model = create_model("mdhr", aus="DISFA", backbone="resnet18", channels=16, num_adjacent=1)
    save_model(model, tmp_path / "c.ckpt")
    assert command(tmp_path)("--checkpoint", tmp_path / "c.ckpt") == 2
    assert "takes clips of several frames" in capfd.readouterr().err


def test_synthetic_faces_are_bare_and_cut_out_as_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aurel.data.synthetic import SyntheticFaces
    from aurel.data.transforms import EvalTransform

    class Recorder(Relations):
        def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
            self.images = images
            return super().forward(images, return_graph=return_graph)

    model = Recorder()
    loaded = checkpoints.ImageModel(model, image_size=32, resize=48)
    monkeypatch.setattr(checkpoints, "load_image_model", lambda path: loaded)
    assert command(tmp_path)("--checkpoint", "c.ckpt", "--samples", 3) == 0
    faces = SyntheticFaces(
        "DISFA", range(3), 1, size=48, occlusion=0, transform=EvalTransform(48, 32)
    )
    assert torch.equal(model.images, torch.stack([faces[n]["image"] for n in range(3)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "2"], "--layer must be in -2..1, got 2"),
        (["--samples", "0"], "--samples must be at least 1"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "dark", "--batch-size", "4"], "at least one face"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    call: Call,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dark").mkdir()
    Image.new("RGB", (40, 50)).save(tmp_path / "dark" / "a.png")
    assert call("--samples", 2, *options) == 2
    assert message in capfd.readouterr().err.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["dark"]


def test_the_suffix_of_the_picture_is_checked_first(
    call: Call, model: Relations, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(out="g.bmp") == 2
    assert "--out must end in" in capfd.readouterr().err
    assert model.seen == []


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("me_graphau_stage1", {"channels": 16}, 1),
        ("me_graphau", {"channels": 16}, 1),
        ("sacl", {"image_size": 64, "dims": (8, 8), "depths": (1, 2)}, 3),
    ],
)
def test_models_from_their_checkpoints(
    tmp_path: Path, name: str, options: dict[str, Any], layers: int
) -> None:
    from aurel.models.checkpoint import save_model
    from aurel.models.registry import create_model

    model = create_model(name, aus="BP4D", backbone="rest_tiny", **options)
    save_model(model, tmp_path / "c.ckpt", image_size=64)
    call = command(tmp_path)
    assert call("--checkpoint", tmp_path / "c.ckpt", "--samples", 3, "--layer", layers - 1) == 0
    names, _, values = matrix(tmp_path / "g.csv")
    assert names == list(model.aus.names)
    assert values.min() >= 0 and values.max() <= 1 and values.max() > 0
    if name == "me_graphau_stage1":
        assert values.sum(1) == pytest.approx(np.full(12, model.config.k))
    if name == "me_graphau":
        assert values.sum(1) == pytest.approx(np.ones(12), abs=1e-4)
    assert call("--checkpoint", tmp_path / "c.ckpt", "--samples", 1, "--layer", layers) == 2

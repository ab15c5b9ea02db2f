"""Draw every picture, test its text, and test that matplotlib's settings do not change."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib")

from aurel.facs import AU_SETS, AUSet
from aurel.viz.adjacency import draw_adjacency
from aurel.viz.curves import draw_curves
from aurel.viz.face_graph import draw_face_graph, draw_face_graphs, strongest_edges
from aurel.viz.prediction_sheet import draw_prediction_sheet

NAMES = AUSet.of("DISFA").names


def texts(path: Path) -> list[str]:
    """Return the texts of an SVG file, which matplotlib keeps as comments beside the glyphs."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def adjacency(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, count))


@pytest.mark.parametrize("aus", [*AU_SETS, "unnamed"])
def test_a_graph_of_any_au_set_is_drawn(tmp_path: Path, aus: str) -> None:
    chosen = AUSet.unnamed(7) if aus == "unnamed" else AUSet.of(aus)
    draw_face_graph(adjacency(len(chosen)), chosen.names, tmp_path / "a.svg", title="a title")
    words = texts(tmp_path / "a.svg")
    assert "a title" in words
    assert {name.removeprefix("AU") for name in chosen.names} <= set(words)


@pytest.mark.parametrize("count", [1, 2])
def test_a_graph_may_have_no_edges(tmp_path: Path, count: int) -> None:
    draw_face_graph(torch.zeros(count, count), NAMES[:count], tmp_path / "a.svg")
    assert "0 edges" in texts(tmp_path / "a.svg")


def test_an_au_is_drawn_on_both_sides_and_a_lateral_one_on_its_own(tmp_path: Path) -> None:
    draw_face_graph(np.ones((3, 3)), ["AU12", "AU06L", "AU17"], tmp_path / "a.svg")
    words = texts(tmp_path / "a.svg")
    assert [words.count(label) for label in ("12", "06L", "17")] == [2, 1, 1]


def test_the_strongest_edges_are_kept_by_size_of_the_stronger_direction() -> None:
    weights = np.zeros((4, 4))
    weights[0, 1], weights[1, 0], weights[2, 3], weights[0, 2] = 0.2, 0.9, -0.5, 0.1
    np.fill_diagonal(weights, 7)
    assert strongest_edges(weights, 2) == ([(2, 3, -0.5), (0, 1, 0.9)], 3)
    assert strongest_edges(weights, 10) == ([(0, 2, 0.1), (2, 3, -0.5), (0, 1, 0.9)], 3)


def test_edges_that_tie_with_the_last_are_kept() -> None:
    weights = np.ones((4, 4))
    weights[0, 1] = weights[1, 0] = 2
    kept, total = strongest_edges(weights, 3)
    assert len(kept) == total == 6
    weights[2, 3] = weights[3, 2] = 0.5
    assert [weight for *_, weight in strongest_edges(weights, 3)[0]] == [1, 1, 1, 1, 2]


def test_the_caption_says_how_many_edges_were_left_out(tmp_path: Path) -> None:
    draw_face_graph(adjacency(8), NAMES, tmp_path / "a.svg")
    assert any(text.startswith("16 strongest of 28 edges") for text in texts(tmp_path / "a.svg"))


@pytest.mark.parametrize("draw", [draw_face_graph, draw_adjacency])
def test_a_matrix_that_does_not_fit_is_refused_and_leaves_no_file(tmp_path: Path, draw) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"adjacency must be \(8, 8\)"):
        draw(adjacency(5), NAMES, tmp_path / "a.png")
    with pytest.raises(ValueError, match="finite"):
        draw(np.full((8, 8), np.inf), NAMES, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("known", [0, 1, 5])
def test_unknown_weights_are_shown_as_unknown(tmp_path: Path, known: int) -> None:
    weights = np.full((8, 8), np.nan)
    weights[:known, :known] = adjacency(known)
    draw_face_graph(weights, NAMES, tmp_path / "face.svg")
    draw_adjacency(weights, NAMES, tmp_path / "matrix.svg")
    words = texts(tmp_path / "face.svg")
    assert {name.removeprefix("AU") for name in NAMES} <= set(words)
    assert any("dashed: without any known weight" in text for text in words)
    assert any(text.startswith(f"{known * (known - 1) // 2} edges") for text in words)
    assert texts(tmp_path / "matrix.svg").count("–") == 64 - known**2


def test_a_symmetric_graph_has_no_arrowheads_and_says_what_a_weight_is(tmp_path: Path) -> None:
    weights = np.triu(adjacency(8), 1)
    draw_face_graph(weights, NAMES, tmp_path / "directed.svg")
    draw_face_graph(weights + weights.T, NAMES, tmp_path / "symmetric.svg", weight="phi")
    directed, symmetric = (texts(tmp_path / f"{n}.svg") for n in ("directed", "symmetric"))
    assert any("source AU" in text for text in directed)
    assert not any("source AU" in text for text in symmetric)
    assert any(text.startswith("phi 0.") for text in symmetric)
    paths = [(tmp_path / f"{n}.svg").read_text().count("<path") for n in ("directed", "symmetric")]
    assert paths[0] > paths[1]


def test_less_certain_lines_are_fainter(tmp_path: Path) -> None:
    weights = np.array([[0.0, 1.0], [1.0, 0.0]])
    opacities = []
    for certainty in (1.0, 0.3):
        path = tmp_path / f"{certainty}.svg"
        draw_face_graph(weights, NAMES[:2], path, opacity=np.full((2, 2), certainty))
        found = re.findall(r"opacity: ([\d.]+)", path.read_text())
        opacities.append(min(float(value) for value in found))
        assert any("fainter: less certain" in text for text in texts(path))
    assert opacities == pytest.approx([0.9, 0.41])


def test_both_signs_are_in_the_legend(tmp_path: Path) -> None:
    weights = np.zeros((8, 8))
    weights[0, 1], weights[2, 3], weights[4, 5] = 0.25, 0.75, -0.5
    draw_face_graph(weights, NAMES, tmp_path / "a.svg")
    assert {"weight 0.25", "weight 0.75", "weight -0.5"} <= set(texts(tmp_path / "a.svg"))


@pytest.mark.parametrize("count", [1, 8, 41])
def test_a_matrix_shows_its_numbers_while_they_can_be_read(tmp_path: Path, count: int) -> None:
    names = [f"AU{n:02d}" for n in range(count)]
    draw_adjacency(torch.full((count, count), 0.25), names, tmp_path / "a.svg")
    assert texts(tmp_path / "a.svg").count(".25") == (count**2 if count <= 20 else 0)


def test_curves(tmp_path: Path) -> None:
    history = {
        "epoch": [0.0, 1.0],
        "train/loss": [1.0, 0.5],
        "val/f1": [0.2, float("nan")],
        "val/auc": [0.5],
    }
    draw_curves(history, tmp_path / "a.svg")
    words = texts(tmp_path / "a.svg")
    assert {"train/loss", "val/f1", "val/auc", "loss", "score", "epoch"} <= set(words)
    with pytest.raises(ValueError, match="history"):
        draw_curves({"train/loss": []}, tmp_path / "b.png")


@pytest.mark.parametrize("count", [1, 5])
def test_prediction_sheet(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(-1, 2, (count, 8))
    visible = np.ones((count, 8), dtype=bool)
    visible[0, 2] = False
    path = tmp_path / "a.svg"
    draw_prediction_sheet(
        images, torch.tensor(labels), rng.random((count, 8)), NAMES, path, visible
    )
    words = texts(path)
    assert words.count("AU12") == count
    assert words.count("(AU04)") == 1 and words.count("AU04") == count - 1
    assert {"correct", "wrong", "no label", "present"} <= set(words)


@pytest.mark.filterwarnings("error")
def test_a_face_without_aus_leaves_space_for_the_others(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    draw_prediction_sheet(images, np.zeros((2, 8)), np.zeros((2, 8)), NAMES, tmp_path / "a.png")


def test_a_sheet_whose_parts_do_not_fit_names_the_part(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    ok, short = np.zeros((2, 8)), np.zeros((2, 7))
    for arguments, name in (
        ((images.astype(float), ok, ok), "images"),
        ((images, short, ok), "labels"),
        ((images, ok, short), "probs"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            draw_prediction_sheet(*arguments, NAMES, tmp_path / "a.png")


def test_pictures_are_opaque_and_not_blank(tmp_path: Path) -> None:
    draw_face_graph(adjacency(8), NAMES, tmp_path / "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))
    assert (picture[..., 3] == 255).all()
    assert 0.01 < (picture[..., :3] < 250).any(2).mean() < 0.5


def test_pyplot_and_the_backend_are_left_alone(tmp_path: Path) -> None:
    code = f"""
import sys, numpy, matplotlib
def settings():
    # To read the backend is to choose one.
    return {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}}
before = settings()
from aurel.viz.face_graph import draw_face_graph, draw_face_graphs
draw_face_graph(numpy.ones((2, 2)), ["AU01", "AU02"], {str(tmp_path / "a.png")!r})
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_graphs_side_by_side_share_the_scale_of_their_lines(tmp_path: Path) -> None:
    """Each has its title; the legend names the strongest weight of both."""
    weak = np.zeros((8, 8))
    weak[0, 1] = weak[1, 0] = 0.5
    draw_face_graphs({"true": 4 * weak, "learned": weak}, NAMES, tmp_path / "both.svg", weight="J")
    shown = texts(tmp_path / "both.svg")
    assert {"true", "learned", "J 2", "J 0.5"} <= set(shown)
    with pytest.raises(ValueError, match="adjacencies must hold at least one graph, got none"):
        draw_face_graphs({}, NAMES, tmp_path / "none.svg")

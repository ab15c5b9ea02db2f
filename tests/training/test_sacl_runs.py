"""Runs of a small SACL: the landmarks it starts from, and its graph of the training labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aurel.data.lists import ListDataset
from aurel.facs import conditional_probabilities, statistics_graph
from aurel.models.checkpoint import load_model
from aurel.training.datasets import training_splits
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    TrainerOptions,
)
from aurel.training.run import _training_task, checkpoint_file, fit, run_folder

SMALL: dict[str, Any] = {
    "dims": [16], "depths": [1], "landmark_widths": [4, 4, 4], "token_dim": 4, "k": 2,
}  # fmt: skip


def run(root: Path, out: Path, **options: Any) -> RunOptions:
    model = ModelOptions("sacl", "rest_tiny", options={**SMALL, **options})
    data = DataOptions(
        root=str(root), batch_size=20, num_workers=0, resize=40, crop=32, select_on="last"
    )
    trainer = TrainerOptions(max_epochs=1, accelerator="cpu", devices=1)
    optimizer = OptimizerOptions(lr=1e-4)
    return RunOptions(model, data, {}, optimizer, trainer, seed=1, out=str(out))


@pytest.fixture
def faces(stripes: Path, tmp_path: Path) -> Path:
    """Return lists of `stripes` with 49 landmarks a face, in pixels of the 16-pixel image."""
    lists = tmp_path / "lists"
    lists.mkdir()
    generator = torch.Generator().manual_seed(0)
    mean = 4 + 8 * torch.rand(49, 2, generator=generator)
    for file in (stripes / "list").iterdir():
        (lists / file.name).write_text(file.read_text())
        if "img_path" in file.name:
            rows = []
            for line in range(len(file.read_text().splitlines())):
                face = mean + (line % 2) - 0.5
                if line == 1:
                    face[0] = torch.nan
                rows.append(" ".join(map(str, face.flatten().tolist())))
            name = file.name.replace("img_path", "landmark")
            (lists / name).write_text("\n".join(rows))
    torch.save(mean, lists / "mean.pt")
    return lists


def test_training_starts_at_the_mean_landmarks_of_its_faces(
    stripes: Path, faces: Path, tmp_path: Path
) -> None:
    chosen = run(stripes, tmp_path / "run")
    chosen = replace(chosen, data=replace(chosen.data, lists=str(faces)))
    task: Any = _training_task(chosen, training_splits(chosen.data))
    model = task.model.eval()
    with torch.no_grad():
        found = model(torch.randn(2, 3, 32, 32)).landmarks
    # Resized to 40 pixels, of which the central 32 are taken.
    expected = (torch.load(faces / "mean.pt", weights_only=True) + 0.5) * 40 / 16 - 0.5 - 4
    assert (found[:, 1:] - expected[1:]).abs().max() < 0.3
    assert torch.isfinite(found).all()


def test_the_graph_of_the_training_labels(stripes: Path, faces: Path, tmp_path: Path) -> None:
    chosen = run(stripes, tmp_path / "run", graph="statistics")
    chosen = replace(chosen, data=replace(chosen.data, lists=str(faces)))
    fit(chosen)
    labels = ListDataset(stripes).labels
    expected = statistics_graph("BP4D", conditional_probabilities(labels))
    loaded: Any = load_model(checkpoint_file(run_folder(chosen), "last"))
    assert [list(row) for row in loaded.config.graph] == expected.tolist()
    graph = loaded.relations.graph
    assert graph.graph == "fixed" and 2 < graph.neighbors.shape[1] <= 18

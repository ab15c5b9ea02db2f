"""Training and scoring of a model of clips, on list files and on the embedded clips."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aurel.data.clips import ListClips
from aurel.data.synthetic import SyntheticClips
from aurel.losses import au_class_weights, region_cross_entropy, weighted_asymmetric_loss
from aurel.models.checkpoint import load_model, read_checkpoint
from aurel.models.registry import create_model
from aurel.output import AUOutput
from aurel.training.datasets import test_splits as scored_splits
from aurel.training.datasets import training_splits
from aurel.training.objective import Objective, losses_of
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    SyntheticOptions,
    TrainerOptions,
)
from aurel.training.run import checkpoint_file, fit, run_folder
from aurel.training.scoring import score

TINY = ModelOptions("mdhr", "rest_tiny", options={"channels": 8, "num_adjacent": 2})
CPU = TrainerOptions(max_epochs=1, accelerator="cpu", devices=1)


def listed(root: Path, **changes: Any) -> DataOptions:
    """The eight frames a person of `stripes`, as clips of three."""
    data = DataOptions(root=str(root), frames=3, batch_size=2, num_workers=0, resize=36, crop=32)
    return replace(data, **{"validation": 0.4, **changes})


def embedded(**changes: Any) -> DataOptions:
    faces = SyntheticOptions(subjects=6, per_subject=1, size=36, speed=4.0)
    data = DataOptions("synthetic", frames=4, batch_size=2, num_workers=0, resize=36, crop=32)
    return replace(data, **{"synthetic": faces, **changes})


def test_parts_of_a_list_as_clips(stripes: Path) -> None:
    splits = training_splits(listed(stripes), seed=1)
    assert splits.protocol is not None and splits.class_weights is not None
    kept, held = (splits.protocol[f"{part}_subjects"] for part in ("train", "validation"))
    train, validation, test = (getattr(splits, part) for part in ("train", "validation", "test"))
    # One clip a video for training, three to score it.
    assert (len(train), len(validation), len(test)) == (len(kept), 3 * len(held), 6)
    assert train[0]["image"].shape == (3, 3, 32, 32) and train[0]["labels"].shape == (3, 12)
    assert {validation.dataset.subjects[index] for index in validation.indices} == {
        name.removeprefix("BP4D/") for name in held
    }
    assert not torch.equal(validation[2]["labels"][2], validation[2]["labels"][1])
    assert (validation[2]["labels"][2] == -1).all()
    frames = ListClips(test.data, 3).data
    rows = training_splits(listed(stripes, frames=None), seed=1)
    torch.testing.assert_close(splits.class_weights, rows.class_weights)
    assert len(frames) == 16


def test_context_reaches_the_clips(stripes: Path) -> None:
    test = scored_splits(listed(stripes, context=2)).test
    assert test is not None and test[0]["image"].shape == (7, 3, 32, 32)
    with pytest.raises(ValueError, match="data.context must be 0, got 2"):
        scored_splits(embedded(context=2))


def test_embedded_clips_for_training(tmp_path: Path) -> None:
    splits = training_splits(embedded(validation=0.3))
    assert isinstance(splits.test, SyntheticClips) and splits.test.images.shape[:2] == (2, 4)
    train: Any = splits.train
    assert train[0]["image"].shape == (4, 3, 32, 32)
    labels = train.dataset.labels[train.indices].flatten(0, 1)
    assert splits.class_weights is not None
    torch.testing.assert_close(splits.class_weights, au_class_weights(labels))


def test_the_papers_loss() -> None:
    model = create_model("mdhr", aus="DISFA", backbone="rest_tiny", channels=8)
    out = model(torch.randn(2, 3, 3, 32, 32))
    labels = torch.randint(0, 2, (2, 3, 8)).float()
    labels[1, 2] = -1
    weights = torch.rand(8) + 0.5
    objective = Objective(losses_of("mdhr"), weights, model.region_plan)
    total, terms = objective(out, {"labels": labels})
    asymmetric = weighted_asymmetric_loss(out.probs, labels, weights)
    region = region_cross_entropy(out.region_logits, labels, model.features.plan)
    assert terms.keys() == {"asymmetric", "region"}
    torch.testing.assert_close(total, asymmetric + 0.01 * region)
    with pytest.raises(ValueError, match="regions must be the region plan .* 'region'"):
        Objective({"region": 1.0})(out, {"labels": labels})
    with pytest.raises(ValueError, match="must return `region_logits` for the loss"):
        Objective({"region": 1.0}, None, model.region_plan)(AUOutput(out.probs), {"labels": labels})


def test_fit_and_score_on_lists(stripes: Path, tmp_path: Path) -> None:
    chosen = RunOptions(TINY, listed(stripes), trainer=CPU, out=str(tmp_path / "run"))
    fit(chosen)
    row = next(csv.DictReader((run_folder(chosen) / "history.csv").open()))
    assert {"train/asymmetric", "train/region", "val/f1"} <= row.keys()
    last = checkpoint_file(run_folder(chosen), "last")
    assert read_checkpoint(last).metadata["frames"] == 3
    task = score(chosen, last)
    assert task.scores["AU24"]["known"] == 16  # each frame once, none of the repeated ones
    model = load_model(last)
    test: Any = scored_splits(chosen.data).test
    probs = torch.cat([model(clip["image"][None]).probs[0] for clip in test])
    labels = torch.cat([clip["labels"] for clip in test])
    detected = (probs[:, 0] >= 0.5) & (labels[:, 0] >= 0)
    right = (detected == (labels[:, 0] == 1))[labels[:, 0] >= 0]
    assert task.scores["AU01"]["accuracy"] == pytest.approx(right.double().mean().item())


def test_with_context_a_test_gives_the_numbers_of_the_whole_video(stripes: Path) -> None:
    model = create_model("mdhr", aus="BP4D", backbone="rest_tiny", channels=8, num_adjacent=1)
    model.eval()
    test: Any = scored_splits(listed(stripes, context=model.context)).test
    whole: Any = scored_splits(listed(stripes, frames=8, context=model.context)).test
    with torch.no_grad():
        parts = [model(test[index]["image"][None]).probs[0] for index in range(3)]
        expected = model(whole[0]["image"][None]).probs[0]
    labeled = [test[index]["labels"][:, 0] >= 0 for index in range(3)]
    found = torch.cat([part[rows] for part, rows in zip(parts, labeled, strict=True)])
    torch.testing.assert_close(found, expected[whole[0]["labels"][:, 0] >= 0])


def test_the_loss_falls_on_embedded_clips(tmp_path: Path) -> None:
    trainer = replace(CPU, max_epochs=6)
    optimizer = OptimizerOptions(lr=3e-3)
    out = str(tmp_path / "run")
    chosen = RunOptions(TINY, embedded(), {}, optimizer, trainer, out=out)
    task = fit(chosen)
    rows = list(csv.DictReader((run_folder(chosen) / "history.csv").open()))
    losses = [float(row["train/loss"]) for row in rows]
    assert losses[-1] < 0.9 * losses[0]
    scored = score(chosen, checkpoint_file(run_folder(chosen), "best"))
    assert scored.scores["AU12"]["known"] == 2 * 4
    visible, hidden = (scored.visibility_scores[part]["AU12"] for part in ("visible", "hidden"))
    assert visible["known"] + hidden["known"] == 2 * 4
    assert task.model.aus.name == "BP4D"


@pytest.mark.parametrize(
    ("model", "frames", "message"),
    [
        (TINY, None, "data.frames must be the length of a clip, such as 16, for mdhr, got None"),
        (
            ModelOptions("me_graphau_stage1", "test_resnet"),
            3,
            "data.frames must be null for me_graphau_stage1, which takes single images, got 3",
        ),
    ],
)
def test_models_of_clips_refuse_images_and_the_reverse(
    stripes: Path, tmp_path: Path, model: ModelOptions, frames: int | None, message: str
) -> None:
    chosen = RunOptions(model, listed(stripes, frames=frames), out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=message):
        fit(chosen)

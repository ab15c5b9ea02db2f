"""A data set that is registered in one place can be read and trained on everywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import aurel
from aurel.cli.main import main
from aurel.data import DatasetInfo, dataset_info, list_datasets, register_dataset
from aurel.data import registry as registry_module
from aurel.data.base import AUDataset
from aurel.data.readers import read_part
from aurel.data.registry import NoSuchPart, Part
from aurel.facs import FOLDS, AUSet
from aurel.models.checkpoint import load_model, read_checkpoint
from aurel.training.datasets import training_splits
from aurel.training.options import DataOptions

PACKAGE = Path(aurel.__file__).parent
PUPPETS = DatasetInfo(
    "Puppets",
    AUSet("Puppets", (4, 12, 25)),
    "Intensities of three AUs of puppets",
    folds=2,
    prefixes=("pup",),
    labels={"0": 0, "1": 0, "2": 1, "3": 1, "x": -1},
)
RECIPE = """
model: {name: me_graphau_stage1, backbone: test_resnet, options: {channels: 8, k: 2}}
data: {batch_size: 4, num_workers: 0, resize: 36, crop: 32, validation: 0.3}
trainer: {max_epochs: 1, limit_train_batches: 1, accelerator: cpu, devices: 1}
"""


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    list_datasets()
    monkeypatch.setattr(registry_module, "_datasets", dict(registry_module._datasets))


@pytest.fixture
def puppets(tmp_path: Path) -> Path:
    """Write list files of two folds: four people to train on, one to test on."""
    root = tmp_path / "puppets"
    rng = np.random.default_rng(0)
    for split, people in (("train", "abcd"), ("test", "e")):
        paths = [f"{person}/v1/{frame:02d}.png" for person in people for frame in range(4)]
        for path in paths:
            (root / "img" / path).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "img" / path)
        codes = ["3 1 x", "0 2 0", "1.0 0 2", "0 0 0"] * len(people)
        (root / f"pup_{split}_img_path_fold2.txt").write_text("\n".join(paths))
        (root / f"pup_{split}_label_fold2.txt").write_text("\n".join(codes))
    return root


def options(root: Path) -> DataOptions:
    return DataOptions("puppets", str(root), fold=2, resize=36, crop=32, validation=0.3)


def test_declared_lists_are_read_by_their_names_and_labels(puppets: Path) -> None:
    register_dataset(PUPPETS)
    data = read_part(Part("Puppets", root=str(puppets), fold=2))
    assert data.aus == PUPPETS.aus and len(data) == 16
    assert data.labels[:4].tolist() == [[1, 0, -1], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    clips = read_part(Part("Puppets", "test", str(puppets), 2, frames=2))
    assert len(clips) == 2 and clips[0]["image"].shape == (2, 3, 40, 40)
    splits = training_splits(options(puppets))
    # Under one name however it is spelled, by which the people of training and test are compared.
    assert splits.protocol is not None and splits.protocol["dataset"] == "Puppets"
    assert splits.protocol["test_subjects"] == ["Puppets/e"]


def test_a_step_by_the_command_line(
    puppets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    run = ["--config", str(recipe), "--data.dataset", "Puppets", "--data.root", str(puppets)]
    run += ["--out", str(tmp_path / "run")]
    assert main(["fit", *run, "--data.fold", "2"]) == 2  # as long as it is not registered
    assert "got 'Puppets'; nearest:" in capsys.readouterr().err
    register_dataset(PUPPETS)
    assert main(["fit", *run, "--data.fold", "3"]) == 2
    assert "data.fold must be in 1..2, got 3" in capsys.readouterr().err
    assert main(["fit", *run, "--data.fold", "2"]) == 0
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert load_model(best).aus == PUPPETS.aus
    metadata = read_checkpoint(best).metadata
    assert metadata["dataset"] == "Puppets" and metadata["test_subjects"] == ["Puppets/e"]
    assert main(["test", "--config", str(tmp_path / "run" / "config.yaml")]) == 0
    assert "AU25" in capsys.readouterr().out


class Noise(AUDataset):
    """Images of a reader that is not in the library and needs no files."""

    def __init__(self, part: Part) -> None:
        if part.split == "val":
            raise NoSuchPart("there is no such part")
        self.aus = AUSet.of(part.aus or [1, 2])
        people = {"train": "abc", "test": "d"}[part.split]
        self.subjects = [person for person in people for _ in range(4)]
        self.labels = torch.arange(2 * len(self)).view(-1, 2) % 2
        self.transform = None

    def __getitem__(self, index: int) -> dict[str, object]:
        image = torch.full((3, 36, 36), index, dtype=torch.uint8)
        sample = {"image": image, "labels": self.labels[index].float(), "subject": 0}
        return self.transform(sample) if self.transform is not None else sample


def test_a_step_on_another_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register_dataset(DatasetInfo("Noise", AUSet("Noise", (1, 2)), folds=0, read_images=Noise))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("k: 2", "k: 1"))
    run = ["--config", str(recipe), "--data.dataset", "noise", "--out", str(tmp_path / "run")]
    assert main(["fit", *run]) == 2
    assert "data.fold must be null for Noise, which has one split" in capsys.readouterr().err
    run += ["--data.fold", "null"]
    assert main(["fit", *run, "--data.class_weights", "file"]) == 2
    assert "data.class_weights must be labels or none, got file: Noise" in capsys.readouterr().err
    assert main(["fit", *run]) == 0
    assert "8 training images of 2 subjects" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"data.frames must be null for Noise"):
        read_part(Part("Noise", frames=4))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("BP4", "BP4D"), ("dissfa", "DISFA"), ("AffWild", "Aff-Wild2"), ("sintetic", "synthetic")],
)
def test_the_error_of_an_unknown_name_lists_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"got '{name}'; nearest: {nearest}"):
        training_splits(DataOptions(name, root="/nowhere"))


def test_the_error_of_a_name_like_no_other_lists_all() -> None:
    with pytest.raises(ValueError, match=re.escape(f"nearest: {', '.join(list_datasets())}")):
        dataset_info("zzz")
    assert dataset_info("zzz", [1, 2]).aus == AUSet.of([1, 2])


@pytest.mark.parametrize("spelling", ["BP4D+", "bp4d plus", "BP4DPlus"])
def test_a_name_is_found_in_any_spelling_and_is_taken_once(spelling: str) -> None:
    assert dataset_info(spelling).name == "BP4D+"
    with pytest.raises(ValueError, match=r"name must be new, got '.*', which is registered"):
        register_dataset(DatasetInfo(spelling))


def test_bad_declarations_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels must map to 1, 0 or -1, got \{'5': 5\}"):
        DatasetInfo("Mine", labels={"5": 5})
    with pytest.raises(ValueError, match="folds must be at least 0, got -1"):
        DatasetInfo("Mine", folds=-1)


def test_data_without_au_labels_need_aus(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="aus must be the AUs of .* of FEC, got None"):
        read_part(Part("FEC", root=str(tmp_path)))


def test_published_folds_are_those_of_facs() -> None:
    for name, parts in FOLDS.items():
        assert dataset_info(name).folds == len(parts)


def compared_strings(file: Path) -> Iterator[str]:
    """Yield the strings that a module compares something with, by itself or in a collection."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                for operand in getattr(side, "elts", [side]):
                    if isinstance(operand, ast.Constant) and isinstance(operand.value, str):
                        yield operand.value


def test_comparisons_are_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('a == "BP4D" or "DISFA" != a or a in ("x", "FEC") or a == sets["hybrid"]')
    assert list(compared_strings(file)) == ["BP4D", "DISFA", "x", "FEC"]


def test_no_module_tests_the_name_of_a_data_set() -> None:
    names = {name.lower() for name in list_datasets()}
    found = {
        f"{file.relative_to(PACKAGE)}: {text}"
        for file in PACKAGE.rglob("*.py")
        for text in compared_strings(file)
        if text.lower() in names
    }
    assert not found

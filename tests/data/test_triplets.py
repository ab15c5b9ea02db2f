"""Triplets of listed faces and of the embedded faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aurel.data.synthetic.dataset import SyntheticFaces
from aurel.data.transforms import EvalTransform, TrainTransform, normalize
from aurel.data.triplets import ListTriplets, SyntheticTriplets, read_triplets, sample_triplets
from aurel.facs import AUSet

LINES = """\
p1/a.png p1/b.png p2/c.png 3
p2/c.png p1/a.png p1/b.png 1 1
p1/a.png\tp3\\my d.png\tp1/b.png\t2\t3
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for value, name in enumerate(("p1/a.png", "p1/b.png", "p2/c.png", "p3/my d.png")):
        file = tmp_path / "img" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), 60 * value, np.uint8)).save(file)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "FEC_train_triplet.txt").write_text(LINES)
    return tmp_path


def test_the_odd_one_comes_last(root: Path) -> None:
    data = ListTriplets(root, transform=EvalTransform(8, 8))
    assert len(data) == 3 and data.subjects == ["p1", "p2", "p3"]
    for index, values in enumerate(((0, 60, 120), (0, 60, 120), (0, 60, 180))):
        sample = data[index]
        assert sample["image"].shape == (3, 3, 8, 8)
        for image, value in zip(sample["image"], values, strict=True):
            pixels = torch.full((3, 8, 8), value, dtype=torch.uint8)
            torch.testing.assert_close(image, normalize({"image": pixels})["image"])
    margins = torch.stack([data[index]["margin"] for index in range(3)])
    torch.testing.assert_close(margins, torch.tensor([0.2, 0.1, 0.2]))


def test_each_face_is_augmented_by_itself(root: Path) -> None:
    (root / "list" / "FEC_train_triplet.txt").write_text("p1/b.png p1/b.png p1/b.png 1")
    transform = TrainTransform(AUSet.unnamed(1), 8, 8, flip=0.0, brightness=0.9)
    one, two, three = ListTriplets(root, transform=transform)[0]["image"]
    assert not torch.allclose(one, two) and not torch.allclose(two, three)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png b.png 3", r"line 2: a line must have three paths, .* got 3 entries"),
        ("a.png b.png c.png 4", "line 2: a number must be 1, 2 or 3, got '4'"),
        ("a.png b.png c.png 2 ONE_CLASS", "line 2: a number must be 1, 2 or 3, got 'ONE_CLASS'"),
        ("", "line 2: a line must have three paths"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "FEC_val_triplet.txt"
    file.write_text(f"a.png b.png c.png 1\n{line}\na.png b.png c.png 1\n")
    with pytest.raises(ValueError, match=message):
        read_triplets(file)


def test_missing_files(root: Path, tmp_path: Path) -> None:
    transform = EvalTransform(8, 8)
    with pytest.raises(FileNotFoundError, match="the data folder .* does not exist"):
        ListTriplets(root / "nowhere", transform=transform)
    with pytest.raises(FileNotFoundError, match="holds no FEC_val_triplet_fold2.txt"):
        ListTriplets(root, fold=2, split="val", transform=transform)
    (root / "img" / "p2" / "c.png").unlink()
    data = ListTriplets(root, transform=transform)
    with pytest.raises(FileNotFoundError, match=r"no image .*c.png, named in .*, line 2"):
        data[1]


def test_sampled_triplets_have_the_closest_pair_first() -> None:
    intensities = torch.rand(50, 6)
    triplets = sample_triplets(intensities, seed=1)
    assert triplets.shape == (50, 3)
    assert all(len(set(row)) == 3 for row in triplets.tolist())
    assert all(index in row for index, row in enumerate(triplets.tolist()))
    a, p, n = intensities[triplets].unbind(1)
    near = (a - p).norm(dim=1)
    assert (near < (a - n).norm(dim=1)).all() and (near < (p - n).norm(dim=1)).all()
    # The best of eight candidates has a larger margin than random triplets.
    random = intensities[torch.stack([torch.randperm(50)[:3] for _ in range(200)])]
    sides = torch.stack(
        [(random[:, i] - random[:, j]).norm(dim=1) for i, j in ((0, 1), (0, 2), (1, 2))]
    )
    first, second, _ = sides.sort(0).values
    margin = torch.minimum((a - n).norm(dim=1), (p - n).norm(dim=1)) - near
    assert margin.mean() > 1.5 * (second - first).mean()
    assert torch.equal(triplets, sample_triplets(intensities, seed=1))
    assert not torch.equal(triplets, sample_triplets(intensities, seed=2))
    assert sorted(sample_triplets(torch.rand(3, 2), seed=0)[0].tolist()) == [0, 1, 2]


def test_embedded_triplets() -> None:
    faces = SyntheticFaces([1, 12], [4, 7], per_subject=3, size=32)
    data = SyntheticTriplets(faces, transform=EvalTransform(32, 32), seed=5)
    assert len(data) == 6 and data.subjects == ["4", "7"]
    sample = data[2]
    assert sample["image"].shape == (3, 3, 32, 32) and sample["margin"] == pytest.approx(0.2)
    for image, face in zip(sample["image"], data.triplets[2].tolist(), strict=True):
        torch.testing.assert_close(image, normalize({"image": faces.images[face]})["image"])
    two = SyntheticFaces([1, 12], [4], per_subject=2, size=32)
    with pytest.raises(ValueError, match="faces must be at least three, got 2"):
        SyntheticTriplets(two, transform=EvalTransform(32, 32))

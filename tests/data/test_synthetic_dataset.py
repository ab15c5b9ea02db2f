"""Data sets of synthetic faces: items, determinism, label models, clips, errors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from aurel.data.synthetic import SyntheticClips, SyntheticFaces
from aurel.facs import AUSet


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return SyntheticFaces(subjects=[3, 5, 8], per_subject=6, size=64)


def test_items(faces: SyntheticFaces) -> None:
    assert len(faces) == 18
    assert faces.aus == AUSet.of("BP4D")
    assert faces.subjects == [3] * 6 + [5] * 6 + [8] * 6
    assert faces.label_world == "as in BP4D"
    item = faces[7]
    assert item["image"].shape == (3, 64, 64)
    assert item["image"].dtype == torch.float32
    assert item["labels"].shape == item["intensity"].shape == item["visible"].shape == (12,)
    assert item["labels"].dtype == item["intensity"].dtype == torch.float32
    assert item["visible"].dtype == torch.bool
    assert item["landmarks"].shape == (49, 2)
    assert item["subject"] == 5
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    deviation = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    restored = (item["image"] * deviation + mean) * 255
    torch.testing.assert_close(restored, faces.images[7].float(), atol=1e-3, rtol=0)
    assert faces.images.dtype == torch.uint8
    assert faces.landmarks68.shape == (18, 68, 2)


def test_batches_by_a_loader(faces: SyntheticFaces) -> None:
    batch = next(iter(torch.utils.data.DataLoader(faces, batch_size=4)))
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["subject"].tolist() == [3, 3, 3, 3]


def test_an_item_is_a_function_of_seed_subject_and_number(faces: SyntheticFaces) -> None:
    fewer = SyntheticFaces(subjects=[8, 3], per_subject=4, size=64)
    for index, other_index in ((0, 12), (3, 15), (4, 0), (7, 3)):
        for key, value in fewer[index].items():
            expected = torch.as_tensor(faces[other_index][key])
            assert torch.equal(torch.as_tensor(value), expected), key
    other = SyntheticFaces(subjects=[3], per_subject=2, size=64, seed=1)
    assert not torch.equal(other.images[:2], faces.images[:2])


def test_occlusion_changes_what_is_covered_and_nothing_else() -> None:
    options: dict[str, Any] = {"subjects": range(4), "per_subject": 10, "size": 48}
    covered, open_faces = SyntheticFaces(**options), SyntheticFaces(occlusion=0, **options)
    assert open_faces.visible.all()
    assert 0.1 < (~covered.visible).float().mean() < 0.45
    assert torch.equal(covered.labels, open_faces.labels)
    assert torch.equal(covered.landmarks, open_faces.landmarks)
    assert not torch.equal(covered.images, open_faces.images)


def test_labels_do_not_depend_on_size_or_strength() -> None:
    options: dict[str, Any] = {"subjects": range(3), "per_subject": 8}
    small = SyntheticFaces(size=40, **options)
    large = SyntheticFaces(size=80, strength=0.3, **options)
    assert torch.equal(small.labels, large.labels)
    assert torch.equal(small.intensities, large.intensities)


@pytest.mark.parametrize("coupling", [0.0, 1.0, 2.0])
def test_worlds_have_one_rate_and_their_own_coupling(coupling: float) -> None:
    data = SyntheticFaces(subjects=range(20), per_subject=60, size=32, coupling=coupling)
    labels = data.labels.numpy()
    rates = [0.21, 0.17, 0.20, 0.46, 0.55, 0.59, 0.56, 0.47, 0.17, 0.34, 0.17, 0.15]
    np.testing.assert_allclose(labels.mean(0), rates, atol=0.06)
    six_and_twelve = np.corrcoef(labels[:, 3], labels[:, 6])[0, 1]
    assert six_and_twelve == pytest.approx({0.0: 0.0, 1.0: 0.54, 2.0: 0.80}[coupling], abs=0.09)


def test_present_units_are_strong_and_absent_ones_are_not(faces: SyntheticFaces) -> None:
    present = faces.labels.bool()
    assert faces.intensities[present].min() > 0.15
    assert faces.intensities[~present].max() < 0.3


@pytest.mark.parametrize(
    ("aus", "count"), [("DISFA", 8), ("EmotioNet", 12), ((12, 1), 2), (("AU14", "AU43"), 2)]
)
def test_other_sets_of_units(aus: Any, count: int) -> None:
    data = SyntheticFaces(aus, subjects=range(2), per_subject=3, size=48)
    assert data.aus == AUSet.of(aus)
    assert data.labels.shape == data.visible.shape == (6, count)


def test_columns_follow_the_order_asked_for() -> None:
    forth = SyntheticFaces((1, 12), subjects=range(3), per_subject=8, size=32)
    back = SyntheticFaces((12, 1), subjects=range(3), per_subject=8, size=32)
    assert torch.equal(forth.labels, back.labels.flip(1))
    assert torch.equal(forth.visible, back.visible.flip(1))
    assert torch.equal(forth.images, back.images)


def test_a_transform_takes_bytes_and_its_result_is_the_item() -> None:
    def shrink(sample: dict[str, Any]) -> dict[str, Any]:
        assert sample["image"].dtype == torch.uint8
        return {"half": sample["image"][:, ::2, ::2]}

    data = SyntheticFaces(subjects=[0], per_subject=1, size=48, transform=shrink)
    assert data[0]["half"].shape == (3, 24, 24)


def test_landmarks_fall_on_the_picture() -> None:
    data = SyntheticFaces(subjects=range(20), per_subject=3, size=64)
    inside = (data.landmarks > 0) & (data.landmarks < 63)
    assert inside.float().mean() > 0.995


def test_clips() -> None:
    data = SyntheticClips(subjects=[2, 4], per_subject=2, frames=9, size=48, speed=4)
    assert len(data) == 4
    assert data.subjects == [2, 2, 4, 4]
    item = data[3]
    assert item["image"].shape == (9, 3, 48, 48)
    assert item["labels"].shape == item["visible"].shape == item["intensity"].shape == (9, 12)
    assert item["landmarks"].shape == (9, 49, 2)
    again = SyntheticClips(subjects=[4], per_subject=2, frames=9, size=48, speed=4)
    assert torch.equal(again.images[1], data.images[3])
    # The same person keeps an appearance: neighboring frames differ little.
    steps = (data.images[:, 1:].float() - data.images[:, :-1].float()).abs().mean()
    apart = (data.images[0].float() - data.images[2].float()).abs().mean()
    assert steps < apart / 3


def test_intensities_of_clips_rise_and_fall_smoothly() -> None:
    data = SyntheticClips(
        subjects=range(3), per_subject=2, frames=80, size=32, speed=4, occlusion=0
    )
    jumps = data.intensities.diff(dim=1).abs()
    assert jumps.max() < 0.35
    assert data.labels.diff(dim=1).abs().sum() > 20
    steady = data.labels[:, :40].all(1)
    assert (data.intensities[:, 10:30].mean(1)[steady] > 0.1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aus": (1, 27)}, "aus must be among"),
        ({"aus": ("AU12L", "AU12R")}, "both sides together, got AU12L, AU12R"),
        ({"aus": AUSet.unnamed(3)}, "aus must be named AUs"),
        ({"subjects": []}, "subjects must be one or more"),
        ({"subjects": [-1]}, "subjects must be one or more"),
        ({"per_subject": 0}, "per_subject must be at least 1, got 0"),
        ({"size": 8}, "size must be at least 32, got 8"),
        ({"occlusion": 1.5}, r"occlusion must be in 0..1, got 1.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"strength": 2.0}, r"strength must be in 0..1, got 2.0"),
        ({"faintest": -0.1}, r"faintest must be in 0..1, got -0.1"),
        ({"coupling": -1.0}, r"coupling must be in 0..4, got -1.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticFaces(**{"subjects": [0], "per_subject": 1, "size": 32, **options})


@pytest.mark.parametrize("options", [{"frames": 0}, {"speed": 0.0}])
def test_bad_clips_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        SyntheticClips(subjects=[0], **options)


def test_a_contact_sheet_can_be_drawn() -> None:
    pytest.importorskip("PIL")
    from aurel.data.synthetic.contact_sheet import contact_sheet

    sheet = contact_sheet(size=40, subjects=(1,))
    assert sheet.size == (400, 10 * 54)


def test_torch_and_numpy_are_enough() -> None:
    code = (
        "import sys\n"
        "for name in ('PIL', 'torchvision', 'timm', 'cv2', 'matplotlib', 'scipy', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from aurel.data.synthetic import SyntheticFaces\n"
        "assert len(SyntheticFaces(subjects=[0], per_subject=2, size=32)) == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_former_name_of_the_shown_aus_still_works() -> None:
    from aurel.data import synthetic

    with pytest.warns(DeprecationWarning, match="is called SHOWN_AUS now"):
        assert synthetic.ACTION_UNITS is synthetic.SHOWN_AUS

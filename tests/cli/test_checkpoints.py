"""The model, and the size of its images, from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aurel.cli.checkpoints import ImageModel, choose_device, load_image_model, load_voters


@pytest.mark.parametrize(
    ("image_size", "metadata", "expected"),
    [
        (None, {}, (224, 256)),
        (None, {"image_size": 96, "resize": 110}, (96, 110)),
        (112, {"image_size": 96, "resize": 120}, (112, 120)),
        (112, {}, (112, 128)),
    ],
)
def test_sizes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image_size: int | None,
    metadata: dict[str, int],
    expected: tuple[int, int],
) -> None:
    from aurel.models import checkpoint

    model = SimpleNamespace(image_size=image_size)
    monkeypatch.setattr(checkpoint, "load_model", lambda path: model)
    content = SimpleNamespace(model="sacl", metadata=metadata, preprocessing=None)
    monkeypatch.setattr(checkpoint, "read_checkpoint", lambda path: content)
    path = tmp_path / "c.ckpt"
    path.touch()
    loaded = load_image_model(path)
    assert loaded.model is model
    assert (loaded.image_size, loaded.resize) == expected


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.ckpt"):
        load_image_model(tmp_path / "gone.ckpt")


def test_a_model_of_clips_is_refused(tmp_path: Path) -> None:
    from aurel.models.checkpoint import save_model
    from aurel.models.registry import create_model

    path = tmp_path / "c.ckpt"
    save_model(create_model("mdhr", aus=[1, 2, 12], backbone="rest_tiny"), path)
    with pytest.raises(ValueError, match=r"single images, got .*c\.ckpt, whose model takes clips"):
        load_image_model(path)


def test_crops_cover_the_same_part_of_a_face_as_in_training() -> None:
    model = ImageModel(None, image_size=224, resize=256)
    assert 1 + 2 * model.margin(0.0) == pytest.approx(224 / 256)
    assert 1 + 2 * model.margin(0.2) == pytest.approx(1.4 * 224 / 256)
    assert ImageModel(None, 96, 96).margin(0.2) == pytest.approx(0.2)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="--device nonsense cannot be used"):
        choose_device("nonsense")
    with pytest.raises(ValueError, match="--device cuda:97 cannot be used"):
        choose_device("cuda:97")


def voter(path: Path, aus: list[int], **metadata: int) -> Path:
    from aurel.models.checkpoint import save_model
    from aurel.models.registry import create_model

    model = create_model("lrp_fgg", aus=aus, backbone="rest_tiny", fusion="none")
    save_model(model, path, **metadata)
    return path


def test_checkpoints_that_vote(tmp_path: Path) -> None:
    sizes = {"image_size": 64, "resize": 70}
    paths = [voter(tmp_path / f"{i}.ckpt", [1, 2], **sizes) for i in range(3)]
    loaded = load_voters(paths, 0.4)
    assert (loaded.image_size, loaded.resize, loaded.takes_clips) == (64, 70, False)
    members = [load_image_model(path).model for path in paths]
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        shares = sum((model(images).probs >= 0.4).float() for model in members) / 3
        torch.testing.assert_close(loaded.model(images).probs, shares)


def test_checkpoints_that_cannot_vote_together(tmp_path: Path) -> None:
    first = voter(tmp_path / "a.ckpt", [1, 2], image_size=64, resize=70)
    other = voter(tmp_path / "b.ckpt", [1, 2], image_size=64, resize=80)
    with pytest.raises(ValueError, match=r"resize is 70 in .*a\.ckpt and 80 in .*b\.ckpt"):
        load_voters([first, other], 0.5)
    other = voter(tmp_path / "b.ckpt", [1, 4], image_size=64, resize=70)
    with pytest.raises(ValueError, match="same AUs in the same order, got AU01, AU02 and AU01, AU"):
        load_voters([first, other], 0.5)

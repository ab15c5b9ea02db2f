"""Read photographs and videos into tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("cv2")
pytest.importorskip("pandas")

import aurel
from aurel.data.preprocessing import Preprocessing
from aurel.facs import AUSet
from aurel.models import create_model, save_model
from aurel.output import AUOutput
from aurel.vision.face_detector import Face, whole_image
from aurel.vision.image import RGBImage
from aurel.vision.read_faces import FACE_COLUMNS

POINTS = ((2.0, 3.0), (6.0, 3.0), (4.0, 5.0), (3.0, 7.0), (5.0, 7.0))


class Mean(nn.Module):
    """Returns the mean normalized red and green of a chip."""

    def __init__(self, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.aus = AUSet.of([1, 2])
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> AUOutput:
        return AUOutput(images[:, :2].mean((2, 3)), aus=self.aus)


def find_bright(image: RGBImage) -> list[Face]:
    """Find a face with points in the left half of a picture that is bright there."""
    height, width = image.shape[:2]
    if image[:, : width // 2].mean() < 100:
        return []
    return [Face(0, 0, width / 2, height, 5.0, 0.75, POINTS)]


def test_columns_and_values_of_pictures() -> None:
    bright = np.full((10, 20, 3), 200, dtype=np.uint8)
    bright[..., 1] = 100
    table = aurel.read_faces([bright, bright // 4], model=Mean(), detector=find_bright)
    assert list(table.columns) == [*FACE_COLUMNS, "AU01", "AU02"]
    first, second = (table.iloc[row] for row in (0, 1))
    assert (first["input"], first["frame"], first["face"], first["person"]) == ("0", 0, 0, 0)
    assert first["FaceRectWidth"] == 10 and first["FaceAngle"] == 5 and first["FaceScore"] == 0.75
    assert (first["LeftEyeX"], first["MouthLeftY"]) == (6, 7)
    assert first["AU01"] == pytest.approx((200 / 255 - 0.485) / 0.229, abs=1e-4)
    assert second["input"] == "1" and table.iloc[1, 3:].isna().all()


def test_the_preprocessing_of_a_model_is_used() -> None:
    white = np.full((10, 20, 3), 255, dtype=np.uint8)
    about = Preprocessing(32, 40, "jaanet", (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    table = aurel.read_faces(white, model=Mean(about), detector=find_bright)
    assert table["AU01"].item() == pytest.approx(2.0) and table["AU02"].item() == pytest.approx(1.0)


def test_a_video_has_times_people_and_frames_without_faces(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    video = write_video(tmp_path / "a.mp4", frames=9, fps=20)
    table = aurel.read_faces(tmp_path, detector=find_bright, every=4)
    assert table["frame"].tolist() == [0, 4, 8] and set(table["input"]) == {str(video)}
    np.testing.assert_allclose(table["time"], [0, 0.2, 0.4], atol=0.01)
    assert table["person"].tolist() == [0, 0, 0]
    empty = aurel.read_faces(video, detector=lambda image: [], every=4)
    assert len(empty) == 3 and empty["face"].isna().all()


def test_a_checkpoint_and_its_preprocessing(tmp_path: Path) -> None:
    model = create_model("me_graphau_stage1", aus="DISFA", backbone="test_resnet").eval()
    path = tmp_path / "model.safetensors"
    model.preprocessing = {"size": 64, "chip": 64, "alignment": "box"}
    save_model(model, path)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for source in (path, str(path)):
        table = aurel.read_faces(image, model=source, detector=whole_image)
        inputs = Preprocessing().normalize(torch.from_numpy(image).permute(2, 0, 1))
        with torch.no_grad():
            expected = model(inputs[None]).probs[0]
        np.testing.assert_allclose(table.iloc[0, -8:].astype(float), expected, atol=1e-5)


def test_a_model_of_clips_reads_a_whole_video(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    model = create_model("au_windows", aus=[1, 2, 4])
    video = write_video(tmp_path / "a.mp4", frames=5)
    table = aurel.read_faces(video, model=model, detector="whole")
    assert len(table) == 5 and table[["AU01", "AU02", "AU04"]].notna().all(axis=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be at least 1"),
        ({"detector": "dlib"}, "detector must be one of"),
        ({"detector": whole_image, "min_face": 0.1}, "min_face and min_confidence must be None"),
        ({"detector": "whole", "model": "no_such_weights"}, "no_such_weights"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aurel.read_faces(np.zeros((9, 9, 3), np.uint8), **options)  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.jpg"):
        aurel.read_faces(tmp_path / "none.jpg", detector="whole")


def test_a_file_of_a_folder_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (20, 20)).save(folder / "good", "PNG")
    (folder / "notes.txt").write_text("text")
    (folder / "bad.jpg").write_bytes(b"no picture")
    whole = write_video(tmp_path / "a.mp4", 40).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.warns(UserWarning) as warned:
        table = aurel.read_faces(folder, detector=find_bright)
    lines = sorted(str(warning.message) for warning in warned)
    assert len(lines) == 2 and "bad.jpg is not a photograph" in lines[0]
    assert "cut.mp4 is incomplete" in lines[1]
    assert set(table["input"]) == {str(folder / "cut.mp4"), str(folder / "good")}
    with pytest.raises(ValueError, match=r"bad\.jpg is not a photograph"):
        aurel.read_faces(folder / "bad.jpg", detector=find_bright)


@pytest.mark.parametrize("paths", [3, None, b"a.jpg", [3]])
def test_what_is_no_path_is_named(paths: object) -> None:
    with pytest.raises(TypeError, match="paths must be a path, a picture"):
        aurel.read_faces(paths, detector=find_bright)

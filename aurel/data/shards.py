"""Faces in the shards that `aurel prepare` writes, with the interface of listed faces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurel.data.images import open_rgb
from aurel.data.lists import ListDataset
from aurel.data.shard_files import read_index, read_member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image


class ShardFaces(ListDataset):
    """Images and AU labels named by list files, of which the images lie in tar files.

    The lists are those of `ListDataset`, beside the tar files; an index has the place of each
    image. So items can be read in any order, and the tar files in the form of WebDataset can be
    read by other programs too.

    Args:
        root: folder of the shards and of their index.
        options: those of `ListDataset`, without `images`.

    Raises:
        FileNotFoundError: the index or a list is missing.
        ValueError: a list or the index has a bad line, or an image is not in the index.
    """

    def __init__(self, root: str | Path, *args: Any, **options: Any) -> None:
        super().__init__(root, *args, images=root, **options)
        self.places = read_index(self.root)
        for line, path in enumerate(self.paths, start=1):
            if path not in self.places:
                raise ValueError(
                    f"{self.path_list}, line {line}: an image must be in the index of "
                    f"{self.root}, got {path}"
                )
        self.layout = f"lists in {self.lists}, pictures in the tar files of {self.root}"

    def pictures_of(self, items: Sequence[int]) -> list[Path]:
        """Return the tar files of these items."""
        return [self.root / self.places[self.paths[item]].shard for item in items]

    def _open(self, index: int) -> Image.Image:
        path = self.paths[index]
        place = self.places[path]
        return open_rgb(self.root / place.shard / path, read_member(self.root, place))

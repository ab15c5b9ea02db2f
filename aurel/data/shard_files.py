"""Tar files of pictures in the form of WebDataset, with an index of the place of each picture."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from aurel.files import atomic_path

INDEX = "index.tsv"
_BLOCK = tarfile.BLOCKSIZE


class Place(NamedTuple):
    """The place of a picture.

    Attributes:
        shard: name of the tar file.
        offset: first byte of the picture in it.
        size: number of bytes.
    """

    shard: str
    offset: int
    size: int


@dataclass(frozen=True)
class Sample:
    """A picture with its description.

    Args:
        key: name of the sample; its file name has no dot.
        picture: the file of the picture, in the format of its suffix.
        about: the content of the JSON file beside the picture.
    """

    key: str
    picture: Path
    about: Mapping[str, Any]


def write_shards(folder: Path, name: str, samples: Sequence[Sample], count: int) -> list[Path]:
    """Write samples into tar files of almost equal numbers, in their order, and the index.

    Each sample is ``KEY.jpg`` (or another suffix) and ``KEY.json``. Equal samples give equal files.
    The index is removed first and written last, so that it never names other tar files. Tar files
    of an earlier division are removed.

    Args:
        folder: folder of the shards.
        name: with which their names begin, as in ``BP4D-000000.tar``.
        samples: the samples.
        count: number of tar files, at most one for each sample.

    Raises:
        ValueError: there are no samples.
        FileNotFoundError: a picture does not exist.
    """
    if not samples:
        raise ValueError(f"{folder} must have at least one chip for shards, got none")
    (folder / INDEX).unlink(missing_ok=True)
    count = min(count, len(samples))
    lines: list[str] = []
    shards: list[Path] = []
    for number in range(count):
        start, stop = (len(samples) * part // count for part in (number, number + 1))
        shards.append(folder / f"{name}-{number:06d}.tar")
        with atomic_path(shards[-1]) as temporary, tarfile.open(temporary, "w") as archive:
            for sample in samples[start:stop]:
                place = _add_sample(archive, sample, shards[-1].name)
                lines.append("\t".join(map(str, [_picture_name(sample), *place])))
    for other in folder.glob("*.tar"):
        if other not in shards:
            other.unlink()
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return shards


def has_shards(folder: Path) -> bool:
    """Return whether a folder holds shards, complete or not."""
    return (folder / INDEX).is_file() or any(folder.glob(f"*-{'[0-9]' * 6}.tar"))


def read_index(folder: Path) -> dict[str, Place]:
    """Return the place of each picture, by its path.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: a bad line.
    """
    file = folder / INDEX
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {INDEX}: the shards are incomplete, run aurel prepare again"
        )
    return dict(_places(file))


def read_member(folder: Path, place: Place) -> bytes:
    """Return the content of a picture in a shard.

    Raises:
        FileNotFoundError: there is no such shard.
        ValueError: the shard is shorter than the index says.
    """
    path = folder / place.shard
    with path.open("rb") as file:
        file.seek(place.offset)
        content = file.read(place.size)
    if len(content) < place.size:
        end = place.offset + place.size
        raise ValueError(
            f"{path} must have {end} bytes at least, as in {INDEX}, got {path.stat().st_size}"
        )
    return content


def _add_sample(archive: tarfile.TarFile, sample: Sample, shard: str) -> Place:
    picture = sample.picture.read_bytes()
    _add(archive, _picture_name(sample), picture)
    offset = archive.offset - -(-len(picture) // _BLOCK) * _BLOCK
    about = json.dumps(dict(sample.about), ensure_ascii=False, sort_keys=True, allow_nan=False)
    _add(archive, f"{sample.key}.json", about.encode())
    return Place(shard, offset, len(picture))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without the time and the owner of the file
    member.size = len(content)
    archive.addfile(member, BytesIO(content))


def _picture_name(sample: Sample) -> str:
    return sample.key + sample.picture.suffix


def _places(file: Path) -> Iterator[tuple[str, Place]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split("\t")
        if len(words) != 4 or not (words[2].isdigit() and words[3].isdigit()):
            raise ValueError(
                f"{file}, line {number}: a line must have a path, a shard, an offset and a size, "
                f"got {line!r}"
            )
        yield words[0], Place(words[1], int(words[2]), int(words[3]))

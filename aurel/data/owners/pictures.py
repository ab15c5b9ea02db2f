"""Pictures of videos, by the numbers in their names."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from aurel.data.list_files import image_folder
from aurel.data.owners.options import OwnerOptions
from aurel.data.owners.table import Find, Source, VideoCodes

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

Pictures = dict[str, dict[int, Source]]
VideoOf = Callable[[tuple[str, ...]], str | None]


def picture_folder(root: Path, images: str | Path | None, names: Sequence[str]) -> Path:
    """Return the folder of the pictures of a data set.

    Args:
        root: folder of the data set.
        images: the folder that the user gives; None to look for one.
        names: paths in `root` where the owner has pictures or videos, the best first.

    Returns:
        `images`; or the folder of aligned faces in `root` (``img``, ``img-dlib``, ``img_o``); or
        the first of `names` that exists.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there are several folders of aligned faces.
    """
    if images is not None:
        if not Path(images).is_dir():
            raise FileNotFoundError(f"there is no folder {images}")
        return Path(images)
    folder = image_folder(root)
    found = [folder] if folder != root else [root / n for n in names if (root / n).is_dir()]
    if not found:
        places = ", ".join(("img", *names))
        raise FileNotFoundError(f"{root} holds no folder of pictures: {places}; give data.images")
    return found[0]


def pictures_of_videos(folder: Path, video_of: VideoOf) -> Pictures:
    """Return the pictures in a folder, and in zip files in it, by video and number.

    The number is the one at the end of the name: 2440 in ``2440.jpg``, 7 in ``frame-0007.png``.
    Other files are ignored, and so are hidden ones.

    Args:
        folder: searched with all folders in it.
        video_of: function from the names of the folders of a picture, relative to `folder`, to the
            video, or None for folders of something else.

    Raises:
        ValueError: two pictures of one frame, or a damaged zip file.
    """
    found: Pictures = {}
    for parts, files in _folders(folder):
        video = video_of(parts)
        if video is None:
            continue
        frames = found.setdefault(video, {})
        for name, source in files:
            number = picture_number(name)
            if number is None:
                continue
            if number in frames:
                raise ValueError(
                    f"{folder} must hold one picture of frame {number} of {video}, got "
                    f"{_shown(frames[number])} and {_shown(source)}: give data.images"
                )
            frames[number] = source
    return found


def numbered(pictures: Pictures, videos: Sequence[VideoCodes], options: OwnerOptions) -> Find:
    """Return the function that finds the picture of a frame by its number in the annotation."""
    offset = options.picture_offset
    if offset is None:
        names_zero = any(0 in pictures.get(video.video, {}) for video in videos)
        codes_zero = any(number == 0 for video in videos for number in video.numbers)
        offset = -1 if names_zero and not codes_zero else 0
    return lambda video, number: pictures.get(video, {}).get(number + offset)


def picture_number(name: str) -> int | None:
    """Return the number at the end of the name of a picture; None for other files."""
    stem, suffix = os.path.splitext(name)
    match = re.search(r"(\d+)$", stem)
    if match is None or suffix.lower() not in SUFFIXES or name.startswith("."):
        return None
    return int(match[1])


def pictures_by_name(folder: Path) -> dict[str, Source]:
    """Return the pictures in a folder, and in the folders in it, by their names in lower case.

    Raises:
        ValueError: two pictures of one name.
    """
    found: dict[str, Source] = {}
    for _, files in _folders(folder, zips=False):
        for name, source in files:
            if os.path.splitext(name)[1].lower() not in SUFFIXES or name.startswith("."):
                continue
            key = name.lower()
            if key in found:
                raise ValueError(
                    f"{folder} must hold one picture {name}, got {found[key].path} and "
                    f"{source.path}: give data.images"
                )
            found[key] = source
    return found


def _folders(
    folder: Path, zips: bool = True
) -> Iterator[tuple[tuple[str, ...], list[tuple[str, Source]]]]:
    """Yield the parts of the path of each folder, and its files; zip files are folders, too."""
    for current, inner, files in os.walk(folder):
        inner.sort()
        place = Path(current)
        parts = place.relative_to(folder).parts
        yield parts, [(name, Source(place / name)) for name in sorted(files)]
        for name in sorted(files) if zips else ():
            if name.lower().endswith(".zip") and name[:-4] not in inner:  # not unpacked
                yield from _zip_folders(place / name, parts)


def _zip_folders(
    file: Path, parts: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[tuple[str, Source]]]]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{file} cannot be read as a zip file: {error}") from error
    folders: dict[tuple[str, ...], list[tuple[str, Source]]] = {}
    for member in members:
        *above, name = PurePosixPath(member).parts or ("",)
        files = folders.setdefault((*parts, file.stem, *above), [])
        files.append((name, Source(file, member=member)))
    yield from sorted(folders.items())


def _shown(source: Source) -> str:
    return str(source.path) + ("" if source.member is None else f": {source.member}")

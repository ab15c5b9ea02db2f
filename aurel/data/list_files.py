"""The names of list files and of their folders, and the lines of a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from aurel.data.registry import DatasetInfo, NoSuchPart
from aurel.data.text import read_text

IMAGE_FOLDERS = ("img", "img-dlib", "img_o")
PATH_KINDS = ("img_path", "path")


def list_prefixes(info: DatasetInfo, dataset: str) -> list[str]:
    """Return the possible prefixes of list files; `dataset` is the name in the user's spelling."""
    return list(dict.fromkeys((dataset, info.name, *info.prefixes)))


def find_list(
    folder: Path, prefixes: Sequence[str], split: str, kinds: Sequence[str], fold: int | None
) -> Path:
    """Return the list file of one kind, which may have any of several published names.

    Raises:
        FileNotFoundError: there is no file of these names, which the message lists.
    """
    end = "" if fold is None else f"_fold{fold}"
    return first_file(
        folder, [f"{prefix}_{split}_{kind}{end}.txt" for prefix in prefixes for kind in kinds]
    )


def has_lists(folder: Path, prefixes: Sequence[str]) -> bool:
    """Return whether a folder holds a list of paths or of labels, of any part and fold."""
    names = "|".join(map(re.escape, prefixes))
    form = re.compile(rf"({names})_(train|val|test)_({'|'.join(PATH_KINDS)}|label)(_fold\d+)?\.txt")
    return folder.is_dir() and any(form.fullmatch(file.name) for file in folder.iterdir())


def find_part(
    folder: Path,
    prefixes: Sequence[str],
    split: str,
    fold: int | None,
    label_kinds: Sequence[str] = ("label",),
) -> tuple[Path, Path]:
    """Return the list of paths and the list of labels of a part.

    Raises:
        NoSuchPart: both are missing.
        FileNotFoundError: one of them is missing.
    """
    found: list[Path] = []
    missing: list[FileNotFoundError] = []
    for kinds in (PATH_KINDS, label_kinds):
        try:
            found.append(find_list(folder, prefixes, split, kinds, fold))
        except FileNotFoundError as error:
            missing.append(error)
    if not missing:
        return found[0], found[1]
    if found:
        raise FileNotFoundError(f"{missing[0]}, but {found[0].name}")
    raise NoSuchPart(str(missing[0]))


def list_lines(file: Path) -> list[str]:
    """Return the lines of a list, without spaces at their ends and empty lines at its end."""
    text = read_text(file).rstrip()
    return [line.strip() for line in text.split("\n")] if text else []


def list_folder(root: Path) -> Path:
    """Return the folder of the lists of a data set."""
    return root / "list" if (root / "list").is_dir() else root


def image_folder(root: Path) -> Path:
    """Return the folder that the listed paths of a data set are relative to."""
    found = [root / name for name in IMAGE_FOLDERS if (root / name).is_dir()]
    if len(found) > 1:
        names = " and ".join(str(folder) for folder in found)
        raise ValueError(f"images must be one of the existing folders {names}, got None")
    return found[0] if found else root


def first_file(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of `names` that is a file in `folder`."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no {' or '.join(names)}")

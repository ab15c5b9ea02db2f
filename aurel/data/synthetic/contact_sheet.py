"""A sheet of pictures: every action unit alone, combinations, random items, a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aurel.data.synthetic.actions import COLUMN, SHOWN_AUS
from aurel.data.synthetic.arrays import rows
from aurel.data.synthetic.capture import NUMBERS, capture_conditions
from aurel.data.synthetic.dataset import SyntheticClips, SyntheticFaces
from aurel.data.synthetic.faces import render
from aurel.data.synthetic.identity import person

Picture = NDArray[np.uint8]
COMBINATIONS = (
    ("6+12", "1+2+5+25+26", "9+10+17", "1+4+15+17", "4+5+7+23", "1+2+4+5+20+25"),
    ("6+12+25", "4+17+24", "6+7+10+12", "12+17+24", "1+2+14"),
)
_CAPTION = 14


def contact_sheet(
    size: int = 144, seed: int = 0, subjects: Sequence[int] = (8, 14, 21), columns: int = 10
) -> Any:
    """Return the sheet as a `PIL.Image.Image`.

    Args:
        size: side of a face in pixels.
        seed: seed of people, labels and conditions.
        subjects: numbers of the people who show the action units one by one.
        columns: number of faces in a row.

    Raises:
        ImportError: pillow is not installed.
    """
    cells: list[tuple[str, Picture] | None] = []
    for subject in subjects:
        units = ["", *map(str, SHOWN_AUS), *COMBINATIONS[0], *COMBINATIONS[1]]
        cells += _fill(_acting(subject, units, [1.0] * len(units), size, seed), columns)
    levels = [0.1, 0.25, 0.45, 0.7, 1.0]
    for unit in ("4", "12"):
        cells += _acting(subjects[-1], [unit] * len(levels), levels, size, seed)
    cells = _fill(cells, columns)
    cells += _fill(_random_items(4 * columns, size, seed), columns)
    cells += _fill(_clip(2 * columns, size, seed), columns)
    return _mount(cells, size, columns)


def _acting(
    subject: int, units: Sequence[str], levels: Sequence[float], size: int, seed: int
) -> list[tuple[str, Picture] | None]:
    """Return pictures of combinations such as "6+12" of one person in even light."""
    count = len(units)
    actions = np.zeros((count, len(SHOWN_AUS), 2), np.float32)
    for index, (text, level) in enumerate(zip(units, levels, strict=True)):
        for au in filter(None, text.split("+")):
            actions[index, COLUMN[int(au)]] = level
    capture = capture_conditions(np.full((count, NUMBERS), 0.5), 0.0)
    people = rows(person(seed, subject), np.zeros(count, int))
    images = render(people, actions, capture, size=size).images
    captions = [
        f"{'+'.join(text.split('+')) or 'at rest'}{'' if level == 1 else f' at {level:g}'}"
        for text, level in zip(units, levels, strict=True)
    ]
    return list(zip(captions, images, strict=True))


def _random_items(count: int, size: int, seed: int) -> list[tuple[str, Picture] | None]:
    """Return pictures of items of a data set; hidden units are in parentheses."""
    data = SyntheticFaces(subjects=range(100, 100 + count), per_subject=1, size=size, seed=seed)
    captions = []
    for labels, visible in zip(data.labels.tolist(), data.visible.tolist(), strict=True):
        names = [
            str(number) if is_visible else f"({number})"
            for number, label, is_visible in zip(data.aus.numbers, labels, visible, strict=True)
            if label
        ]
        captions.append("+".join(names) or "none")
    return list(zip(captions, data.images.numpy(), strict=True))


def _clip(count: int, size: int, seed: int) -> list[tuple[str, Picture] | None]:
    """Return every fifth frame of a clip with its 49 landmarks."""
    data = SyntheticClips(
        subjects=[7], per_subject=1, frames=5 * count, size=size, seed=seed, speed=2, occlusion=0
    )
    cells: list[tuple[str, Picture] | None] = []
    for frame in range(0, 5 * count, 5):
        image = data.images[0, frame].numpy().copy()
        for x, y in data.landmarks[0, frame].round().int().clamp(0, size - 1).tolist():
            image[:, y, x] = (60, 255, 60)
        present = data.labels[0, frame].nonzero().flatten().tolist()
        names = "+".join(str(data.aus.numbers[index]) for index in present)
        cells.append((f"t={frame} {names}", image))
    return cells


def _fill(
    cells: list[tuple[str, Picture] | None], columns: int
) -> list[tuple[str, Picture] | None]:
    """Complete the last row with empty cells."""
    return cells + [None] * (-len(cells) % columns)


def _mount(cells: Sequence[tuple[str, Picture] | None], size: int, columns: int) -> Any:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ImportError("contact_sheet needs pillow: pip install 'aurel-au[vision]'") from error
    high = size + _CAPTION
    sheet = Image.new("RGB", (columns * size, len(cells) // columns * high), "white")
    pen = ImageDraw.Draw(sheet)
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        x, y = index % columns * size, index // columns * high
        caption, image = cell
        pen.text((x + 2, y + 1), caption[: size // 6], fill="black")
        face = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        sheet.paste(face, (x, y + _CAPTION))
    return sheet

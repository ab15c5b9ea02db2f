"""EmotioNet: a sheet of addresses of photographs on the web, with a column for each AU."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from aurel.data.owners.codes import not_coded, occurrence, whole_numbers
from aurel.data.owners.layout import OwnerRequest
from aurel.data.owners.pictures import picture_folder, pictures_by_name
from aurel.data.owners.sheets import Row, column, find_sheets, read_sheet
from aurel.data.owners.table import FrameTable, VideoCodes, frame_table

EMOTIONET_TREE = """\
EmotioNet_FACS_aws_2020_24600.csv         columns URL and 'AU 1', ...; 1, 0, or 999 for unknown;
                                          also .xlsx
img/N_0000000001_00002.jpg                pictures under the names at the ends of the URLs"""


def find_emotionet(root: Path) -> list[Path]:
    """Return the sheets of annotations."""
    return find_sheets(root, "emotionet_?facs")


def read_emotionet(request: OwnerRequest) -> FrameTable:
    """Return the table of EmotioNet (Fabian Benitez-Quiroz et al., 2016).

    `FrameTable.numbers` are the rows of the sheet, counted from 0, by which the code of MACG makes
    its folds. Photographs that can no longer be downloaded are missing; of rows with one picture
    the first is taken. People are unknown: each photograph is a person of its own.

    Raises:
        FileNotFoundError: there is no folder of pictures.
        ValueError: a bad row, or an AU that was not coded.
    """
    file = request.found
    rows = read_sheet(file)
    address = column(rows, "URL", file)
    columns = _au_columns(rows, request, file)
    lines = [(number, ",".join(row[name] for name in columns)) for number, row in rows]
    codes = whole_numbers(lines, len(columns), file)
    labels = occurrence(codes, request.options, file, [number for number, _ in lines])
    images = picture_folder(request.root, request.images, ("images", "Images"))
    found = pictures_by_name(images)
    photographs, seen = [], set()
    for index, (number, row) in enumerate(rows):
        name = PurePosixPath(row[address].replace("\\", "/")).name
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        part = labels[index : index + 1]
        photographs.append(VideoCodes(name, name, [index], part, None, file, [number]))
    notes = []
    if len(photographs) < len(rows):
        notes = [f"{file}: {len(rows) - len(photographs)} rows repeat a picture and are left out"]
    table = frame_table(
        request.aus, photographs, lambda name, _: found.get(name.lower()), images, notes=notes
    )
    return FrameTable(**{**vars(table), "listed": len(rows)})


def _au_columns(rows: list[tuple[int, Row]], request: OwnerRequest, file: Path) -> list[str]:
    by_number = {}
    for name in rows[0][1] if rows else []:
        if (match := re.fullmatch(r"AU ?0*(\d+)", name, re.IGNORECASE)) is not None:
            by_number[int(match[1])] = name
    if lacking := not_coded(request.aus, by_number):
        raise ValueError(
            f"{file}, line 1: the AUs must include {', '.join(lacking)}, got "
            f"{', '.join(map(str, by_number)) or 'none'}"
        )
    return [by_number[number] for number in request.aus.numbers]

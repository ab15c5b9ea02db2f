"""
AUs that occur together in a table
==================================

OpenFace, py-feat and ``aurel predict`` write a CSV file with a row for each face. This script reads
any of them (``python 05_analyze_an_au_table.py video.csv``) and draws which AUs occur together.
Without a file it writes one in the format of OpenFace, with 4000 faces as in BP4D.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from aurel.data.synthetic import label_world
from aurel.facs import AUSet, conditional_probabilities
from aurel.viz.adjacency import draw_adjacency
from aurel.viz.face_graph import draw_face_graph


def make_table() -> Path:
    """Write a table in the format of OpenFace: names after a space, presence of AU12 in AU12_c."""
    world, path = label_world("BP4D"), Path(tempfile.mkdtemp(), "faces.csv")
    names = ["frame", " success", *(f" AU{au:02d}_c" for au in world.aus)]
    rows = np.c_[range(4000), np.ones(4000), world.sample(np.random.default_rng(0).random(4000))]
    np.savetxt(path, rows, fmt="%d", delimiter=",", header=",".join(names), comments="")
    return path


def read_table(path: Path) -> tuple[AUSet, torch.Tensor]:
    """Return the AUs whose presence varies, and their labels, (faces, N), 1 or 0."""
    with path.open(newline="") as file:
        rows = [{k.strip(): v for k, v in row.items()} for row in csv.DictReader(file)]
    for ending in ("_c", "_present", ""):  # OpenFace, aurel predict, py-feat
        columns = [c for c in rows[0] if c.startswith("AU") and c[4:] == ending]
        if columns:
            break
    found = [row for row in rows if row.get("success", "1").strip() == "1" and row[columns[0]]]
    present = np.array([[float(row[c]) >= 0.5 for c in columns] for row in found])
    varies = np.flatnonzero(present.any(0) & ~present.all(0))
    return AUSet.of([columns[n][:4] for n in varies]), torch.from_numpy(present[:, varies]).int()


aus, labels = read_table(Path(sys.argv[1]) if len(sys.argv) > 1 else make_table())
print(f"{len(labels)} faces, {len(aus)} AUs with varying presence")

# %%
# The probability of each AU given another one: row "AU06", column "AU12" is P(AU12 | AU06).

draw_adjacency(conditional_probabilities(labels), aus.names, "given.png", "P(column | row)")

# %%
# The correlation does not depend on the rate of an AU. Orange lines: the AUs exclude each other.

correlation = np.corrcoef(labels.numpy(), rowvar=False) - np.eye(len(aus))
draw_face_graph(correlation, aus.names, "together.png", title="AUs that occur together")

"""
Which AUs occur together in a table
===================================

OpenFace, py-feat, LibreFace, FaceReader and ``aurel predict`` all write a table with a row a face.
This script reads any of them (``python 05_analyze_an_au_table.py P01.csv P02.csv``), a person a
file, and draws which AUs occur together. Without a file it makes the tables of eight people as
OpenFace would, with AUs that occur together as in BP4D. ``aurel relations`` writes a whole report.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from aurel.data.synthetic import label_world
from aurel.tables import AUTable, find_relations
from aurel.viz.adjacency import draw_adjacency
from aurel.viz.face_graph import draw_face_graph


def make_tables(people: int = 8, frames: int = 500) -> list[Path]:
    """Write tables in the form of OpenFace: a blank before names, presence of AU12 in AU12_c."""
    world, folder, rng = label_world("BP4D"), Path(tempfile.mkdtemp()), np.random.default_rng(0)
    header = ", ".join(["frame", "timestamp", "success", *(f"AU{au:02d}_c" for au in world.aus)])
    for person in range(people):
        labels = world.sample_clip(frames, rng, speed=5)
        rows = np.c_[range(frames), np.arange(frames) / 25, np.ones(frames), labels]
        path = folder / f"P{person}.csv"
        np.savetxt(path, rows, fmt="%g", delimiter=",", header=header, comments="")
    return sorted(folder.iterdir())


table = AUTable.read(sys.argv[1:] or make_tables())
found = find_relations(table, resamples=200)
phi, survives = found.phi.estimate, found.phi.survives()
people = len(set(table.person.tolist()))
print(f"{len(table)} rows of {people} people, {len(table.aus)} AUs")
print(f"for a pair of AUs they are worth {found.effective_frames:.0f} independent frames")
print(f"{survives.sum() // 2} pairs of AUs survive the control of false discoveries")

# %%
# The correlations of all pairs. An AU that never changes has none.

draw_adjacency(phi.value, table.aus.names, "correlations.png", weight="phi")

# %%
# Those that survive, on the face. Orange lines: one AU is rarer where the other is.

weights = np.where(survives | np.isnan(phi.value), phi.value, 0)
draw_face_graph(weights, table.aus.names, "together.png", weight="phi")

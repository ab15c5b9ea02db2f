"""The data sets that recipes can name; a new one is registered here."""

from __future__ import annotations

from pathlib import Path

from aurel.data.aff_wild2 import AffWild2Faces
from aurel.data.base import Transform, TripletDataset
from aurel.data.list_files import list_folder
from aurel.data.owners.bp4d import BP4D_TREE, find_bp4d, read_bp4d
from aurel.data.owners.casme2 import CASME2_TREE, find_casme2, read_casme2
from aurel.data.owners.disfa import DISFA_TREE, find_disfa, read_disfa
from aurel.data.owners.disfa_plus import DISFA_PLUS_TREE, find_disfa_plus, read_disfa_plus
from aurel.data.owners.emotionet import EMOTIONET_TREE, find_emotionet, read_emotionet
from aurel.data.owners.fec import FecTriplets, fec_file
from aurel.data.owners.layout import OwnerLayout, published, seeded, shuffled_rows
from aurel.data.owners.raf_au import RAF_AU_TREE, find_raf_au, read_raf_au
from aurel.data.readers import listed_triplets, root_of
from aurel.data.registry import DatasetInfo, Part, register_dataset
from aurel.data.synthetic.readers import (
    AUS,
    FOLDS,
    synthetic_clips,
    synthetic_images,
    synthetic_people,
    synthetic_triplets,
)
from aurel.facs import AU_SETS


def read_aff_wild2(part: Part) -> AffWild2Faces:
    """Return a part of Aff-Wild2, from the organizers' files."""
    return AffWild2Faces(root_of(part), part.split, lists=part.lists, images=part.images)


def read_fec_triplets(part: Part, transform: Transform, seed: int) -> TripletDataset:
    """Return a part of FEC, from a list where there is one, else from Google's csv files."""
    root = Path(root_of(part))
    csv_files = any(fec_file(root, name).is_file() for name in ("train", "test"))
    folder = list_folder(root) if part.lists is None else Path(part.lists)
    listed = any(folder.glob("*_triplet*.txt")) or part.layout == "lists"
    if csv_files and not listed or part.layout == "owner":
        return FecTriplets(root, part.split, images=part.images, transform=transform)
    return listed_triplets(part, transform)


register_dataset(
    DatasetInfo(
        "BP4D",
        AU_SETS["BP4D"],
        "Spontaneous expressions of 41 people in a laboratory (Zhang et al., 2014)",
        folds=3,
        owner=OwnerLayout(
            BP4D_TREE,
            find_bp4d,
            read_bp4d,
            published("BP4D"),
            folds=3,
            parts="folds: those of the papers",
        ),
    )
)
register_dataset(
    DatasetInfo(
        "BP4D+",
        AU_SETS["BP4D+"],
        "Spontaneous expressions of 140 people in a laboratory (Zhang et al., 2016)",
        owner=OwnerLayout(
            BP4D_TREE,
            find_bp4d,
            read_bp4d,
            seeded(3),
            folds=3,
            parts="folds: thirds of the people, the same each time, from no paper",
        ),
    )
)
register_dataset(
    DatasetInfo(
        "DISFA",
        AU_SETS["DISFA"],
        "27 people who watch videos (Mavadati et al., 2013)",
        folds=3,
        owner=OwnerLayout(
            DISFA_TREE,
            find_disfa,
            read_disfa,
            published("DISFA"),
            folds=3,
            parts="folds: those of the papers",
        ),
    )
)
register_dataset(
    DatasetInfo(
        "DISFA+",
        AU_SETS["DISFA+"],
        "Posed expressions of nine people of DISFA (Mavadati et al., 2016)",
        same_people="DISFA",
        owner=OwnerLayout(
            DISFA_PLUS_TREE,
            find_disfa_plus,
            read_disfa_plus,
            seeded(3),
            folds=3,
            parts="folds: thirds of the people, the same each time, from no paper",
        ),
    )
)
register_dataset(
    DatasetInfo(
        "EmotioNet",
        AU_SETS["EmotioNet"],
        "Photographs from the web (Fabian Benitez-Quiroz et al., 2016)",
        folds=3,
        prefixes=("Emotio",),  # written by the tool that was released with the lists
        owner=OwnerLayout(
            EMOTIONET_TREE,
            find_emotionet,
            read_emotionet,
            shuffled_rows(3, seed=42),
            folds=3,
            parts="folds: rows of the sheet, as the code of MACG",
        ),
    )
)
register_dataset(
    DatasetInfo(
        "RAF-AU",
        AU_SETS["RAF-AU"],
        "Photographs from the web with blended emotions (Yan et al., 2020)",
        owner=OwnerLayout(
            RAF_AU_TREE,
            find_raf_au,
            read_raf_au,
            seeded(5),
            folds=5,
            parts="folds: fifths of the pictures, the same each time, from no paper",
        ),
    )
)
register_dataset(
    DatasetInfo(
        "CASME II",
        AU_SETS["CASME II"],
        "Micro-expressions of 26 people in a laboratory (Yan et al., 2014)",
        owner=OwnerLayout(
            CASME2_TREE,
            find_casme2,
            read_casme2,
            seeded(3),
            folds=3,
            parts="folds: thirds of the people, the same each time, from no paper",
        ),
    )
)
register_dataset(
    DatasetInfo(
        "hybrid",
        AU_SETS["OpenGraphAU"],
        "The data sets that OpenGraphAU merges (Luo et al., 2022)",
        folds=0,
        merged=True,
    )
)
register_dataset(
    DatasetInfo(
        "Aff-Wild2",
        AU_SETS["Aff-Wild2"],
        "Videos from the web, of the ABAW challenges (Kollias & Zafeiriou, 2019)",
        folds=0,
        read_images=read_aff_wild2,
    )
)
register_dataset(
    DatasetInfo(
        "FEC",
        summary="Triplets of faces by expression (Vemulapalli & Agarwala, 2019)",
        read_triplets=read_fec_triplets,
    )
)
register_dataset(
    DatasetInfo(
        "synthetic",
        AU_SETS[AUS],
        "Procedural faces that need no files (`aurel.data.SyntheticFaces`)",
        folds=FOLDS,
        read_images=synthetic_images,
        read_clips=synthetic_clips,
        read_triplets=synthetic_triplets,
        people=synthetic_people,
    )
)

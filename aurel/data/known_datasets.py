"""The data sets that recipes can name; a new one is registered here."""

from __future__ import annotations

from aurel.data.aff_wild2 import AffWild2Faces
from aurel.data.readers import root_of
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


register_dataset(
    DatasetInfo(
        "BP4D",
        AU_SETS["BP4D"],
        "Spontaneous expressions of 41 people in a laboratory (Zhang et al., 2014)",
        folds=3,
    )
)
register_dataset(
    DatasetInfo(
        "BP4D+",
        AU_SETS["BP4D+"],
        "Spontaneous expressions of 140 people in a laboratory (Zhang et al., 2016)",
    )
)
register_dataset(
    DatasetInfo(
        "DISFA",
        AU_SETS["DISFA"],
        "27 people who watch videos (Mavadati et al., 2013)",
        folds=3,
    )
)
register_dataset(
    DatasetInfo(
        "EmotioNet",
        AU_SETS["EmotioNet"],
        "Photographs from the web (Fabian Benitez-Quiroz et al., 2016)",
        folds=3,
        prefixes=("Emotio",),  # written by the tool that was released with the lists
    )
)
register_dataset(
    DatasetInfo(
        "RAF-AU",
        AU_SETS["RAF-AU"],
        "Photographs from the web with blended emotions (Yan et al., 2020)",
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

"""Facial action units (AUs): names, data-set orders, labels, landmarks, regions, folds."""

from __future__ import annotations

from aurel.facs.folds import FOLDS, fold_split
from aurel.facs.labels import check_labels, known_labels
from aurel.facs.landmarks import (
    AU_CENTERS,
    FLIP_49,
    INNER_EYE_CORNERS,
    LANDMARKS_66_TO_49,
    LANDMARKS_68_TO_49,
    LEFT_EYE,
    NUM_LANDMARKS,
    RIGHT_EYE,
    AUCenter,
    AUCenterRules,
    au_center_rules,
)
from aurel.facs.region_graphs import (
    FACS_RELATIONS,
    conditional_probabilities,
    facs_graph,
    statistics_graph,
)
from aurel.facs.regions import (
    REGION_SEVENTHS,
    RegionGroup,
    RegionPlan,
    labels_from_regions,
    region_labels,
    region_plan,
)
from aurel.facs.sets import (
    AU_SETS,
    OPENGRAPHAU_PARENTS_CORRECTED,
    OPENGRAPHAU_PARENTS_RELEASED,
    AUSet,
    AUSpec,
    default_au_set,
)
from aurel.facs.units import ACTION_UNITS, REGIONS, ActionUnit, Region, action_unit
from aurel.name_clash import check_owner

check_owner()

__all__ = [
    "ACTION_UNITS",
    "AU_CENTERS",
    "AU_SETS",
    "FACS_RELATIONS",
    "FLIP_49",
    "FOLDS",
    "INNER_EYE_CORNERS",
    "LANDMARKS_66_TO_49",
    "LANDMARKS_68_TO_49",
    "LEFT_EYE",
    "NUM_LANDMARKS",
    "OPENGRAPHAU_PARENTS_CORRECTED",
    "OPENGRAPHAU_PARENTS_RELEASED",
    "REGIONS",
    "REGION_SEVENTHS",
    "RIGHT_EYE",
    "AUCenter",
    "AUCenterRules",
    "AUSet",
    "AUSpec",
    "ActionUnit",
    "Region",
    "RegionGroup",
    "RegionPlan",
    "action_unit",
    "au_center_rules",
    "check_labels",
    "conditional_probabilities",
    "default_au_set",
    "facs_graph",
    "fold_split",
    "known_labels",
    "labels_from_regions",
    "region_labels",
    "region_plan",
    "statistics_graph",
]

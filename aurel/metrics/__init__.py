r"""F1, accuracy and AUC per AU, streamed over a whole data set and summed over processes.

The protocol of the field: a prediction is positive where p >= threshold (0.5, inclusive); true and
false positives and negatives are counted per AU over the *whole* test fold; then

.. math:: P = \frac{TP}{TP + FP}, \quad R = \frac{TP}{TP + FN}, \quad F_1 = \frac{2 P R}{P + R}

with 0 / 0 = 0, so an AU that is never detected scores 0, present or not, and counts in the mean.
`AUScores` gives the number of positives beside it, since a 0 without positives is no failure.

Labels are 1 present, 0 absent, -1 unknown. Unknown entries count nowhere, which is also how to
score a subset: set the labels outside it to -1. An AU without any known label scores NaN and is
left out of the mean, as is the AUC of an AU that is always or never present. A NaN prediction is
not a detection, and makes the AUC of its AU NaN. Other values outside [0, 1] are an error. Scores
are float64 on the CPU.

Thresholds other than 0.5 come from validation data (`AUThresholds`), and `AUIntensityScores` is for
intensities from 0 to 5.

The metrics are `torchmetrics.Metric`, which the extra `train` brings. It is imported at the first
use of one of them, because it imports matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aurel.metrics._calibration import best_f1_thresholds as best_f1_thresholds
from aurel.metrics._calibration import expected_calibration_error as expected_calibration_error
from aurel.metrics._intensity import icc_3_1 as icc_3_1
from aurel.metrics._intensity import intensity_scores as intensity_scores
from aurel.metrics._scores import accuracy_from_counts as accuracy_from_counts
from aurel.metrics._scores import f1_from_counts as f1_from_counts
from aurel.metrics._scores import roc_auc as roc_auc

_CLASSES = ["AUAUC", "AUAccuracy", "AUF1", "AUIntensityScores", "AUScores", "AUThresholds"]
__all__ = [
    "AUAUC",
    "AUAccuracy",
    "AUF1",
    "AUIntensityScores",
    "AUScores",
    "AUThresholds",
    "best_f1_thresholds",
    "expected_calibration_error",
    "icc_3_1",
    "intensity_scores",
]

if TYPE_CHECKING:
    from aurel.metrics._classes import (
        AUAUC,
        AUF1,
        AUAccuracy,
        AUIntensityScores,
        AUScores,
        AUThresholds,
    )
else:  # with it, a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name in _CLASSES:
            return getattr(import_module("aurel.metrics._classes"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

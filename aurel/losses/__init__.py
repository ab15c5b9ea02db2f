"""Losses for AU probabilities, AU relations and landmarks.

Labels are 1 present, 0 absent, -1 unknown. An unknown label has no part in any loss: its gradient
is exactly zero, a NaN prediction there has no effect, and a loss without any known label is 0. On
the CPU any other label raises ValueError; on an accelerator, where a check of values would stall,
it counts as unknown. The labels of `ordinal_loss` are intensities from 0 to 5. All losses compute
in float32 or wider, whatever the prediction's dtype.
"""

from __future__ import annotations

from aurel.losses.attention import attention_map_loss, attention_targets
from aurel.losses.class_weights import au_class_weights
from aurel.losses.landmarks import landmark_alignment_loss
from aurel.losses.logits import binary_cross_entropy_loss, multilabel_circle_loss
from aurel.losses.ordinal import ordinal_cutpoints, ordinal_intensity, ordinal_loss
from aurel.losses.probabilities import multilabel_dice_loss, weighted_asymmetric_loss
from aurel.losses.relations import edge_cross_entropy, edge_labels, region_cross_entropy
from aurel.losses.triplets import expression_triplet_loss, triplets_right

__all__ = [
    "attention_map_loss",
    "attention_targets",
    "au_class_weights",
    "binary_cross_entropy_loss",
    "edge_cross_entropy",
    "edge_labels",
    "expression_triplet_loss",
    "landmark_alignment_loss",
    "multilabel_circle_loss",
    "multilabel_dice_loss",
    "ordinal_cutpoints",
    "ordinal_intensity",
    "ordinal_loss",
    "region_cross_entropy",
    "triplets_right",
    "weighted_asymmetric_loss",
]

"""Every registered model at a small size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.models.registry import create_model, info_of, model_info

# Options of a model besides the small backbone.
SMALL: dict[str, dict[str, Any]] = {
    "open_graphau_stage1": {"aus": [1, 2, 12, "L12", "R12"]},
    "open_graphau": {"aus": [1, 2, 12, "L12", "R12"]},
    "lrp_fgg": {"backbone": "rest_tiny", "fusion_depth": 1},
    "gtle_net": {
        "widths": (16, 8, 8),
        "bottlenecks": 1,
        "classifier_widths": (8, 8, 8),
    },
    "au_windows": {"relation": "self_adjusting", "k": 3},
    "sacl": {
        "image_size": 64,
        "dims": (16, 32),
        "depths": (1, 1),
        "k": 4,
        "landmark_widths": (8, 8, 16),
        "token_dim": 8,
    },
}


# Models of parts that others have too, which tests that take long leave out.
REPEATED = {"me_graphau_stage1", "open_graphau_stage1", "openface3", "pyfeat_multitask"}


def small_model(name: str, **options: Any) -> Any:
    small = {"backbone": "test_resnet", "aus": [1, 2, 4, 12, 15], **SMALL.get(name, {})}
    return create_model(name, **{**small, **options})


def small_images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, 64, 64)


def small_input(name: str, batch: int = 3) -> Tensor:
    """Return inputs of the model: images (B, 3, H, W), or clips of 3 frames (B, 3, 3, H, W)."""
    frames = (3,) if model_info(name).takes_clips else ()
    return torch.randn(batch, *frames, 3, 64, 64)


def evaluate_after_one_step(model: torch.nn.Module) -> None:
    """Set the model to eval mode, with running statistics that are not the initial ones."""
    model.train()
    with torch.no_grad():
        model(small_input(info_of(model).name, 6))
    model.eval()

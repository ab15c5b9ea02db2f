"""Agreement of the inputs of a model with the items of its data."""

from __future__ import annotations

from aurel.models.base import AUModel
from aurel.models.registry import model_info
from aurel.training.options import RunOptions
from aurel.training.task import AUTask, Task
from aurel.training.triplet_task import TripletTask


def task_of(model: AUModel) -> type[Task]:
    """Return the kind of task of a model."""
    return TripletTask if model.inputs == "triplets" else AUTask


def check_items(options: RunOptions) -> None:
    """Raise ValueError where the model takes other items than the data are."""
    name, frames = options.model.name, options.data.frames
    inputs = model_info(name).inputs
    if inputs == "clips" and frames is None:
        raise ValueError(
            f"data.frames must be the length of a clip, such as 16, for {name}, got None"
        )
    triplets = options.data.triplets
    if triplets != (inputs == "triplets"):
        items = "single faces" if triplets else "triplets of faces"
        raise ValueError(
            f"data.triplets must be {not triplets} for {name}, which takes {items}, got {triplets}"
        )
    if frames is not None and inputs != "clips":
        raise ValueError(
            f"data.frames must be null for {name}, which takes single images, got {frames}"
        )

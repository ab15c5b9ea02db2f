"""Models with released weights, by the names of the registry of `aurel.weights`."""

from __future__ import annotations

from typing import Any

from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.base import AUModel
from aurel.models.registry import create_model
from aurel.weights import get, weights_info


def load_weights(name: str, *, agree: bool = False) -> AUModel:
    """Return a model with the released weights `name`, downloaded where they are missing.

    Args:
        name: one of `aurel.weights.list_weights()`, of a model.
        agree: agree to the terms of the license without a question.

    Returns:
        The model in eval mode, on the CPU, with `.aus`, `.preprocessing` and `.trained_on`.

    Raises:
        ValueError: no such weights, weights of no model, terms that are not agreed to, or a file
            that does not fit the model.
        OSError: the download failed.
    """
    entry = weights_info(name)
    if entry.model is None or entry.aus is None:
        raise ValueError(f"name must be that of weights of a model, got {name!r}, another file")
    aus: Any = entry.aus
    model = create_model(entry.model, aus=aus, **entry.options)
    file = get(name, agree=agree)
    try:
        load_author_checkpoint(model, file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    model.trained_on, model.preprocessing = entry.trained_on, entry.preprocessing
    return model.eval()

"""The data that a model was trained on, and what follows for its outputs."""

from __future__ import annotations

from torch import nn

# Names of the data sets that hold synthetic faces.
SYNTHETIC = ("synthetic",)
SYNTHETIC_ONLY = "trained on synthetic faces only"


def warning_of(model: nn.Module) -> str | None:
    """Return a warning for every output of `model`, or None.

    A model that was trained on synthetic faces only gives no valid results for photographs.

    Args:
        model: an `AUModel`, or a `VotingEnsemble`, of which all models are considered.
    """
    voters = getattr(model, "models", (model,))
    names = [name for voter in voters for name in getattr(voter, "trained_on", ())]
    if not names or any(name.lower() not in SYNTHETIC for name in names):
        return None
    return (
        f"{SYNTHETIC_ONLY}: its probabilities for photographs and videos of people "
        "are not valid; aurel weights list names weights for real faces"
    )

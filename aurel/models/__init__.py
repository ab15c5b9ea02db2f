"""Whole models by name: `create_model`, `list_models`, `load_author_checkpoint`."""

from __future__ import annotations

from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.base import AUModel
from aurel.models.checkpoint import load_model, save_model
from aurel.models.export import export_onnx
from aurel.models.hub import from_pretrained, push_to_hub, save_pretrained
from aurel.models.provenance import warning_of
from aurel.models.registry import create_model, list_models, model_info, register_model
from aurel.models.released import load_weights
from aurel.models.voting import VotingEnsemble
from aurel.output import AUOutput

__all__ = [
    "AUModel",
    "AUOutput",
    "VotingEnsemble",
    "create_model",
    "export_onnx",
    "from_pretrained",
    "list_models",
    "load_author_checkpoint",
    "load_model",
    "load_weights",
    "model_info",
    "push_to_hub",
    "register_model",
    "save_model",
    "save_pretrained",
    "warning_of",
]

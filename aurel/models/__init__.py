"""Whole models by name: `create_model`, `list_models`, `load_author_checkpoint`."""

from __future__ import annotations

from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.base import AUModel
from aurel.models.checkpoint import load_model, save_model
from aurel.models.export import export_onnx
from aurel.models.registry import create_model, list_models, model_info, register_model
from aurel.models.voting import VotingEnsemble
from aurel.output import AUOutput

__all__ = [
    "AUModel",
    "AUOutput",
    "VotingEnsemble",
    "create_model",
    "export_onnx",
    "list_models",
    "load_author_checkpoint",
    "load_model",
    "model_info",
    "register_model",
    "save_model",
]

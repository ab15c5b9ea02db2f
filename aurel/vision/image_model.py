"""Load a model, and the form of its images, from a checkpoint or by the name of its weights."""

from __future__ import annotations

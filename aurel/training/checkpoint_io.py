"""Checkpoints of which a failed write leaves the previous file unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from aurel.files import save_torch


class AtomicCheckpointIO(CheckpointIO):
    """Write checkpoints by `aurel.files.save_torch`; read them with ``weights_only=True``.

    A run that is killed or meets a full disk while it writes leaves the previous file unchanged.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; after an error the previous file is unchanged."""
        save_torch(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto `map_location`; raise where it holds other than plain values."""
        return torch.load(path, map_location=map_location, weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the file of a checkpoint, if there is one."""
        Path(path).unlink(missing_ok=True)

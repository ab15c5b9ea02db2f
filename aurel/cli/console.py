"""Output to the terminal, from the first process of a run only."""

from __future__ import annotations

import logging
import os
import warnings

try:
    from rich.console import Console
except ImportError as error:
    raise ImportError("aurel's commands need rich: pip install 'aurel-au[viz]'") from error

# Warnings about choices that are intended, or that a user cannot change.
_IGNORED = (
    ".*does not have many workers",
    ".*number of training batches",
    "Checkpoint directory .* exists",
    "The `srun` command is available",
    ".*LeafSpec.*",
    ".*your dataloader is not resumable",  # its sampler is
    "It is recommended to use `self.log",  # the scores are summed over processes before
)


def is_first_process() -> bool:
    """Return whether this process is the one of the run that prints and writes files."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def quiet_libraries() -> None:
    """Turn off Lightning's log messages below the level of an error in this process."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in _IGNORED:
        warnings.filterwarnings("ignore", message=message)


def make_console() -> Console:
    """Return a console on stdout that is mute in all processes but the first."""
    quiet_libraries()
    return Console(quiet=not is_first_process(), highlight=False, soft_wrap=True)

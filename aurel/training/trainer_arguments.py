"""The arguments of Lightning's Trainer."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from aurel.training.options import TrainerOptions


def trainer_arguments(options: TrainerOptions) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer.

    Raises:
        ValueError: a timeout that is not above 0, or without strategy ddp.
    """
    arguments = asdict(options)
    del arguments["compile"], arguments["timeout"]
    timeout = options.timeout
    if timeout is None:
        return arguments
    if not timeout > 0:
        raise ValueError(f"trainer.timeout must be above 0 seconds, got {timeout}")
    if options.strategy != "ddp":
        raise ValueError(f"trainer.timeout must be null unless strategy is ddp, got {timeout}")
    return {**arguments, "strategy": DDPStrategy(timeout=timedelta(seconds=timeout))}

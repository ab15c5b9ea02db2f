"""An ensemble of models that votes on each AU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aurel.data.arguments import check_share
from aurel.models.base import AUModel
from aurel.output import AUOutput


class VotingEnsemble(nn.Module):
    r"""Return the share of models that predict each AU as present.

    .. math:: p_n = \frac{1}{M} \left| \{ m : p_n^{(m)} \ge t \} \right|

    A threshold of 1/2 on this share is the majority; half of an even number of models is enough.
    Where the probability of one model is NaN, the share is NaN.

    Args:
        models: M models of the same AUs.
        threshold: probability t from which a model predicts an AU as present.

    Raises:
        ValueError: no models, models of different AUs, or a threshold out of range.

    Source: section 4.3 of Yu et al., CVPR Workshops 2023 (LRP), for five models trained on
    different parts of the data.
    """

    def __init__(self, models: Sequence[AUModel], threshold: float = 0.5) -> None:
        super().__init__()
        if not models:
            raise ValueError("models must hold at least one, got none")
        check_share("threshold", threshold)
        self.aus = models[0].aus
        for model in models:
            if model.aus != self.aus:
                raise ValueError(
                    f"models must be for the same AUs in the same order, got "
                    f"{', '.join(self.aus.names)} and {', '.join(model.aus.names)}"
                )
        self.models = nn.ModuleList(models)
        self.threshold = threshold

    def forward(self, images: Tensor) -> AUOutput:
        """Return the shares as `probs`, for the inputs of the models."""
        probs = torch.stack([model(images).probs for model in self.models])
        votes = torch.where(probs.isnan(), probs, (probs >= self.threshold).to(probs.dtype))
        return AUOutput(votes.mean(0), aus=self.aus)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"

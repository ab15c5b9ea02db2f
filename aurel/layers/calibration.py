"""Calibration of the logits of each AU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.ops.arguments import check_shape


class PlattScaling(nn.Module):
    r"""Scale and shift the logits of each AU so that their sigmoid is a calibrated probability.

    .. math:: u'_i = a_i u_i + b_i

    Starts as the identity. `fit` sets :math:`a` and :math:`b`.

    Args:
        num_aus: N.
        shared: one scale for all AUs and no shift: temperature scaling.

    Shape:
        logits (..., N), result (..., N).

    Source: Platt, Probabilistic outputs for support vector machines, 1999; Guo et al., On
    calibration of modern neural networks, ICML 2017 (one temperature).
    """

    def __init__(self, num_aus: int, *, shared: bool = False) -> None:
        super().__init__()
        if num_aus < 1:
            raise ValueError(f"num_aus must be at least 1, got {num_aus}")
        self.num_aus, self.shared = num_aus, shared
        self.scale = nn.Parameter(torch.ones(1 if shared else num_aus))
        self.shift = None if shared else nn.Parameter(torch.zeros(num_aus))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the calibrated logits, in the dtype of `logits`."""
        if logits.shape[-1:] != (self.num_aus,):
            raise ValueError(f"logits must be (..., {self.num_aus}), got {tuple(logits.shape)}")
        scaled = logits * self.scale
        return (scaled if self.shift is None else scaled + self.shift).to(logits.dtype)

    if TYPE_CHECKING:
        __call__ = forward

    def fit(self, logits: Tensor, labels: Tensor, *, ridge: float = 1e-3) -> Self:
        r"""Set scale and shift to those of the highest likelihood of `labels`.

        Minimizes the cross-entropy of each AU, plus `ridge` times
        :math:`(a_i - 1)^2 + b_i^2`, which keeps an AU that never or always occurs finite. Fit on
        people that the model has not been trained on.

        Args:
            logits: (M, N), of which those without a label may be NaN.
            labels: (M, N), 1 active, 0 inactive, -1 unknown, which does not count.

        Returns:
            This layer.

        Raises:
            ValueError: an argument has the wrong shape, or the logit of a known label is not
                finite.
        """
        check_shape("logits", logits, "M N", N=self.num_aus)
        check_shape("labels", labels, "M N", M=logits.shape[0], N=self.num_aus)
        known = labels >= 0
        u = logits.detach().double().where(known, 0)
        if not u.isfinite().all():
            raise ValueError("logits must be finite where the label is known, got NaN or inf")
        y = labels.clamp_min(0).double()
        count = known.sum(0).clamp_min(1)
        scale = torch.ones_like(self.scale, dtype=torch.float64, requires_grad=True)
        shift = torch.zeros(self.num_aus, dtype=torch.float64, device=u.device)
        shift.requires_grad_(not self.shared)
        fitted = [scale] if self.shared else [scale, shift]
        optimizer = torch.optim.LBFGS(
            fitted, max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            entropy = F.binary_cross_entropy_with_logits(scale * u + shift, y, reduction="none")
            loss = (entropy.where(known, 0).sum(0) / count).sum()
            loss = loss + ridge * ((scale - 1).square().sum() + shift.square().sum())
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        with torch.no_grad():
            self.scale.copy_(scale)
            if self.shift is not None:
                self.shift.copy_(shift)
        return self

    def extra_repr(self) -> str:
        return f"{self.num_aus}, shared={self.shared}"

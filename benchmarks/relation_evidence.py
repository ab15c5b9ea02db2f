"""Evidence that shows each AU by itself, and the two bounds on what can be inferred from it."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.facs import AUSet
from aurel.metrics import AUAUC

WIDTH = 16
COVERED = 0.4
LEAST, MOST = 0.3, 1.5
_STATES_AT_ONCE = 2**22


class Evidence:
    r"""Evidence :math:`x_j = q_j (2 y_j - 1) w_j + \epsilon` of AU j with label y_j, in R^16.

    The noise is standard normal and w_j of length one. The strength q_j is 0 for 40 % of all AUs,
    chosen independently ("covered"), and uniform in 0.3 to 1.5 for the others; x does not state
    which are covered. Given the labels, the evidence of different AUs is independent, so that only
    the relations between labels inform about a covered AU.

    Args:
        num_aus: number N of AUs.
        seed: of the directions w.
    """

    def __init__(self, num_aus: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(num_aus, WIDTH, generator=generator)
        self.directions = directions / directions.norm(dim=1, keepdim=True)

    def sample(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return evidence (B, N, 16) of labels (B, N), and which AUs are covered, (B, N) bool."""
        covered = torch.rand(labels.shape, generator=generator) < COVERED
        strength = LEAST + (MOST - LEAST) * torch.rand(labels.shape, generator=generator)
        signal = strength.masked_fill(covered, 0) * (2 * labels - 1)
        noise = torch.randn(*labels.shape, WIDTH, generator=generator)
        return torch.addcmul(noise, signal.unsqueeze(-1), self.directions), covered

    def log_ratio(self, x: Tensor) -> Tensor:
        r"""Return :math:`\log p(x_j | y_j = 1) - \log p(x_j | y_j = 0)`, (B, N) float64.

        With :math:`t = w_j^\top x_j`, the density of t given y_j = 1 is
        :math:`c \phi(t) + (1 - c) (\Phi(t - a) - \Phi(t - b)) / (b - a)`, c being the share of
        covered AUs and q uniform in a to b; given y_j = 0 it is that of -t.
        """
        t = (x.double() * self.directions).sum(-1)
        return _density(t).log() - _density(-t).log()


def _density(t: Tensor) -> Tensor:
    half = (MOST - LEAST) / 2
    # Both terms of the difference are small far from the center, where 1 - 1 would cancel.
    distance = (t - (LEAST + MOST) / 2).abs()
    shown = torch.special.ndtr(half - distance) - torch.special.ndtr(-half - distance)
    normal = (-t.square() / 2).exp() / (2 * torch.pi) ** 0.5
    return COVERED * normal + (1 - COVERED) * shown / (MOST - LEAST)


def local_bayes(log_ratio: Tensor, rates: Tensor) -> Tensor:
    """Return the probability of each AU given its own evidence and rate alone, (B, N)."""
    return (log_ratio + rates.double().logit()).sigmoid()


def exact_posterior(log_ratio: Tensor, states: Tensor, probabilities: Tensor) -> Tensor:
    """Return the probability of each AU given all evidence, (B, N).

    Args:
        log_ratio: (B, N), of each AU's evidence.
        states: label vectors, (S, N).
        probabilities: their joint distribution, (S,).
    """
    states = states.double()
    rows = max(1, _STATES_AT_ONCE // len(states))
    return torch.cat(
        [
            (part @ states.T + probabilities.log()).softmax(1) @ states
            for part in log_ratio.double().split(rows)
        ]
    )


def areas(scores: Tensor, labels: Tensor, covered: Tensor, aus: AUSet) -> tuple[float, float]:
    """Return the AUC of covered and of visible AUs, means over the AUs that have one.

    Of scores on any scale: the metric takes numbers in [0, 1], and only their order counts.
    """
    result = []
    scores = scores.double().sigmoid()
    for subset in (covered, ~covered):
        metric = AUAUC(aus)
        metric.update(scores, labels.where(subset, -1))
        result.append(float(metric.compute()))
    return result[0], result[1]


def share_closed(area: float, local: float, exact: float) -> float:
    """Return which part of the way from the local bound to the exact posterior was gone."""
    return (area - local) / (exact - local)

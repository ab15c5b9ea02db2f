"""Which AUs go together when all the others are held fixed: the pairwise (Ising) model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aurel.tables.cells import Numbers
from aurel.tables.resampling import Indices

try:
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import minimize
    from scipy.special import expit, logit, logsumexp
except ImportError as error:
    raise ImportError("statistics of tables need scipy: pip install 'aurel-au[tables]'") from error

EXACT_UP_TO = 12
RIDGE = 1e-4


def ising_couplings(
    labels: NDArray[np.int8], weights: Numbers | None = None, ridge: float = RIDGE
) -> tuple[Numbers, Numbers]:
    r"""Return fields h and couplings J of the pairwise model of binary labels.

    .. math:: p(y) \propto \exp\Big(\sum_i h_i y_i + \sum_{i<j} J_{ij} y_i y_j\Big),
        \quad y \in \{0, 1\}^N

    by maximum likelihood over all :math:`2^N` states for up to 12 AUs, above by maximum
    pseudo-likelihood :math:`\prod_i p(y_i \mid y_{-i})`, with a penalty of
    :math:`\tfrac{1}{2} \text{ridge} \sum J^2` on the mean log-likelihood of a row.

    Args:
        labels: (M, N) 1 present, 0 absent, -1 unknown; rows with an unknown AU are left out.
        weights: (M,) weights of the rows; None for 1.
        ridge: at 0 a coupling between AUs that never meet has no finite estimate.

    Returns:
        h (N,) and J (N, N), symmetric, NaN on the diagonal and for AUs that do not vary.
    """
    states, _, row_state = distinct_states(labels)
    complete = row_state >= 0
    rows = np.ones(len(labels)) if weights is None else weights
    share = np.bincount(row_state[complete], rows[complete], len(states)).astype(np.float64)
    model = PairwiseModel.of(states, share, ridge)
    return model.expanded(model.fit(share))


def distinct_states(labels: NDArray[np.int8]) -> tuple[Numbers, Indices, Indices]:
    """Return the (S, N) distinct complete rows, their counts, and the state of each row or -1."""
    complete = (labels >= 0).all(1)
    states, inverse, counts = np.unique(
        labels[complete], axis=0, return_inverse=True, return_counts=True
    )
    row_state = np.full(len(labels), -1, dtype=np.int64)
    row_state[complete] = inverse.reshape(-1)
    return states.astype(np.float64), counts, row_state


def count_states(row_state: Indices, number: int, starts: Indices, stops: Indices) -> Numbers:
    """Return how often each state occurs in each unit, (U, S)."""
    result = np.zeros((len(starts), number))
    for unit, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        own = row_state[start:stop]
        result[unit] = np.bincount(own[own >= 0], minlength=number)
    return result


@dataclass(frozen=True)
class PairwiseModel:
    """The model over the AUs that vary, and the data in states.

    Args:
        states: (S, V) distinct states of the V AUs that vary.
        varies: (N,) which AUs do.
        ridge: see `ising_couplings`.
        features: (2^V, V (V + 1) / 2) AUs and their pairs in every state; None above 12 AUs.
        start: parameters about which the optimizer scales its steps.
        share: (S,) share of each state in the data.
    """

    states: Numbers
    varies: NDArray[np.bool_]
    ridge: float
    features: Numbers | None
    start: Numbers
    share: Numbers

    @classmethod
    def of(cls, states: Numbers, counts: Numbers, ridge: float = RIDGE) -> PairwiseModel:
        """Return the model with independent AUs as its start."""
        total = counts.sum()
        mean = counts @ states / total if total else np.zeros(states.shape[1])
        varies = (mean > 0) & (mean < 1)
        number = int(varies.sum())
        features = None
        if number <= EXACT_UP_TO:
            features = _features((np.arange(1 << number)[:, None] >> np.arange(number)) & 1)
        start = np.concatenate((logit(mean[varies]), np.zeros(number * (number - 1) // 2)))
        return cls(states[:, varies], varies, ridge, features, start, counts / max(total, 1))

    def fit(self, counts: Numbers, tolerance: float = 1e-7) -> Numbers:
        """Return the parameters: V fields, then couplings of the pairs (0, 1), (0, 2), ..."""
        if not counts.sum() or not self.varies.any():
            return np.full(len(self.start), np.nan)
        seen = counts > 0
        share, states = counts[seen] / counts.sum(), self.states[seen]
        factor = self._scale

        def objective(step: Numbers) -> tuple[float, Numbers]:
            parameters = self._at(step, factor)
            if self.features is not None:
                value, gradient = _likelihood(parameters, self.features, moments)
            else:
                value, gradient = _pseudo_likelihood(parameters, states, share)
            value += 0.5 * float(self._penalty @ parameters**2)
            gradient = gradient + self._penalty * parameters
            return value, solve_triangular(factor, gradient, lower=True)

        moments = share @ _features(states)
        result = minimize(
            objective,
            np.zeros(len(self.start)),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": tolerance, "ftol": 1e-15, "maxiter": 500, "maxcor": 20},
        )
        return self._at(result.x, factor)

    def started_at(self, parameters: Numbers) -> PairwiseModel:
        """Return the model that starts at other parameters, for fits to similar data."""
        return replace(self, start=parameters)

    def expanded(self, parameters: Numbers) -> tuple[Numbers, Numbers]:
        """Return h (N,) and J (N, N) of all AUs, NaN for those that do not vary."""
        number, count = len(self.varies), int(self.varies.sum())
        fields, couplings = np.full(number, np.nan), np.full((number, number), np.nan)
        fields[self.varies] = parameters[:count]
        couplings[np.ix_(self.varies, self.varies)] = _matrix(parameters[count:], count, np.nan)
        return fields, couplings

    @property
    def _penalty(self) -> Numbers:
        count = self.states.shape[1]
        return np.where(np.arange(len(self.start)) >= count, self.ridge, 0.0)

    @property
    def _scale(self) -> Numbers:
        """Return the Cholesky factor of the Hessian at the start."""
        hessian = self._exact_hessian() if self.features is not None else self._pseudo_hessian()
        hessian += np.diag(self._penalty + 1e-9)
        return cholesky(hessian, lower=True)

    def _at(self, step: Numbers, factor: Numbers) -> Numbers:
        return self.start + solve_triangular(factor, step, lower=True, trans="T")

    def _exact_hessian(self) -> Numbers:
        assert self.features is not None
        energy = self.features @ self.start
        weighted = self.features * np.exp(energy - logsumexp(energy))[:, None]
        mean = weighted.sum(0)
        return weighted.T @ self.features - np.outer(mean, mean)

    def _pseudo_hessian(self) -> Numbers:
        """Return the Hessian of the pseudo-likelihood of the data, at the start."""
        count = self.states.shape[1]
        couplings = _matrix(self.start[count:], count, 0.0)
        chance = expit(self.start[:count] + self.states @ couplings)
        place = _pair_places(count)
        hessian = np.zeros((len(self.start), len(self.start)))
        for au in range(count):
            columns = self.states.copy()
            columns[:, au] = 1
            weight = chance[:, au] * (1 - chance[:, au]) * self.share
            index = place[au]
            hessian[np.ix_(index, index)] += (columns * weight[:, None]).T @ columns
        return hessian


def _likelihood(parameters: Numbers, features: Numbers, moments: Numbers) -> tuple[float, Numbers]:
    """Return the negative mean log-likelihood and its gradient."""
    energy = features @ parameters
    partition = logsumexp(energy)
    gradient = np.exp(energy - partition) @ features - moments
    return float(partition - moments @ parameters), gradient


def _pseudo_likelihood(
    parameters: Numbers, states: Numbers, share: Numbers
) -> tuple[float, Numbers]:
    """Return the negative mean log pseudo-likelihood and its gradient."""
    count = states.shape[1]
    signs = 2 * states - 1
    margin = signs * (parameters[:count] + states @ _matrix(parameters[count:], count, 0.0))
    pull = -signs * expit(-margin) * share[:, None]
    slope = states.T @ pull
    gradient = np.concatenate((pull.sum(0), (slope + slope.T)[np.triu_indices(count, 1)]))
    return float(share @ np.logaddexp(0, -margin).sum(1)), gradient


def _features(states: NDArray[np.generic]) -> Numbers:
    """Return AUs and products of pairs, (S, V (V + 1) / 2)."""
    plain = np.asarray(states, dtype=np.float64)
    first, second = np.triu_indices(plain.shape[1], 1)
    return np.concatenate((plain, plain[:, first] * plain[:, second]), axis=1)


def _matrix(pairs: Numbers, count: int, diagonal: float) -> Numbers:
    matrix = np.zeros((count, count))
    matrix[np.triu_indices(count, 1)] = pairs
    matrix += matrix.T
    np.fill_diagonal(matrix, diagonal)
    return matrix


def _pair_places(count: int) -> Indices:
    """Return, in row i, the parameters of J_ij, and of h_i in column i."""
    place = np.zeros((count, count), dtype=np.int64)
    place[np.triu_indices(count, 1)] = count + np.arange(count * (count - 1) // 2)
    return place + place.T + np.diag(np.arange(count))

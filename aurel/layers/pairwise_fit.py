"""Maximum likelihood of a pairwise model of labels, with errors that allow for repeated people."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aurel.facs.labels import check_labels
from aurel.layers.pairwise_blocks import Blocks
from aurel.layers.pairwise_model import negative_log_likelihood
from aurel.ops.arguments import check_number, check_shape

_STEP = 1e-4  # of the differences of exact gradients that make the matrix of second derivatives


@dataclass(frozen=True)
class PairwiseFit:
    """How well a pairwise model fits a table of labels.

    Attributes:
        nll: negative log-likelihood of a row, in nats, without the penalty.
        gradient: largest entry of the gradient of the penalized mean over rows, which a complete
            fit has near 0.
        bias_error: standard errors of the bias, (N,), or None without groups.
        couplings_error: standard errors of the couplings, (N, N) with 0 on the diagonal, or None.
    """

    nll: float
    gradient: float
    bias_error: Tensor | None
    couplings_error: Tensor | None


@dataclass(frozen=True)
class _Table:
    """Different rows of a table of labels, and how often each occurs."""

    unknown: Tensor | None
    active: Tensor
    counts: Tensor
    blocks: Blocks

    def loss(self, parameters: Tensor) -> Tensor:
        """Return the negative log-likelihood of all rows."""
        bias, couplings = unpacked(parameters, self.active.shape[1])
        rows = negative_log_likelihood(
            bias[None], couplings, self.blocks, self.unknown, self.active
        )
        return rows @ self.counts

    def gradient(self, parameters: Tensor) -> Tensor:
        """Return the gradient of `loss`, (D,)."""
        leaf = parameters.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.loss(leaf), leaf)[0]


def _table(labels: Tensor, blocks: Blocks) -> _Table:
    rows, counts = torch.unique(labels.to(torch.int8), dim=0, return_counts=True)
    unknown = rows < 0
    return _Table(unknown if unknown.any() else None, rows == 1, counts.double(), blocks)


def unpacked(parameters: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Return bias (N,) and symmetric couplings (N, N) of N + N (N - 1) / 2 parameters."""
    couplings = parameters.new_zeros(nodes, nodes)
    first, second = torch.triu_indices(nodes, nodes, 1, device=parameters.device)
    couplings = couplings.index_put((first, second), parameters[nodes:])
    return parameters[:nodes], couplings + couplings.T


def fit_pairwise(
    labels: Tensor, blocks: Blocks, ridge: float, groups: Tensor | None
) -> tuple[tuple[Tensor, Tensor], PairwiseFit]:
    """Return bias and couplings that make `labels` (M, N) most likely, and how well they fit.

    See `PairwiseInference.fit_labels` for the arguments.
    """
    check_labels(labels)
    rows, nodes = labels.shape
    if rows == 0:
        raise ValueError("labels must have 1 row or more, got 0")
    check_number("ridge", ridge)
    if not ridge >= 0:
        raise ValueError(f"ridge must be 0 or more, got {ridge}")
    if groups is not None:
        check_shape("groups", groups, "M", M=rows)
        people = torch.unique(groups.to(labels.device), return_inverse=True)[1]
        if int(people.max()) == 0:
            raise ValueError("groups must name 2 people or more, got 1")
    table = _table(labels, blocks)
    parameters = _maximize(table, nodes, rows, ridge)
    gradient = (table.gradient(parameters) + ridge * parameters) / rows
    nll = float(table.loss(parameters)) / rows
    fitted = unpacked(parameters, nodes)
    if groups is None:
        return fitted, PairwiseFit(nll, float(gradient.abs().max()), None, None)
    tables = [_table(labels[people == person], blocks) for person in range(int(people.max()) + 1)]
    errors = _standard_errors(table, tables, parameters, ridge)
    return fitted, PairwiseFit(nll, float(gradient.abs().max()), *unpacked(errors, nodes))


def _maximize(table: _Table, nodes: int, rows: int, ridge: float) -> Tensor:
    size = nodes + nodes * (nodes - 1) // 2
    parameters = torch.zeros(size, dtype=torch.float64, device=table.counts.device)
    parameters.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=1000,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        history_size=100,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        value = (table.loss(parameters) + ridge / 2 * parameters.square().sum()) / rows
        (parameters.grad,) = torch.autograd.grad(value, parameters)
        return float(value.detach())

    with torch.enable_grad():
        optimizer.step(closure)
    return parameters.detach()


def _standard_errors(
    table: _Table, tables: list[_Table], parameters: Tensor, ridge: float
) -> Tensor:
    """Return the standard errors of the parameters, (D,): the cluster-robust sandwich.

    H^-1 (sum over people of g g^T) H^-1 G / (G - 1), with the second derivatives H of the penalized
    loss and the gradient g of each person's rows.
    """
    columns = []
    for i in range(len(parameters)):
        step = torch.zeros_like(parameters)
        step[i] = _STEP
        ends = table.gradient(parameters + step), table.gradient(parameters - step)
        columns.append((ends[0] - ends[1]) / (2 * _STEP))
    hessian = torch.stack(columns)
    hessian = (hessian + hessian.T) / 2
    hessian.diagonal().add_(ridge)
    scores = torch.stack([each.gradient(parameters) for each in tables])
    influence = torch.linalg.solve(hessian, scores.T)
    people = len(tables)
    return (influence.square().sum(1) * people / (people - 1)).sqrt()

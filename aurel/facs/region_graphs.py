"""Fixed graphs over facial regions, from relations in FACS or from co-occurrence of AUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aurel.facs.labels import known_labels
from aurel.facs.landmarks import AUCenter, au_center_rules
from aurel.facs.sets import AUSet, AUSpec

FACS_RELATIONS: tuple[tuple[int, int], ...] = (
    *((1, 2), (4, 7), (4, 9), (7, 9), (6, 12), (9, 17), (15, 17), (15, 24), (17, 24), (23, 24)),
    *((2, 6), (2, 7), (12, 15), (12, 17)),
)
"""Pairs of AUs that occur together (first line) or exclude each other (second), by their muscles.

The SACL paper takes its FACS-based graph from Chang & Wang (CVPR 2022) and prints no matrix. These
are the pairs that the literature on prior knowledge about AUs commonly names.
"""


def facs_graph(
    aus: AUSpec,
    relations: Sequence[tuple[int, int]] = FACS_RELATIONS,
    extra_rules: Mapping[int, AUCenter] | None = None,
) -> Tensor:
    """Return the graph over the R regions of an AU set with edges between related AUs.

    Args:
        aus: the AU set, anything `AUSet.of` takes.
        relations: pairs of AU numbers, in either order; pairs with other AUs are ignored.
        extra_rules: see `au_center_rules`.

    Returns:
        (R, R) bool, symmetric, for the option `graph` of `sacl`. The regions of one AU have edges
        to each other and to themselves.

    Raises:
        ValueError: an AU has no center rule.

    Source: the FACS-based graph (FBG) in table 7 of the SACL paper (Liu & Yuan, IEEE TAC 2024).
    That all regions of related AUs have edges, and that AUs which exclude each other count as
    related like those which occur together, is the reading of this library.
    """
    pairs = {frozenset(pair) for pair in relations}
    numbers = AUSet.of(aus).numbers
    related = [[i == j or frozenset((i, j)) in pairs for j in numbers] for i in numbers]
    return _between_regions(torch.tensor(related), aus, extra_rules)


def conditional_probabilities(labels: Tensor) -> Tensor:
    r"""Return the probability that an AU is present, given another one.

    .. math:: P_{ij} = P(y_j = 1 \mid y_i = 1)

    over the rows in which both are known.

    Args:
        labels: (M, N), 1 present, 0 absent, -1 unknown; of training subjects only.

    Returns:
        (N, N) float64; NaN where AU i is never present beside a known AU j.

    Raises:
        ValueError: labels have another shape, or a label is not 1, 0 or -1.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels must have shape (M, N), got {tuple(labels.shape)}")
    known = known_labels(labels).double()
    present = (labels == 1).double()
    return (present.mT @ present) / (present.mT @ known)


def statistics_graph(
    aus: AUSpec,
    probabilities: Tensor,
    threshold: float = 0.5,
    extra_rules: Mapping[int, AUCenter] | None = None,
) -> Tensor:
    """Return the graph over the R regions of an AU set from conditional probabilities.

    Args:
        aus: the N AUs, anything `AUSet.of` takes.
        probabilities: (N, N), those of `conditional_probabilities`.
        threshold: AU j is a source of AU i where ``probabilities[i, j]`` is this or more.
        extra_rules: see `au_center_rules`.

    Returns:
        (R, R) bool, row r True for the sources of region r, for the option `graph` of `sacl`.
        The regions of one AU have edges to each other and to themselves.

    Raises:
        ValueError: `probabilities` do not fit the AUs, or an AU has no center rule.

    Source: the statistics-based graph (SBG) in table 7 of the SACL paper (Liu & Yuan, IEEE TAC
    2024), after Liu et al. (MMM 2020). Neither matrix nor threshold is printed; 0.5 means that AU j
    is more often present than not where AU i is.
    """
    count = len(AUSet.of(aus))
    if probabilities.shape != (count, count):
        raise ValueError(
            f"probabilities must have shape (N={count}, N={count}), one row and column an AU, got "
            f"{tuple(probabilities.shape)}"
        )
    itself = torch.eye(count, dtype=torch.bool, device=probabilities.device)
    return _between_regions((probabilities >= threshold) | itself, aus, extra_rules)


def _between_regions(
    related: Tensor, aus: AUSpec, extra_rules: Mapping[int, AUCenter] | None
) -> Tensor:
    """Return (R, R), True where the column's region has an AU that is related to one of the row."""
    rules = au_center_rules(aus, extra_rules)
    member = torch.zeros(len(rules.au_nodes), rules.num_nodes, device=related.device)
    for au, nodes in enumerate(rules.au_nodes):
        member[au, list(nodes)] = 1
    return member.mT @ related.to(member.dtype) @ member > 0

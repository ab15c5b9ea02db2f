"""Exact inference over action units: their logits, coupled by a pairwise model of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from aurel.facs.labels import known_labels
from aurel.graph import RelationGraph
from aurel.layers.pairwise_blocks import Blocks, check_blocks, even_blocks
from aurel.layers.pairwise_fit import PairwiseFit, fit_pairwise
from aurel.layers.pairwise_model import (
    given_known,
    marginal_logits,
    negative_log_likelihood,
    parameter_group,
    symmetric,
)
from aurel.ops.arguments import (
    check_choice,
    check_floating,
    check_mask,
    check_shape,
    check_tensor,
)
from aurel.ops.distances import at_least_float32
from aurel.ops.masks import pair_mask
from aurel.ops.pairwise_marginals import MAX_NODES
from aurel.ops.precision import without_autocast

_BLOCK = 14  # nodes of a block, where the caller gives no blocks


class PairwiseInference(nn.Module):
    r"""Infer each AU from the evidence of all of them.

    .. math::
        p(y \mid u) \propto \exp\Big(\sum_i (u_i + h_i)\, y_i + \sum_{i<j} J_{ij}\, y_i y_j\Big),
        \qquad y \in \{0, 1\}^N

    with the logits u of any network, `bias` h and the symmetric part J of `couplings`. The layer
    returns the logits of the exact marginals :math:`p(y_i = 1 \mid u)`, by `pairwise_marginals`. It
    starts as the identity, h = 0 and J = 0. Train it with `nll`, the likelihood of all labels of a
    frame together, from h and J that `fit_labels` fits to the labels of the training set;
    `parameter_groups` gives them a learning rate of their own.

    More than `num_exact` nodes are split into blocks. A block is exact; the other blocks act on it
    by their mean, as in mean field, in a fixed number of damped steps. Inference is then
    approximate; `aurel.layers.pairwise_blocks.coupled_blocks` finds blocks that lose little. `nll`
    becomes the sum of the exact likelihoods of the blocks, each given the labels of the others (a
    composite likelihood).

    The parameters belong to given pairs of AUs, and all evidence is combined exactly: with BP4D
    in ``benchmarks/relations.py``, whose labels have the form that is assumed here, the layer
    closes 98 % of what the exact posterior gains on covered AUs.

    Args:
        num_nodes: number N of AUs.
        num_exact: N up to which the sum goes over all 2^N states, at most 24.
        blocks: node numbers of each block, for more than `num_exact` nodes; None for blocks of
            at most 14 nodes in their order.

    Raises:
        ValueError: an argument is out of range.

    Source: the pairwise binary model is that of Ising, with the states 0 and 1; no paper on AUs is
    followed.
    """

    def __init__(
        self,
        num_nodes: int,
        *,
        num_exact: int = 20,
        blocks: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if num_nodes < 1:
            raise ValueError(f"num_nodes must be 1 or more, got {num_nodes}")
        if not 1 <= num_exact <= MAX_NODES:
            raise ValueError(f"num_exact must be in 1..{MAX_NODES}, got {num_exact}")
        self.num_nodes = num_nodes
        self.num_exact = num_exact
        if num_nodes <= num_exact:
            if blocks is not None:
                raise ValueError(
                    f"blocks must be None for at most num_exact = {num_exact} nodes, got {blocks}"
                )
            self.blocks: Blocks = (tuple(range(num_nodes)),)
        elif blocks is None:
            self.blocks = even_blocks(num_nodes, min(num_exact, _BLOCK))
        else:
            self.blocks = check_blocks(blocks, num_nodes, num_exact)
        self.bias = nn.Parameter(torch.empty(num_nodes))
        self.couplings = nn.Parameter(torch.empty(num_nodes, num_nodes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set bias and couplings to 0: the layer is the identity."""
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.couplings)

    @overload
    def forward(
        self, logits: Tensor, mask: Tensor | None = None, *, return_graph: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(
        self, logits: Tensor, mask: Tensor | None = None, *, return_graph: Literal[True]
    ) -> tuple[Tensor, RelationGraph]: ...

    @overload
    def forward(
        self, logits: Tensor, mask: Tensor | None = None, *, return_graph: bool
    ) -> Tensor | tuple[Tensor, RelationGraph]: ...

    def forward(
        self, logits: Tensor, mask: Tensor | None = None, *, return_graph: bool = False
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        """Couple the logits.

        Args:
            logits: evidence u of each AU, (B, N) or (..., N).
            mask: bool, of the shape of `logits`, True where the AU exists. An absent AU is left
                out of the model. (An AU without evidence is another thing: it has u = 0.)
            return_graph: return the couplings as well, see `graph`, without those of absent nodes.

        Returns:
            Logits of the marginals, of the shape of `logits`, in float32 or wider; zero for absent
            nodes. With `return_graph` also the graph, with one entry for each row of `logits`.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        rows, row_mask = self._rows(logits, mask)
        fields = at_least_float32(rows) + self.bias
        with without_autocast(logits):
            out = marginal_logits(fields, self.couplings, self.blocks, row_mask)
        out = out if logits.ndim == 2 else out.view(logits.shape)
        if not return_graph:
            return out
        weights = symmetric(self.couplings).expand(len(rows), -1, -1)
        if row_mask is not None:
            weights = weights.masked_fill(~pair_mask(row_mask), 0)
        return out, RelationGraph(weights=weights)

    if TYPE_CHECKING:
        __call__ = forward

    def probabilities(self, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the marginals, of the shape of `logits` (..., N); zero for absent nodes."""
        found = self.forward(logits, mask).sigmoid()
        return found if mask is None else found.masked_fill(~mask, 0)

    def condition(self, logits: Tensor, known: Tensor) -> Tensor:
        """Return the marginals given that some AUs are known.

        Args:
            logits: (..., N).
            known: of the shape of `logits`; 1 and 0 for AUs that are known, -1 for the others.

        Returns:
            Probabilities, of the shape of `logits`; 1 and 0 for AUs that are known.

        Raises:
            ValueError: an argument has the wrong shape, or `known` another value.
        """
        rows, _ = self._rows(logits, None)
        free, active = self._labels("known", known, logits)
        fields = at_least_float32(rows) + self.bias
        with without_autocast(logits):
            found = given_known(fields, self.couplings, self.blocks, free, active)
        return found.view(logits.shape)

    def nll(
        self, logits: Tensor, labels: Tensor, reduction: Literal["mean", "sum", "none"] = "mean"
    ) -> Tensor:
        """Return the negative log-likelihood of the known labels of each row together, in nats.

        Unknown labels are summed out exactly.

        Args:
            logits: (..., N).
            labels: of the shape of `logits`, 1, 0 or -1 (unknown).
            reduction: "mean" or "sum" over rows, or "none".

        Returns:
            A scalar, or (...) without a reduction.

        Raises:
            ValueError: an argument has the wrong shape or value.
        """
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        rows, _ = self._rows(logits, None)
        unknown, active = self._labels("labels", labels, logits)
        fields = at_least_float32(rows) + self.bias
        with without_autocast(logits):
            loss = negative_log_likelihood(fields, self.couplings, self.blocks, unknown, active)
        if reduction == "none":
            return loss.view(logits.shape[:-1])
        return loss.mean() if reduction == "mean" else loss.sum()

    def sample(
        self, logits: Tensor, count: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return random states, (count, ..., N) bool, each given the evidence `logits` (..., N).

        The AUs are sampled one after the other, each given those before; at most `num_exact` AUs
        are sampled exactly.
        """
        given = logits.detach().expand(count, *logits.shape)
        state = torch.full(given.shape, -1, device=logits.device)
        with torch.no_grad():
            for i in range(self.num_nodes):
                chance = self.condition(given, state)[..., i]
                number = torch.rand(chance.shape, generator=generator, device=logits.device)
                state[..., i] = (number < chance).long()
        return state > 0

    def graph(self) -> RelationGraph:
        """Return the symmetric couplings J as a graph with weights (1, N, N), 0 on the diagonal."""
        return RelationGraph(weights=symmetric(self.couplings)[None])

    def parameter_groups(self, lr: float, factor: float = 10.0) -> list[dict[str, Any]]:
        """Return the parameters for an optimizer: `factor` times `lr`, without weight decay."""
        return parameter_group((self.bias, self.couplings), lr, factor)

    def fit_labels(
        self, labels: Tensor, *, ridge: float = 1.0, groups: Tensor | None = None
    ) -> PairwiseFit:
        r"""Set bias and couplings to those that make a table of labels most likely.

        Maximizes :math:`\sum_m \log p(y_m) - \tfrac{r}{2}(|h|^2 + \sum_{i<j} J_{ij}^2)` without
        evidence, u = 0, which is concave where all labels are known, by L-BFGS in float64.

        Args:
            labels: (M, N), 1, 0 or -1 (unknown, summed out).
            ridge: r, which keeps parameters of AUs finite that never occur, or never together.
            groups: (M,) integers, the person of each row; then standard errors are computed, robust
                to the dependence of the rows of a person.

        Returns:
            A `PairwiseFit`.

        Raises:
            ValueError: an argument has the wrong shape or value.
        """
        check_shape("labels", labels, "M N", N=self.num_nodes)
        found, fit = fit_pairwise(labels.to(self.bias.device), self.blocks, ridge, groups)
        with torch.no_grad():
            self.bias.copy_(found[0])
            self.couplings.copy_(found[1])
        return fit

    def _rows(self, logits: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return `logits` and `mask` as (B, N)."""
        check_floating("logits", logits)
        if logits.ndim < 2 or logits.shape[-1] != self.num_nodes:
            raise ValueError(
                f"logits must have shape (..., N={self.num_nodes}), got {tuple(logits.shape)}"
            )
        rows = logits if logits.ndim == 2 else logits.reshape(-1, self.num_nodes)
        if mask is not None:
            if isinstance(mask, Tensor) and mask.shape != logits.shape:
                raise ValueError(
                    f"mask must have shape {tuple(logits.shape)}, got {tuple(mask.shape)}"
                )
            mask = mask.reshape(-1, self.num_nodes) if isinstance(mask, Tensor) else mask
            check_mask(mask, rows)
        return rows, mask

    def _labels(self, name: str, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return which labels are unknown and which are 1, (B, N)."""
        check_tensor(name, labels)
        if labels.shape != logits.shape:
            raise ValueError(
                f"{name} must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}"
            )
        labels = labels.reshape(-1, self.num_nodes)
        return ~known_labels(labels, name), labels == 1

    def extra_repr(self) -> str:
        blocks = "" if len(self.blocks) == 1 else f", blocks={self.blocks}"
        return f"{self.num_nodes}, num_exact={self.num_exact}{blocks}"

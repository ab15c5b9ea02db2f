"""Exact inference over action units along a video: coupled in a frame, persistent in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers.chain_fit import CANDIDATES, best_temper, fit_chain
from aurel.layers.chain_gaps import check_gaps, costs_over_gaps, order_of_tracks
from aurel.layers.chain_likelihood import log_likelihoods
from aurel.layers.chain_stream import ChainStream
from aurel.layers.pairwise_model import parameter_group, symmetric
from aurel.ops.arguments import check_floating, check_shape, check_tensor
from aurel.ops.chain_marginals import chain_marginals
from aurel.ops.chain_states import MAX_UNITS
from aurel.ops.chain_viterbi import chain_viterbi
from aurel.ops.distances import at_least_float32


class ChainInference(nn.Module):
    r"""Infer each AU in each frame from the evidence of all AUs in all frames.

    .. math::
        p(y_1, \ldots, y_T \mid u) \propto \prod_t \exp\Big(\sum_i (\tau u_{ti} + h_i)\, y_{ti}
            + \sum_{i<j} J_{ij}\, y_{ti} y_{tj}\Big) \prod_{t>1} \prod_i
            \exp(-s_i [y_{ti} \neq y_{t-1,i}]), \qquad y_t \in \{0, 1\}^N

    with the logits u of any network, `bias` h, the symmetric part J of `couplings`, and `stay` s,
    what a change of an AU from one frame to the next costs. The layer returns the logits of the
    exact marginals :math:`p(y_{ti} = 1 \mid u)`, by `chain_marginals`. It starts as the identity:
    h, J and s are 0. An AU with s = 0 changes for free; a negative `stay` counts as 0.

    Errors of a network in neighboring frames are alike, but the model counts each frame as evidence
    of its own. `temper` :math:`\tau` in (0, 1] weakens the evidence: `fit_temper` chooses it on
    validation data.

    Frames that are missing are left out of `logits`, and `gaps` says how far apart its rows are; or
    they are in `logits` and `frame_mask` is False for them. Both give the same results. An AU takes
    the g steps of a gap without evidence and without couplings: its matrix of 2 x 2 is raised to
    the power of g.

    Args:
        num_nodes: number N of AUs, at most 16. Time and memory grow with 2^N.

    Raises:
        ValueError: `num_nodes` is out of range.

    Source: a factorial hidden Markov model (Ghahramani and Jordan, Machine Learning 1997) whose
    chains are coupled in each frame, summed exactly; no paper on AUs is followed.
    """

    temper: Tensor

    def __init__(self, num_nodes: int) -> None:
        super().__init__()
        if not 1 <= num_nodes <= MAX_UNITS:
            raise ValueError(f"num_nodes must be in 1..{MAX_UNITS}, got {num_nodes}")
        self.num_nodes = num_nodes
        self.bias = nn.Parameter(torch.empty(num_nodes))
        self.couplings = nn.Parameter(torch.empty(num_nodes, num_nodes))
        self.stay = nn.Parameter(torch.empty(num_nodes))
        self.register_buffer("temper", torch.ones(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all parameters to 0 and `temper` to 1: the layer is the identity."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.temper.fill_(1)

    def parameter_groups(self, lr: float, factor: float = 10.0) -> list[dict[str, Any]]:
        """Return the parameters for an optimizer: `factor` times `lr`, without weight decay."""
        return parameter_group((self.bias, self.couplings, self.stay), lr, factor)

    def forward(
        self, logits: Tensor, frame_mask: Tensor | None = None, gaps: Tensor | None = None
    ) -> Tensor:
        """Smooth: infer every frame from the whole clip.

        Args:
            logits: evidence u, (B, T, N), T >= 1.
            frame_mask: (B, T) bool, True where the frame is valid; others have no evidence. Their
                results are predictions from the valid ones.
            gaps: positive numbers of frames from each row to the next, (B, T - 1) or (T - 1,); inf
                where another video or person begins. None for consecutive frames.

        Returns:
            Logits of the marginals, (B, T, N), at most 200 from 0, in float32 or wider.

        Raises:
            ValueError: an argument has the wrong shape, dtype or value.
        """
        return chain_marginals(*self._chain(logits, gaps), mask=frame_mask)[1]

    if TYPE_CHECKING:
        __call__ = forward

    def smooth(
        self, logits: Tensor, frame_mask: Tensor | None = None, gaps: Tensor | None = None
    ) -> Tensor:
        """Return what the layer returns when it is called."""
        return self(logits, frame_mask, gaps)

    def filter(
        self, logits: Tensor, frame_mask: Tensor | None = None, gaps: Tensor | None = None
    ) -> Tensor:
        """Infer every frame from itself and those before it; as `forward` otherwise."""
        return chain_marginals(*self._chain(logits, gaps), mask=frame_mask, past=True)[1]

    def most_likely_path(
        self, logits: Tensor, frame_mask: Tensor | None = None, gaps: Tensor | None = None
    ) -> Tensor:
        """Return the most likely states of all frames together, (B, T, N) int64, 1 for active.

        Args:
            logits: (B, T, N).
            frame_mask: as of `forward`.
            gaps: as of `forward`.
        """
        return chain_viterbi(*self._chain(logits, gaps), mask=frame_mask)

    def smooth_tracks(self, logits: Tensor, tracks: Tensor, frames: Tensor | None = None) -> Tensor:
        """Smooth the rows of a table, in which several people may be, each by themselves.

        Args:
            logits: (M, N), one row for each face in each frame, in any order.
            tracks: (M,) integers, the person of each row.
            frames: (M,) integers, the number of the frame; None where no frame of a person is
                missing and rows are in order.

        Returns:
            Logits of the marginals, (M, N).

        Raises:
            ValueError: an argument has the wrong shape, or a person is twice in a frame.
        """
        check_shape("logits", logits, "M N", N=self.num_nodes)
        check_shape("tracks", tracks, "M", M=len(logits))
        if frames is not None:
            check_shape("frames", frames, "M", M=len(logits))
        if len(logits) == 0:
            return at_least_float32(logits)
        order, gaps = order_of_tracks(tracks, frames)
        return self(logits[order][None], gaps=gaps)[0][order.argsort()]

    def stream(self, lag: int) -> ChainStream:
        """Return a `ChainStream`, which takes frame after frame with the parameters of now.

        Args:
            lag: how many further frames are seen before a frame is inferred, 0 or more.
        """
        with torch.no_grad():
            bias, couplings, stay, temper = (
                each.double().clone()
                for each in (self.bias, self.couplings, self.stay.clamp_min(0), self.temper)
            )
            return ChainStream(bias, couplings, stay, temper, lag)

    def log_likelihood(
        self,
        logits: Tensor,
        labels: Tensor,
        frame_mask: Tensor | None = None,
        gaps: Tensor | None = None,
    ) -> Tensor:
        """Return the log-likelihood of all known labels of each clip together, (B,), in nats.

        Unknown labels, and those of frames that are not valid, are summed out exactly.

        Args:
            logits: (B, T, N).
            labels: (B, T, N), 1, 0 or -1 (unknown).
            frame_mask: as of `forward`.
            gaps: as of `forward`.

        Raises:
            ValueError: an argument has the wrong shape, dtype or value.
        """
        fields, couplings, stay = self._chain(logits, gaps)
        given = (fields.double(), couplings.double(), stay.double())
        return log_likelihoods(*given, labels, frame_mask).to(fields.dtype)

    def nll(
        self,
        logits: Tensor,
        labels: Tensor,
        frame_mask: Tensor | None = None,
        gaps: Tensor | None = None,
    ) -> Tensor:
        """Return the negative log-likelihood of a valid frame, in nats, a scalar to train with.

        The arguments are those of `log_likelihood`.
        """
        total = -self.log_likelihood(logits, labels, frame_mask, gaps).sum()
        if frame_mask is None:
            return total / max(1, logits.shape[0] * logits.shape[1])
        return total / frame_mask.sum().clamp_min(1)

    def graph(self) -> RelationGraph:
        """Return the symmetric couplings J as a graph with weights (1, N, N), 0 on the diagonal."""
        return RelationGraph(weights=symmetric(self.couplings)[None])

    def fit_labels(self, labels: Tensor | Sequence[Tensor], *, ridge: float = 1.0) -> float:
        r"""Set bias, couplings and costs to those that make the labels of clips most likely.

        Maximizes :math:`\sum \log p(y_1, \ldots, y_T) - \tfrac{r}{2}(|h|^2 + \sum_{i<j} J_{ij}^2 +
        |s|^2)` without evidence, u = 0, by L-BFGS in float64.

        Where clips have more than 8 different lengths, the log-partitions of the others are
        interpolated between those of 8 lengths; they are nearly linear in the length.

        Args:
            labels: (T, N), or one such tensor for each clip: 1, 0 or -1 (unknown, summed out).
            ridge: r, which keeps parameters of AUs finite that never occur or never change.

        Returns:
            Negative log-likelihood of a frame, in nats.

        Raises:
            ValueError: an argument has the wrong shape or value.
        """
        clips = [labels] if isinstance(labels, Tensor) else list(labels)
        for clip in clips:
            check_shape("labels", clip, "T N", N=self.num_nodes)
        found, loss = fit_chain([clip for clip in clips if len(clip) > 0], self.num_nodes, ridge)
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), found, strict=True):
                parameter.copy_(value)
        return loss

    def fit_temper(
        self,
        logits: Tensor,
        labels: Tensor,
        candidates: Sequence[float] = CANDIDATES,
        frame_mask: Tensor | None = None,
        gaps: Tensor | None = None,
    ) -> float:
        """Set `temper` to the candidate that makes the labels of validation data most likely.

        Args:
            logits: (B, T, N), of data on which the network was not trained.
            labels: (B, T, N), 1, 0 or -1 (unknown).
            candidates: numbers in (0, 1].
            frame_mask: as of `forward`.
            gaps: as of `forward`.

        Returns:
            The chosen candidate.

        Raises:
            ValueError: an argument has the wrong shape, dtype or value.
        """
        found = best_temper(self, logits, labels, candidates, frame_mask, gaps)
        self.temper.fill_(found)
        return found

    def _chain(self, logits: Tensor, gaps: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return fields, couplings and costs, as the ops take them."""
        check_tensor("logits", logits)
        check_floating("logits", logits)
        check_shape("logits", logits, "B T N", N=self.num_nodes)
        fields = self.temper * at_least_float32(logits) + self.bias
        stay = at_least_float32(self.stay.clamp_min(0))
        if gaps is not None:
            stay = costs_over_gaps(stay, check_gaps(gaps, logits))
        return fields, self.couplings, stay

    def extra_repr(self) -> str:
        return f"{self.num_nodes}"

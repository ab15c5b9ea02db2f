"""Exact inference over the AUs of a model, between its classifier and its output."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers import ChainInference, PairwiseInference, PlattScaling
from aurel.ops.arguments import check_choice
from aurel.output import AUOutput

RelationHeadKind = Literal["pairwise", "chain"]
HEAD = "relation_head."
"""Beginning of the names of its tensors in a model."""
LEAST_PROBABILITY = 1e-4
"""Probabilities of a classifier without logits are moved into [1e-4, 1 - 1e-4]."""


class RelationHead(nn.Module):
    r"""Couple the AUs of a model by exact inference.

    The logits :math:`u` of the model, or the logits of its probabilities where the classifier is a
    cosine similarity, are the evidence of each AU by itself. `inference` couples them:

    .. math::
        p(y \mid u) \propto
        \exp\Big(\sum_i (a_i u_i + b_i + h_i) y_i + \sum_{i<j} J_{ij} y_i y_j\Big)

    and the output's probabilities become the marginals of :math:`p`. Training leaves
    :math:`a = 1, b = 0`; `calibrate` fits them for a model that was trained without the head.

    Args:
        kind: "pairwise" for single frames, `PairwiseInference`; "chain" also along the frames of a
            clip, `ChainInference`.
        num_aus: N.

    Raises:
        ValueError: `kind` is another.
    """

    inference: PairwiseInference | ChainInference

    def __init__(self, kind: RelationHeadKind, num_aus: int) -> None:
        super().__init__()
        check_choice("relation_head", kind, get_args(RelationHeadKind))
        self.kind = kind
        self.inference = (PairwiseInference if kind == "pairwise" else ChainInference)(num_aus)
        self.calibration = PlattScaling(num_aus).requires_grad_(False)

    def forward(self, output: AUOutput, return_graph: bool = False) -> AUOutput:
        """Return `output` with coupled `probs` and `logits`, and the evidence `local_logits`.

        With `return_graph` the couplings are the last of its `graphs`.
        """
        local = output.logits
        if local is None:
            local = torch.logit(output.probs, LEAST_PROBABILITY)
        coupled = self.inference(self.calibration(local))
        graphs = output.graphs
        if return_graph:
            weights = self.inference.graph().adjacency()
            rows = local.flatten(0, -2).shape[0]
            graphs = (*(graphs or ()), RelationGraph(weights=weights.expand(rows, -1, -1)))
        return replace(
            output, probs=coupled.sigmoid(), logits=coupled, local_logits=local, graphs=graphs
        )

    def nll(self, local_logits: Tensor, labels: Tensor) -> Tensor:
        r"""Return the mean of :math:`-\log p(y \mid u) / N`; unknown labels are summed out.

        Args:
            local_logits: (B, N), of clips (B, T, N).
            labels: of the same shape, 1, 0 or -1.
        """
        if self.kind == "pairwise":
            local_logits, labels = (t.flatten(0, -2) for t in (local_logits, labels))
        return self.inference.nll(self.calibration(local_logits), labels) / labels.shape[-1]

    def fit_labels(self, labels: Tensor | Sequence[Tensor]) -> None:
        """Set the couplings to those of the highest likelihood of a table of labels.

        Args:
            labels: (M, N), 1, 0 or -1, or one such table for each run of consecutive frames.
        """
        if isinstance(self.inference, ChainInference):
            self.inference.fit_labels(labels)
        else:
            table = labels if isinstance(labels, Tensor) else torch.cat(list(labels))
            self.inference.fit_labels(table)

    @torch.no_grad()
    def calibrate(self, local_logits: Tensor, labels: Tensor) -> None:
        """Turn calibrated posteriors of single AUs into evidence for the fitted couplings.

        Sets a and b so that the local logits are calibrated on the given frames, less the log-odds
        that the couplings give without evidence, which would count twice.

        Args:
            local_logits: (M, N), of people that the model was not trained on.
            labels: (M, N), 1, 0 or -1.

        Raises:
            ValueError: see `PlattScaling.fit`.
        """
        self.calibration.fit(local_logits, labels)
        frame = (1, 1) if self.kind == "chain" else (1,)
        prior = self.inference(torch.zeros(*frame, local_logits.shape[-1], device=labels.device))
        assert self.calibration.shift is not None
        self.calibration.shift.sub_(prior.flatten())


@torch.no_grad()
def couple_along(head: RelationHead, outputs: Iterable[AUOutput], lag: int) -> Iterator[AUOutput]:
    """Yield the outputs of consecutive parts of one video, coupled by a chain over all of them.

    Args:
        head: of kind "chain".
        outputs: with `local_logits` (1, n, N), in order.
        lag: number of further frames that a frame is inferred from.
    """
    assert isinstance(head.inference, ChainInference)
    chain = head.inference.stream(lag)
    waiting: deque[AUOutput] = deque()
    coupled: list[Tensor] = []
    for output in outputs:
        assert output.local_logits is not None
        waiting.append(output)
        found = (chain.push(frame) for frame in head.calibration(output.local_logits[0]))
        coupled += [frame for frame in found if frame is not None]
        yield from _complete(waiting, coupled)
    coupled += chain.flush()
    yield from _complete(waiting, coupled)


def _complete(waiting: deque[AUOutput], coupled: list[Tensor]) -> Iterator[AUOutput]:
    """Yield the outputs all of whose frames are coupled; remove them and their frames."""
    while waiting and waiting[0].probs.shape[1] <= len(coupled):
        output = waiting.popleft()
        frames = output.probs.shape[1]
        logits = torch.stack(coupled[:frames])[None].to(output.probs.dtype)
        del coupled[:frames]
        yield replace(output, probs=logits.sigmoid(), logits=logits)

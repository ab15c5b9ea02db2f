"""Inference over action units while a video runs, a fixed number of frames behind."""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import torch
from torch import Tensor

from aurel.layers.chain_gaps import costs_over_gaps
from aurel.ops.arguments import check_integer, check_shape
from aurel.ops.chain_states import (
    MAX_LOGIT,
    MAX_STAY,
    couplings_of_pairs,
    state_bits,
    state_energies,
)


class ChainStream:
    """Frames of one person, one after the other, each inferred a few frames later.

    A frame gets what `ChainInference.smooth` gives it when the clip ends `lag` frames behind it.
    Memory does not grow: messages of `lag` + 1 frames. A push takes time in proportion to `lag`.

    Args:
        bias: (N,).
        couplings: (N, N).
        stay: (N,), 0 or more.
        temper: factor of the evidence, a scalar.
        lag: frames behind, 0 or more.

    Raises:
        ValueError: `lag` is negative.
        TypeError: `lag` is no int.
    """

    def __init__(
        self, bias: Tensor, couplings: Tensor, stay: Tensor, temper: Tensor, lag: int
    ) -> None:
        check_integer("lag", lag)
        if lag < 0:
            raise ValueError(f"lag must be 0 or more, got {lag}")
        self.lag = lag
        self._bias, self._temper = bias, temper
        self._pairs = couplings_of_pairs(couplings)
        self._bits = state_bits(len(bias), bias)
        self._step_over = lru_cache(64)(lambda gap: _step(stay, gap))
        # Forward message, potentials, and the step from the frame before.
        self._frames: deque[tuple[Tensor, Tensor, tuple[Tensor, Tensor]]] = deque()
        self._last: Tensor | None = None

    @torch.no_grad()
    def push(self, frame_logits: Tensor, gap: float = 1.0) -> Tensor | None:
        """Take the next frame.

        Args:
            frame_logits: evidence u of its AUs, (N,).
            gap: number of frames since the last one that was pushed, positive; more than 1 where
                frames are missing.

        Returns:
            Logits of the marginals, (N,), of the frame that was pushed `lag` calls ago; None where
            there is none yet.

        Raises:
            ValueError: an argument has the wrong shape or value.
        """
        check_shape("frame_logits", frame_logits, "N", N=len(self._bias))
        if not gap > 0:
            raise ValueError(f"gap must be a positive number of frames, got {gap}")
        fields = self._temper * frame_logits.to(self._bias) + self._bias
        energies = state_energies(fields[None, None], self._pairs, None)[0, 0]
        potentials = (energies - energies.max()).exp()
        step = self._step_over(float(gap))
        message = potentials if self._last is None else potentials * _move(self._last, step)
        self._last = message / message.sum()
        self._frames.append((self._last, potentials, step))
        if len(self._frames) <= self.lag:
            return None
        found = self._smoothed()[0].to(frame_logits.dtype)
        self._frames.popleft()
        return found

    @torch.no_grad()
    def flush(self) -> Tensor:
        """Return the logits of the marginals of the frames not yet returned, (K, N), and reset.

        K is the number of those frames, at most `lag`. The next frame begins another video.
        """
        found = torch.stack(self._smoothed()) if self._frames else self._bias.new_empty(0, 1)
        self._frames.clear()
        self._last = None
        return found if len(found) > 0 else self._bias.new_empty(0, len(self._bias))

    def _smoothed(self) -> list[Tensor]:
        """Return the logits of the marginals of all stored frames."""
        found: list[Tensor] = []
        backward = torch.ones_like(self._frames[-1][0])
        for message, potentials, step in reversed(self._frames):
            joint = message * backward
            active, inactive = joint @ self._bits, joint @ (1 - self._bits)
            least = torch.finfo(joint.dtype).tiny
            odds = active.clamp_min(least).log() - inactive.clamp_min(least).log()
            found.append(odds.clamp(-MAX_LOGIT, MAX_LOGIT))
            backward = _move(potentials * backward, step)
            backward = backward / backward.sum()
        return found[::-1]


def _step(stay: Tensor, gap: float) -> tuple[Tensor, Tensor]:
    """Return the Kronecker products of the matrices of the upper and of the lower half of AUs."""
    costs = costs_over_gaps(stay, torch.full((1, 1), gap, device=stay.device))[0, 0]
    change = costs.clamp(max=MAX_STAY).neg().exp()
    ones = torch.ones_like(change)
    matrices = torch.stack((ones, change, change, ones), -1).view(-1, 2, 2)
    lower = len(matrices) // 2
    return _product(matrices[lower:]), _product(matrices[:lower])


def _product(matrices: Tensor) -> Tensor:
    """Return the Kronecker product of matrices (K, 2, 2), the last first."""
    product = torch.ones(1, 1, dtype=matrices.dtype, device=matrices.device)
    for matrix in matrices:
        product = torch.kron(matrix, product)
    return product


def _move(message: Tensor, step: tuple[Tensor, Tensor]) -> Tensor:
    """Take a message (2^N,) over a step, as a matrix of the states of both halves."""
    upper, lower = step
    return (upper @ message.view(len(upper), len(lower)) @ lower).flatten()

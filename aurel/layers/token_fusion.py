"""Combination of the logits from nodes and from the whole face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.masked_norm import zero_absent, zero_empty_graphs
from aurel.ops.arguments import check_device, check_mask, check_shape, promote
from aurel.ops.distances import at_least_float32


class TokenFusion(nn.Module):
    r"""Mix two logits of each AU by a weight that is computed from the face.

    .. math::
        s_n = w\, s^{\mathrm{node}}_n + (1 - w)\, s^{\mathrm{face}}_n, \qquad
        w = \sigma\big(u^\top \mathrm{Encoder}([t; f; v_1 \dots v_N])_0 + b\big)

    with a learned token t, the token f of the whole face and the nodes v. The encoder is that of
    Vision Transformer without positions: pre-norm blocks of self-attention and an MLP of four times
    the width, and a last norm. One weight serves all AUs of a face.

    Args:
        channels: width C of the tokens.
        depth: blocks of the encoder.
        heads: attention heads; divides `channels`.
        weight: a constant w in 0..1 instead; then there are no parameters, and tokens are not used.

    Raises:
        ValueError: an argument is out of range.

    Source: section 3.3 and figure 3 of Yu et al., CVPR Workshops 2023 (LRP), both kinds. The paper
    gives the depth, 2; the heads, the width of the MLP and that w is one number in 0..1 are choices
    of this library.
    """

    def __init__(
        self, channels: int, depth: int = 2, heads: int = 8, weight: float | None = None
    ) -> None:
        super().__init__()
        if weight is not None and not 0 <= weight <= 1:
            raise ValueError(f"weight must be in 0..1, got {weight}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide the {channels} channels, got {heads}")
        self.channels = channels
        self.depth = depth
        self.heads = heads
        self.weight = weight
        if weight is not None:
            return
        self.token = nn.Parameter(torch.empty(channels))
        self.blocks = nn.ModuleList(_Block(channels, heads, 4 * channels) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, 1)
        nn.init.trunc_normal_(self.token, std=0.02)

    def node_weight(self, nodes: Tensor, face: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weight w of the nodes' logits, (B, 1), for nodes (B, N, C) and face (B, C).

        Raises:
            ValueError: an argument has the wrong shape or dtype, or the weight is a constant.
        """
        if self.weight is not None:
            raise ValueError(f"weight must be None for a weight from tokens, got {self.weight}")
        check_shape("nodes", nodes, "B N C", C=self.channels)
        check_shape("face", face, "B C", B=nodes.shape[0], C=self.channels)
        check_device("face", face, nodes)
        nodes, face = zero_absent(nodes, mask), zero_empty_graphs(face, mask)
        token = self.token.expand(nodes.shape[0], 1, -1)
        tokens = torch.cat(promote(token, face.unsqueeze(1), nodes), dim=1)
        present = None
        if mask is not None:
            present = torch.cat((torch.ones_like(mask[:, :1]).expand(-1, 2), mask), dim=1)
        for block in self.blocks:
            tokens = block(tokens, present)
        return at_least_float32(self.linear(self.norm(tokens[:, 0]))).sigmoid()

    def forward(
        self,
        node_logits: Tensor,
        face_logits: Tensor,
        nodes: Tensor | None = None,
        face: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the mixed logits.

        Args:
            node_logits: (B, N).
            face_logits: (B, N).
            nodes: (B, N, C); required unless the weight is a constant.
            face: (B, C); likewise.
            mask: (B, N) bool, True where the node exists.

        Returns:
            Logits (B, N) in float32 or wider, zero for absent nodes.

        Raises:
            ValueError: an argument is missing or has the wrong shape or dtype.
        """
        check_shape("node_logits", node_logits, "B N")
        batch, count = node_logits.shape
        check_shape("face_logits", face_logits, "B N", B=batch, N=count)
        check_device("face_logits", face_logits, node_logits)
        check_mask(mask, node_logits)
        if mask is not None:
            # An absent node may hold anything.
            node_logits, face_logits = (s.masked_fill(~mask, 0) for s in (node_logits, face_logits))
        node_logits, face_logits = at_least_float32(node_logits), at_least_float32(face_logits)
        weight: Tensor | float
        if self.weight is not None:
            weight = self.weight
        elif nodes is None or face is None:
            raise ValueError("nodes and face must be tensors without a constant weight, got None")
        else:
            check_shape("nodes", nodes, "B N C", B=batch, N=count, C=self.channels)
            weight = self.node_weight(nodes, face, mask)
        return face_logits + weight * (node_logits - face_logits)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}, depth={self.depth}, heads={self.heads}, weight={self.weight}"


class _Block(nn.Module):
    """`nn.TransformerEncoderLayer` by names and results, but it calls each of its submodules."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = _SelfAttention(channels, heads)
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Return (B, L, C) for tokens x (B, L, C), of which those of `present` (B, L) count."""
        x = x + self.self_attn(self.norm1(x), present)
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class _SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of tokens with themselves, by names and results."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        parts = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(
            2, (3, self.heads, -1)
        )
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        allowed = None if present is None else present[:, None, None]
        out = F.scaled_dot_product_attention(query, key, value, allowed)
        return self.out_proj(out.transpose(1, 2).flatten(2))

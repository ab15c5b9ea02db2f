"""A plain implementation of ME-GraphAU from the paper, with the authors' names of parameters.

It has a loop over the linear blocks of the AUs, and a tensor of every edge feature of every token.
Benchmarks and tests compare with it.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.bn(self.fc(tokens).mT).mT.relu()


class TopKGraph(nn.Module):
    def __init__(self, channels: int, nodes: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.U = nn.Linear(channels, channels)
        self.V = nn.Linear(channels, channels)
        self.bnv = nn.BatchNorm1d(nodes)

    def forward(self, x: Tensor) -> Tensor:
        similarity = (x @ x.mT).detach()
        kth = similarity.topk(self.k, dim=-1).values[..., -1:]
        adjacency = (similarity >= kth).to(x.dtype)
        scale = adjacency.sum(-1, keepdim=True).rsqrt()
        message = (scale * adjacency * scale.mT) @ self.V(x)
        return (x + self.bnv(message + self.U(x))).relu()


class CrossAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_q = nn.Linear(channels, channels // 2)
        self.linear_k = nn.Linear(channels, channels // 2)
        self.linear_v = nn.Linear(channels, channels)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        q, k = self.linear_q(query), self.linear_k(memory)
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ self.linear_v(memory)


class Edges(nn.Module):
    def __init__(self, channels: int, nodes: int) -> None:
        super().__init__()
        self.FAM = CrossAttention(channels)
        self.ARM = CrossAttention(channels)
        self.edge_proj = nn.Linear(channels, channels)
        self.bn = nn.BatchNorm2d(nodes**2)

    def forward(self, node_tokens: Tensor, tokens: Tensor) -> Tensor:
        nodes = node_tokens.shape[1]
        features = self.FAM(node_tokens, tokens[:, None].expand_as(node_tokens))
        end = features.repeat_interleave(nodes, dim=1)
        start = features.repeat(1, nodes, 1, 1)
        return self.bn(self.edge_proj(self.ARM(start, end))).mean(2)


class GatedGraph(nn.Module):
    def __init__(self, channels: int, nodes: int) -> None:
        super().__init__()
        for layer in (1, 2):
            for matrix in "UVABE":
                self.add_module(f"{matrix}{layer}", nn.Linear(channels, channels, bias=False))
            self.add_module(f"bnv{layer}", nn.BatchNorm1d(nodes))
            self.add_module(f"bne{layer}", nn.BatchNorm1d(nodes**2))

    def forward(self, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        nodes = x.shape[1]
        for layer in (1, 2):
            u, v, a, b, e, norm_x, norm_e = (
                self.get_submodule(f"{name}{layer}") for name in (*"UVABE", "bnv", "bne")
            )
            of_end = a(x).repeat_interleave(nodes, dim=1)
            of_start = b(x).repeat(1, nodes, 1)
            edges = edges + norm_e(of_end + of_start + e(edges)).relu()
            gates = edges.sigmoid().unflatten(1, (nodes, nodes)).softmax(2)
            message = (gates * v(x)[:, None]).sum(2) / nodes
            x = (x + norm_x(u(x) + message)).relu()
        return x, edges


class Head(nn.Module):
    def __init__(self, channels: int, nodes: int, stage: int, k: int = 4) -> None:
        super().__init__()
        self.class_linears = nn.ModuleList(LinearBlock(channels, channels) for _ in range(nodes))
        self.sc = nn.Parameter(nn.init.xavier_uniform_(torch.empty(nodes, channels)))
        self.gnn: nn.Module = TopKGraph(channels, nodes, k)
        if stage == 2:
            self.edge_extractor = Edges(channels, nodes)
            self.gnn = GatedGraph(channels, nodes)
            self.edge_fc = nn.Linear(channels, 4)
        self.stage = stage

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        node_tokens = torch.stack([block(tokens) for block in self.class_linears], dim=1)
        x, edge_logits = node_tokens.mean(2), None
        if self.stage == 2:
            x, edges = self.gnn(x, self.edge_extractor(node_tokens, tokens))
            edge_logits = self.edge_fc(edges)
        else:
            x = self.gnn(x)
        return F.cosine_similarity(x, self.sc.relu(), dim=-1), edge_logits


class PlainMEGraphAU(nn.Module):
    """Images (B, 3, H, W) to probabilities (B, N) and, in stage 2, edge logits (B, N * N, 4)."""

    def __init__(self, backbone: str, nodes: int, stage: int, k: int = 4) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, num_classes=0, global_pool="")
        width = int(self.backbone.num_features)  # type: ignore[arg-type]
        channels = width // 4
        self.global_linear = LinearBlock(width, channels)
        self.head = Head(channels, nodes, stage, k)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.head(self.global_linear(self.backbone(images).flatten(2).mT))

"""Run layers whose norms are synchronized, in one of two processes: rank, meeting file, results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.layer_cases import CASES, made

# Nothing but norms that masks reach: torch's own synchronize on GPUs only.
GRAPH_NORMS = [
    name
    for name in CASES
    if name.startswith(("TopKGraphConv", "GatedEdgeGCN", "MultiDimensionalEdges"))
]
MASKED_NORMS = [
    name
    for name in CASES
    if name.startswith(
        (
            "MaxRelativeGraphConv",
            "EdgeGraphConv",
            "GINGraphConv",
            "SAGEGraphConv",
            "SelfAdjustingGCN",
            "AUSpecificFeatures",
        )
    )
]
IMAGES = 4
# How the norms are converted, and how many images the first process has.
SHARES = {
    "unequal": (nn.SyncBatchNorm.convert_sync_batchnorm, 3),
    "all": (convert_sync_batchnorm, IMAGES),
}


def batches() -> list[tuple[str, list[Tensor], Tensor | None]]:
    """Return the layers, each with the whole batch."""
    torch.manual_seed(1)
    runs = []
    for name in GRAPH_NORMS + MASKED_NORMS:
        case = CASES[name]
        inputs = case.inputs(IMAGES)
        masks = case.masks(IMAGES)[1:] if name in MASKED_NORMS else case.masks(IMAGES)
        runs += [(name, inputs, mask) for mask in masks]
    return runs


def result(
    layer: nn.Module, name: str, inputs: list[Tensor], mask: Tensor | None, images: slice
) -> dict[str, Any]:
    """Return what one training step on these images of the batch gives."""
    given = [tensor[images].clone().requires_grad_() for tensor in inputs]
    outs = CASES[name](layer, given, None if mask is None else mask[images])
    # A sum over images: that of all processes is that of one.
    factors = [torch.arange(out.shape[1:].numel()).cos() for out in outs]
    sum((out.flatten(1) * f).sum() for out, f in zip(outs, factors, strict=True)).backward()
    return {
        "outs": [out.detach() for out in outs],
        "inputs": [tensor.grad for tensor in given],
        "parameters": {key: p.grad for key, p in layer.named_parameters()},
        "buffers": {key: b for key, b in layer.named_buffers()},
    }


def main(rank: int, meeting: str, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    results = {}
    for share, (convert, split) in SHARES.items():
        images = slice(0, split) if rank == 0 else slice(split, IMAGES)
        for index, (name, inputs, mask) in enumerate(batches()):
            layer = convert(made(name))
            results[share, index] = result(layer, name, inputs, mask, images)
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(made("TokenProjection"))
    try:
        layer(torch.randn(2, 3, 8, dtype=torch.float64))
    except ValueError as error:
        results["refused"] = str(error)
    torch.save(results, path)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])

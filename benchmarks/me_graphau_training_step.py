"""Time a training step of ME-GraphAU (stage 2), whole, beside the same model written plainly.

    python benchmarks/me_graphau_training_step.py --nodes 12 27 --batch 8 --rounds 5

Both have the same weights; before anything is timed, their outputs and gradients are compared. The
two take turns in one process, and the medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from plain_me_graphau import PlainMEGraphAU
from torch import Tensor
from torch.nn import functional as F

from aurel.facs import AUSet
from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.registry import create_model

Outputs = tuple[Tensor, Tensor]


def loss_of(outputs: Outputs, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the AUs and cross-entropy of the pairs."""
    probs, edge_logits = outputs
    pairs = 2 * labels.unsqueeze(2) + labels.unsqueeze(1)
    return F.binary_cross_entropy(
        probs.clamp(1e-6, 1 - 1e-6), labels.float()
    ) + 0.01 * F.cross_entropy(edge_logits.flatten(0, -2), pairs.flatten())


def run_plain(model: Any, images: Tensor) -> Outputs:
    return model(images)


def run_aurel(model: Any, images: Tensor) -> Outputs:
    out = model(images)
    return out.probs, out.edge_logits.flatten(1, 2)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def check_agreement(plain: Any, ours: Any, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return relative differences of outputs and of two gradients; SystemExit if any is large."""
    of_plain, of_ours = run_plain(plain, images), run_aurel(ours, images)
    loss_of(of_plain, labels).backward()
    loss_of(of_ours, labels).backward()
    differences = {
        "probs": relative(of_ours[0], of_plain[0]),
        "edge logits": relative(of_ours[1], of_plain[1]),
        "gradient of edge projection": relative(
            ours.head.edges.projection.weight.grad, plain.head.edge_extractor.edge_proj.weight.grad
        ),
        "gradient of first convolution": relative(
            ours.backbone.net.conv1.weight.grad, plain.backbone.conv1.weight.grad
        ),
    }
    if not all(difference < 1e-2 for difference in differences.values()):
        raise SystemExit(f"the two models disagree: {differences}")
    return differences


def step(
    model: Any,
    run: Callable[[Any, Tensor], Outputs],
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
) -> float:
    """Run one training step; return its seconds."""
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss_of(run(model, images), labels).backward()
    optimizer.step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(nodes: int, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    plain = PlainMEGraphAU(args.backbone, nodes, stage=2).train()
    ours = create_model("me_graphau", aus=AUSet.unnamed(nodes), backbone=args.backbone).train()
    load_author_checkpoint(ours, plain.state_dict())
    plain, ours = plain.to(args.device), ours.to(args.device)
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    labels = torch.randint(2, (args.batch, nodes), device=args.device)
    differences = check_agreement(plain, ours, images, labels)

    sides = {"plain": (plain, run_plain), "aurel": (ours, run_aurel)}
    optimizers = {
        name: torch.optim.AdamW(model.parameters(), lr=1e-6) for name, (model, _) in sides.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(args.rounds + 1):
        for name, (model, run) in sides.items():
            took = step(model, run, optimizers[name], images, labels)
            if turn > 0:
                seconds[name].append(took)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"me_graphau {args.backbone}, {nodes} nodes, batch {args.batch}, {args.size} px, "
        f"{args.device}, {torch.get_num_threads()} threads, {args.rounds} rounds"
    )
    for name, difference in differences.items():
        print(f"  agreement: {name} differs by {difference:.1e}, relative")
    for name, times in seconds.items():
        print(
            f"  {name}: median {medians[name]:.3f} s a step, {min(times):.3f} to {max(times):.3f}"
        )
    print(f"  plain / aurel: {medians['plain'] / medians['aurel']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[12, 27])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--backbone", default="resnet50", choices=["resnet18", "resnet50"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    for nodes in args.nodes:
        compare(nodes, args)


if __name__ == "__main__":
    main()

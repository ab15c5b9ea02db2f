"""Compare the time of a training step of each head with the same head in a loop over AUs.

    python benchmarks/batched_heads.py --models mdhr macg --nodes 12 --batch 4 --rounds 5

Both have the same weights; before the measurement, their outputs and the gradients of the maps are
compared. They are measured in turns in one process, and the medians are printed. The heads take
maps of the shape of the paper's backbone; with --backbone an image backbone is trained, too. The
last column names the layers that avoid a loop or a large tensor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from looped_layers import looped
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aurel.facs import AU_SETS
from aurel.models.registry import create_model, list_models, model_info

FRAMES = 8
AUS: dict[int, str] = {8: "DISFA", 12: "BP4D"}


class Maps(nn.Module):
    """Constant maps in place of a backbone."""

    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = nn.ParameterList(nn.Parameter(each.detach()) for each in maps)

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.maps)


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, weights: list[Tensor]
) -> float:
    """Run one training step; return its seconds."""
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    outputs = tensors(model(images))
    torch.stack([(o * w).sum() for o, w in zip(outputs, weights, strict=True)]).sum().backward()
    optimizer.step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def relative(batched: Tensor, sequential: Tensor) -> float:
    return float(
        (batched - sequential).detach().norm() / sequential.detach().norm().clamp_min(1e-12)
    )


def check_agreement(
    batched: nn.Module, sequential: nn.Module, images: Tensor, weights: list[Tensor]
) -> float:
    """Return the largest relative difference of outputs and gradients; SystemExit if large."""
    results = []
    for model in (batched, sequential):
        outputs = tensors(model(images))
        sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)).backward()  # type: ignore[union-attr]
        grads = [p.grad for p in model.get_submodule("backbone").parameters() if p.grad is not None]
        results.append([*outputs, torch.cat([grad.flatten() for grad in grads])])
        model.zero_grad()
    difference = max(relative(a, b) for a, b in zip(*results, strict=True))
    if not difference < 1e-2:
        raise SystemExit(f"the two sides disagree: {difference:.1e}")
    return difference


def compare(name: str, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    info = model_info(name)
    aus = "OpenGraphAU" if name.startswith("open_graphau") else AUS[args.nodes]
    options = {} if args.backbone is None else {"backbone": args.backbone}
    batched = create_model(name, aus=aus, **options).to(args.device).train()
    leading = (max(1, args.batch // FRAMES), FRAMES) if info.takes_clips else (args.batch,)
    images = torch.randn(*leading, 3, info.image_size, info.image_size, device=args.device)
    if args.backbone is None:
        with torch.no_grad():
            batched.backbone = Maps(batched.backbone(images.flatten(0, -4)))
        batched.to(args.device)
    sequential, replaced = looped(batched)
    sequential.train()
    with torch.no_grad():
        weights = [torch.randn_like(each) for each in tensors(batched(images))]
    difference = check_agreement(batched, sequential, images, weights)

    sides = {"looped": sequential, "aurel": batched}
    optimizers = {
        side: torch.optim.AdamW(model.parameters(), lr=1e-6) for side, model in sides.items()
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(args.rounds + 1):
        for side, model in sides.items():
            took = step(model, optimizers[side], images, weights)
            if turn > 0:
                seconds[side].append(took)
    slow, fast = (statistics.median(seconds[side]) * 1e3 for side in sides)
    print(
        f"{name:>20} | {len(AU_SETS[aus]):>3} | {slow:9.1f} | {fast:9.1f} | {slow / fast:5.2f}x | "
        f"{difference:.0e} | {', '.join(replaced)}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list_models(), metavar="NAME")
    parser.add_argument("--nodes", type=int, default=12, choices=sorted(AUS))
    parser.add_argument("--batch", type=int, default=8, help="images; frames for models of clips")
    parser.add_argument("--backbone", help="also train this backbone (default: the head only)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"a training step of {args.backbone or 'the head only'}, {args.batch} images, "
        f"{args.device}, {args.threads} threads, torch {torch.__version__}; medians of "
        f"{args.rounds} rounds"
    )
    print(f"{'model':>20} | AUs | looped ms |  aurel ms | ratio | differ | layers without a loop")
    for name in args.models:
        compare(name, args)


if __name__ == "__main__":
    main()

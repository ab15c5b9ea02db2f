"""Measure the parts of a step of two processes, and compute from them what 8 and 64 GPUs need.

python -m benchmarks.scaling: reading and augmenting pictures in one process, the step of a model on
a processor, and the all-reduce of its gradients over two processes (gloo), in less than a minute.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from aurel.data.lists import ListDataset
from aurel.data.transforms import TrainTransform
from aurel.losses import weighted_asymmetric_loss
from aurel.models import create_model

MODEL, BACKBONE, SIZE, BATCH = "me_graphau_stage1", "resnet18", 224, 4
PICTURES, STEPS, REDUCTIONS = 128, 3, 5


def pictures_per_second(folder: Path) -> float:
    """Return how many pictures of 256 pixels one process reads, decodes and augments a second."""
    noise = np.random.default_rng(0)
    (folder / "img" / "F001").mkdir(parents=True)
    (folder / "list").mkdir()
    names = [f"F001/{number}.jpg" for number in range(PICTURES)]
    for name in names:
        coarse = noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((256, 256)).save(folder / "img" / name, quality=90)
    lists = folder / "list"
    (lists / "BP4D_train_img_path_fold1.txt").write_text("\n".join(names))
    (lists / "BP4D_train_label_fold1.txt").write_text("\n".join(["0 1 " * 6] * PICTURES))
    data = ListDataset(folder)
    data.transform = TrainTransform(data.aus, 256, SIZE)
    data[0]
    start = time.perf_counter()
    for index in range(PICTURES):
        data[index]
    return PICTURES / (time.perf_counter() - start)


def timed_steps(model: torch.nn.Module) -> float:
    """Return the seconds of a training step."""
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    labels = torch.randint(0, 2, (BATCH, 12)).float()

    def step() -> None:
        model.zero_grad()
        weighted_asymmetric_loss(model(images).probs, labels).backward()

    step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = create_model(MODEL, aus="BP4D", backbone=BACKBONE).train()
    numbers = sum(p.numel() for p in model.parameters())
    dist.barrier()
    alone = timed_steps(model)
    dist.barrier()
    together = timed_steps(DistributedDataParallel(model))
    gradients = torch.zeros(numbers)
    dist.all_reduce(gradients)
    start = time.perf_counter()
    for _ in range(REDUCTIONS):
        dist.all_reduce(gradients)
    reduction = (time.perf_counter() - start) / REDUCTIONS
    if rank == 0:
        mib = 4 * numbers / 2**20
        print(f"{MODEL}, {BACKBONE}: {numbers / 1e6:.1f} M gradients, {mib:.0f} MiB a step")
        print(f"step of {BATCH} pictures, two processes at once: {alone:.3f} s without reduction,")
        print(f"  {together:.3f} s with it (DDP, gloo)")
        print(f"all-reduce alone: {reduction:.3f} s, {mib / reduction:.0f} MiB/s")
    dist.destroy_process_group()


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        rate = pictures_per_second(Path(folder))
        print(f"input: {rate:.0f} pictures/s in one process (256-pixel JPEG, augmented to {SIZE})")
        mp.spawn(process, (folder,), nprocs=2)


if __name__ == "__main__":
    main()

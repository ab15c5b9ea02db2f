"""
A graph convolution on point clouds
===================================

The layers are not specific to faces: nodes are vectors. Here they are points of spheres, cubes,
tori and cones, and each layer computes a new graph of the nearest points from its features.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers import MaxRelativeGraphConv

SHAPES = ("sphere", "cube", "torus", "cone")


def sample(count: int, points: int = 64) -> tuple[Tensor, Tensor]:
    """Return points (count, points, 3) on scaled and rotated surfaces, and their shapes."""
    kind = torch.randint(len(SHAPES), (count,))
    u, v = torch.rand(2, count, points, 1)
    circle = torch.cat(((6.283 * u).cos(), (6.283 * u).sin()), -1)
    sphere = F.normalize(torch.randn(count, points, 3), dim=-1)
    cube = sphere / sphere.abs().amax(-1, keepdim=True)
    tube = 6.283 * v
    torus = torch.cat((circle * (0.8 + 0.3 * tube.cos()), 0.3 * tube.sin()), -1)
    cone = torch.cat((circle * v.sqrt(), 1 - 2 * v.sqrt()), -1)
    clouds = torch.stack((sphere, cube, torus, cone))[kind, torch.arange(count)]
    clouds = clouds * (0.8 + 0.4 * torch.rand(count, 1, 3))
    return clouds @ torch.linalg.qr(torch.randn(count, 3, 3)).Q, kind  # rotated


torch.manual_seed(0)
convolve = nn.Sequential(
    nn.Linear(3, 32), MaxRelativeGraphConv(32, 64, k=8), MaxRelativeGraphConv(64, 64, k=8)
)
classify = nn.Linear(64, len(SHAPES))
optimizer = torch.optim.AdamW([*convolve.parameters(), *classify.parameters()], lr=3e-3)
accuracy = []
for _ in range(120):
    points, kind = sample(32)
    logits = classify(convolve(points).amax(1))
    optimizer.zero_grad()
    F.cross_entropy(logits, kind).backward()
    optimizer.step()
    accuracy.append((logits.argmax(1) == kind).float().mean().item())

# %%
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(torch.tensor(accuracy).unfold(0, 10, 1).mean(1))
plt.xlabel("step")
plt.ylabel("accuracy, mean of ten new batches")
plt.show()
